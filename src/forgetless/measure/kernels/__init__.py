"""Exact per-sample sums of |g| and g², one file per kind of operation.

`RULES` maps a torch operation to the rule that measures its parameters in the batch's own backward pass, `REWRITES` to
the same computation in terms of operations that have rules.
"""

from forgetless.measure.kernels import activation, convolution, embedding, linear, normalization, products, recurrent
from forgetless.measure.kernels.parts.broadcast import ELEMENTWISE, JOINING, spread, spread_term
from forgetless.measure.kernels.parts.rule import Call, Operation, Rewrite, Rule, Samples, mark_of_samples, of_samples
from forgetless.measure.kernels.parts.terms import Term

RULES: dict[Operation, Rule] = {
    **linear.RULES,
    **convolution.RULES,
    **normalization.RULES,
    **embedding.RULES,
    **activation.RULES,
    **products.RULES,
}
REWRITES: dict[Operation, Rewrite] = {**products.REWRITES, **recurrent.REWRITES, **embedding.REWRITES}

__all__ = [
    "ELEMENTWISE",
    "JOINING",
    "REWRITES",
    "RULES",
    "Call",
    "Operation",
    "Rewrite",
    "Rule",
    "Samples",
    "Term",
    "mark_of_samples",
    "of_samples",
    "spread",
    "spread_term",
]

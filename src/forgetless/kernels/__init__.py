"""Exact per-sample sums of |g| and g², one file per kind of operation.

`RULES` maps a torch operation to the rule that measures its parameters in the batch's own backward pass.
"""

from forgetless.kernels import convolution, embedding, linear, normalization
from forgetless.kernels.rule import Call, Operation, Rule
from forgetless.kernels.terms import Term, combined_modulus_sum

RULES: dict[Operation, Rule] = {
    **linear.RULES,
    **convolution.RULES,
    **normalization.RULES,
    **embedding.RULES,
}

__all__ = ["RULES", "Call", "Operation", "Rule", "Term", "combined_modulus_sum"]

"""How curved `½‖F‖²` is in each parameter: the Fisher information of a Gaussian around the output.

Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural Computation 2002 (the
Gauss-Newton matrix, whose diagonal this is); Martens, "New insights and perspectives on the natural gradient method",
JMLR 2020, section 9 (it is the Fisher information of a Gaussian of unit variance).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure import draws
from forgetless.measure.accumulator import Estimator, Until, measure
from forgetless.measure.engine.target import Quantity
from forgetless.measure.importance import Importance
from forgetless.model import batches
from forgetless.model.collation import Collate
from forgetless.model.masks import Mask
from forgetless.model.network import Network
from forgetless.model.outputs import Forward, Output, Select

Form = Literal["sampled", "exact"]


def output_curvature(
    model: nn.Module,
    data: Any,
    *,
    form: Form = "sampled",
    seed: int = 0,
    into: Importance | None = None,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
    exclude: str | Iterable[str] = (),
    collate_fn: Collate | None = None,
    batch_size: int | None = None,
    until: Until = None,
    prove: bool = True,
    progress: bool = True,
) -> Importance:
    """Measure the curvature of what the network outputs, per sample, for outputs of any kind (regression, embeddings).

        Ω = 1/N Σ_n (∂ Σ_o ε_no F_o(x_n; θ) / ∂θ)²,  ε_no = ±1 at random      form="sampled"
        Ω = 1/N Σ_n Σ_o (∂F_o(x_n; θ) / ∂θ)²                                  form="exact"

    It is the diagonal Fisher information of the model `y ~ N(F(x), 1)`, as EWC needs it where outputs are no logits.
    The expectation of the first over ε is the second. Eval mode; the model is left unchanged.

    Args:
        model: a trained network.
        data: as for `forgetless.mas`; unlabeled.
        form: "sampled" costs one backward pass; "exact" as many as there are outputs.
        seed: which signs are drawn, for each sample by its number; torch's generators are neither used nor moved.
        into: an earlier measurement of the same network to pool with; it is left unchanged.
        output: which tensors of the model's output are F; see `forgetless.mas`.
        forward: (model, batch) → output, where `model(inputs)` is not the way.
        mask: which positions of the output count; see `forgetless.mas`.
        exclude: parameters to leave out: names, module names ("head") or patterns ("*.bias").
        collate_fn: a list of samples → a batch; see `forgetless.mas`.
        batch_size: samples at a time, for memory; it never changes the numbers.
        until: stop early; see `forgetless.mas`.
        prove: check samples against themselves alone; see `forgetless.mas`.
        progress: show a progress bar on a terminal.

    Returns:
        Sums and count over the samples, float32 or wider; `.mean()` is Ω.

    Raises:
        ForgetlessError: another form, and all that `forgetless.mas` refuses.
    """
    network = Network.of(model, exclude)
    made = estimator(network, form=form, seed=seed, output=output, forward=forward, mask=mask)
    data = batches.of(data, batch_size, collate_fn)
    return measure(network, data, made, into=into, batch_size=batch_size, until=until, prove=prove, progress=progress)


def estimator(
    network: Network,
    *,
    form: Form = "sampled",
    seed: int = 0,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
) -> Estimator:
    """What `output_curvature` sums over samples.

    Raises:
        ForgetlessError: another form.
    """
    if form not in ("sampled", "exact"):
        raise ForgetlessError(f'form must be "sampled" or "exact", not {form!r}.')
    function = Output(output, forward, mask)

    def outputs(model: nn.Module, batch: Any) -> Tensor:
        return torch.cat([tensor.flatten(1) for tensor in function.tensors(model, batch)], 1)

    def sampled(model: nn.Module, batch: Any) -> Tensor:
        found = outputs(model, batch["samples"])
        return (found * draws.signs(seed, batch["numbers"], found)).sum(1)

    exact = form == "exact"
    quantity = Quantity(outputs if exact else sampled, power=2, several=exact)
    rows = None if exact else lambda batch, numbers: {"samples": batch, "numbers": numbers}
    return Estimator(f"output curvature, {form}", quantity, rows, lambda model, _, batch: function.look(model, batch))

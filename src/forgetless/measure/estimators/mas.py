"""Memory Aware Synapses, global: how sensitive the network's output is to each parameter, without labels.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure.accumulator import Estimator, Until, measure
from forgetless.measure.engine.constant import constant_norm
from forgetless.measure.engine.target import Quantity
from forgetless.measure.importance import Importance
from forgetless.model import batches
from forgetless.model.collation import Collate
from forgetless.model.masks import Mask
from forgetless.model.network import Network
from forgetless.model.outputs import Forward, Output, Select


def mas(
    model: nn.Module,
    data: Any,
    *,
    form: Literal["norm", "vector"] = "norm",
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
    """Measure the importance of every parameter on unlabeled data (Eq. 2, squared-norm form, modulus per sample).

        Ω = 1/N Σ_n |∂‖F(x_n; θ)‖² / ∂θ|                 form="norm"
        Ω = 1/N Σ_n √(Σ_o (∂F_o(x_n; θ) / ∂θ)²)          form="vector"

    Exact: equal to one backward pass per sample, whatever the batch size. Eval mode; the model is left unchanged.

    Args:
        model: a trained network.
        data: unlabeled samples like those whose skill is to be kept: a tensor, a tuple (inputs first) or a dict is one
            batch; a `Dataset` is batched here; any other iterable yields batches. A sample is a row, and of packed rows
            of tokens a document (docs/language-models.md). Labels are ignored, but by mask="labels".
        form: "norm" asks for the gradient of `‖F‖²`, one backward pass; "vector" for the gradients of every output o,
            the length of whose vector it takes: for studies, since a sample costs as much as there are outputs.
        into: an earlier measurement of the same network to pool with; it is left unchanged.
        output: which tensors of the model's output are F: a name, an index, several, or a callable. By default the
            logits, else last_hidden_state, else the only tensor.
        forward: (model, batch) → output, where `model(inputs)` is not the way.
        mask: which positions of F count, where it has positions: "auto" takes the attention mask of the batch (of an
            encoder-decoder the decoder's own, or else the positions that have a label); "labels" takes only those of
            them whose label is not −100, for a causal language model position t where label t + 1 is not; a callable
            (batch) → `[N, T]`, true where a position counts; None: all.
        exclude: parameters to leave out: names, module names ("head") or patterns ("*.bias").
        collate_fn: a list of samples → a batch, as a DataLoader takes it: `data` is then a list, a `Dataset` or a
            `datasets.Dataset` of samples, such as texts.
        batch_size: samples at a time, for memory; it never changes the numbers.
        until: stop early, also in endless data: at a relative standard error (0.05: within 5 % in every parameter), or
            when a callable says so (`lambda found: found.overlap(0.1) > 0.95`). `Importance.error` tells how sure it
            is, and `into=` goes on from there, also after `save` and `load`.
        prove: measure one random sample of a batch alone as well, and compare: of the first batch, and of later ones as
            often as costs 3 % at most. False leaves that out.
        progress: show a progress bar on a terminal.

    Returns:
        Sums and count over the samples, float32 or wider; `.mean()` is Ω.

    Raises:
        ForgetlessError: nothing to measure, no data, NaN or Inf (named), an output that is not a float tensor with a
            row per sample, samples that influence each other (named module), or `into` of another network.
    """
    network = Network.of(model, exclude)
    made = estimator(network, form=form, output=output, forward=forward, mask=mask)
    data = batches.of(data, batch_size, collate_fn)
    return measure(network, data, made, into=into, batch_size=batch_size, until=until, prove=prove, progress=progress)


def estimator(
    network: Network,
    *,
    form: Literal["norm", "vector"] = "norm",
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
) -> Estimator:
    """What `mas` sums over samples.

    Raises:
        ForgetlessError: another form.
    """
    if form not in ("norm", "vector"):
        raise ForgetlessError(f'form must be "norm" or "vector", not {form!r}.')
    function = Output(output, forward, mask)
    if form == "norm":

        def look(model: nn.Module, parameters: Mapping[str, Tensor], batch: Any) -> list[str]:
            constant = constant_norm(function, model, parameters, batch)
            return function.look(model, batch) + ([] if constant is None else [constant])

        return Estimator("mas", Quantity(function.squared_norms), None, look)

    def outputs(model: nn.Module, batch: Any) -> Tensor:
        return torch.cat([tensor.flatten(1) for tensor in function.tensors(model, batch)], 1)

    quantity = Quantity(outputs, power=2, several=True, root=True)
    return Estimator("mas, vector form", quantity, None, lambda model, _, batch: function.look(model, batch))

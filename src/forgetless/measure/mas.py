"""Memory Aware Synapses, global: how sensitive the network's output is to each parameter, without labels.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from forgetless.importance import Importance
from forgetless.output import Forward, Output, Select
from forgetless.parameters import fingerprints, trainable, unwrapped
from forgetless.sweep import sweep


def mas(
    model: nn.Module,
    data: Any,
    *,
    into: Importance | None = None,
    output: Select = None,
    forward: Forward | None = None,
    exclude: str | Iterable[str] = (),
    batch_size: int | None = None,
    progress: bool = True,
) -> Importance:
    """Measure the importance of every parameter on unlabelled data (Eq. 2, squared-norm form, modulus per sample).

        Ω = 1/N Σ_n |∂‖F(x_n; θ)‖² / ∂θ|

    Exact: equal to one backward pass per sample, whatever the batch size. Eval mode; the model is left as found.

    Args:
        model: a trained network.
        data: unlabelled samples like those whose skill is to be kept: a tensor, a tuple (inputs first) or a dict is one
            batch; a `Dataset` is batched here; any other iterable yields batches. Labels are ignored.
        into: an earlier measurement of the same network to pool with; it is left unchanged.
        output: which tensors of the model's output are F: a name, an index, several, or a callable. By default the
            logits, else last_hidden_state, else the only tensor.
        forward: (model, batch) → output, where `model(inputs)` is not the way.
        exclude: parameters to leave out: names, module names ("head") or patterns ("*.bias").
        batch_size: samples at a time, for memory; it never changes the numbers.
        progress: show a progress bar on a terminal.

    Returns:
        Sums and count over the samples, float32 or wider; `.mean()` is Ω.

    Raises:
        ForgetlessError: nothing to measure, no data, NaN or Inf (named), an output that is not a float tensor with a
            row per sample, samples that influence each other (named module), or `into` of another network.
    """
    function = Output(output, forward)
    found = sweep(model, data, function.squared_norms, exclude=exclude, batch_size=batch_size, progress=progress)
    weights = fingerprints(trainable(unwrapped(model), exclude))
    fresh = Importance(found.sums, found.count, "mas", weights, found.unused)
    return fresh if into is None else into.merge(fresh)

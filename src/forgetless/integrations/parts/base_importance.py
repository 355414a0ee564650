"""`base_importance` measures what matters in the base of a model with LoRA adapters."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.adapted_layer import base_shape
from forgetless.integrations.parts.dequantized import dequantized, grouped, has_quantized
from forgetless.integrations.parts.lora import LoraModel
from forgetless.integrations.parts.renamed import renamed
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from forgetless.model.parameters import listing, matches, patterns_of, trainable


def base_importance(
    model: nn.Module, data: Any, *, into: Importance | None = None, at_once: int = 4 << 30, **options: Any
) -> Importance:
    """Measure the importance of the base weights that training the adapters can change, on the wrapped model.

        Ω = 1/N Σ_n |∂‖F(x_n; W + ΔW)‖² / ∂W|

    The model is measured as it computes now, adapters included. With fresh ones Ω is, to the bit, what `forgetless.mas`
    gives before `get_peft_model`; with trained ones it is that of W + ΔW, as `DeltaAnchor.consolidate` wants it.
    Measured are the weights under adapters, the copies of `modules_to_save` and whatever else of the base is trainable,
    under the names that they had before the model was wrapped. `requires_grad` is left unchanged.

    Of a base in 4 or 8 bits (bitsandbytes) W is the dequantized weight. As many layers as `at_once` allows are held in
    float at a time; each further group is one more pass through the data, and Ω is then returned on the CPU.

    Args:
        model: a model with LoRA adapters.
        data: as for `forgetless.mas`.
        into: an earlier measurement of the same weights to pool with.
        at_once: the most bytes that quantized weights may take in float together with their Ω, 8 for each.
        options: those of `forgetless.mas`.

    Raises:
        ForgetlessError: not LoRA, adapters that are merged, DoRA that has been trained (its scaled rows hide the
            gradient of W + ΔW), an `at_once` that is no number of bytes, quantized layers that compute something else
            than their dequantized weights do; where several passes are needed, data that can be gone through once only,
            or `until`; all of `forgetless.mas`'s.
    """
    if isinstance(at_once, bool) or not isinstance(at_once, int | float) or not at_once > 0:
        raise ForgetlessError(f"at_once must be a number of bytes, such as 4 << 30 for 4 GiB, not {at_once!r}.")
    lora = LoraModel.of(model)
    fresh = lora.is_fresh()
    if (scaled := lora.scaled()) and not fresh:
        raise ForgetlessError(
            f"DoRA scales the rows of {listing(scaled)}, so that the gradient of W is not that of W + ΔW; measure the "
            "merged model with forgetless.mas (merge_and_unload)."
        )
    if not has_quantized(lora.module):
        return _measured(model, lora.moved(), data, into, options)
    return _measured_in_float(model, data, into, at_once, options)


def _measured(
    model: nn.Module, names: Collection[str], data: Any, into: Importance | None, options: Mapping[str, Any]
) -> Importance:
    """The importance of these weights, whose layers are all in float, by the base's names."""
    lora = LoraModel.of(model)
    with lora.asked(names):
        found = mas(model, data, into=None if into is None else renamed(into, lora.copies), **options)
    found = renamed(found, {wrapped: name for name, wrapped in lora.copies.items()})
    return found if lora.is_fresh() else replace(found, weights={**found.weights, **lora.fingerprints(found.sums)})


def _measured_in_float(
    model: nn.Module, data: Any, into: Importance | None, at_once: int, options: Mapping[str, Any]
) -> Importance:
    """The same of a base that is partly quantized, group by group."""
    lora = LoraModel.of(model)
    patterns = patterns_of(options.get("exclude", ()))
    trainable(lora.module, patterns)  # refuses those that fit nothing
    options = {**options, "exclude": ()}
    moved = [name for name in lora.moved() if not any(matches(name, pattern) for pattern in patterns)]
    if into is not None and (besides := [name for name in into.sums if name not in moved]):
        raise ForgetlessError(
            f"the importance given as into= does not fit: {listing(besides)} are in it and are not measured here; "
            "measure the same weights, with the same exclude=."
        )
    packed = [name for name in lora.quantized() if name in moved]
    sizes = [8 * math.prod(base_shape(lora.layers[name])) for name in packed]
    groups = [[packed[index] for index in group] for group in grouped(sizes, at_once)] or [[]]
    groups[0] += [name for name in moved if name not in packed]
    if len(groups) > 1 and (isinstance(data, Iterator) or options.get("until") is not None):
        what = "data that can be gone through once only" if isinstance(data, Iterator) else "until="
        raise ForgetlessError(
            f"the quantized weights are measured in {len(groups)} passes through the data, for which {what} will not "
            f"do: give a list or a DataLoader and no until, or at_once={sum(sizes)} to hold all of them in float."
        )
    parts: list[Importance] = []
    for names in groups:
        with dequantized(lora.module, [lora.layers[name].get_base_layer() for name in names if name in packed]):
            earlier = None if into is None else renamed(into, {name: name for name in names}, only=True)
            part = _measured(model, names, data, earlier, options)
        if parts and part.count != parts[0].count:
            raise ForgetlessError(
                f"the data gave {parts[0].count:g} samples in the first pass and {part.count:g} in a later one; the "
                "quantized weights need the same samples in each."
            )
        parts.append(part if len(groups) == 1 else replace(part, sums={n: each.cpu() for n, each in part.sums.items()}))
    return _joined(parts)


def _joined(parts: Sequence[Importance]) -> Importance:
    """One importance of several parts of a model, measured on the same samples."""
    first, *others = parts
    if not others:
        return first
    return replace(
        first,
        sums={name: total for part in parts for name, total in part.sums.items()},
        weights={name: mark for part in parts for name, mark in part.weights.items()},
        unused=tuple(name for part in parts for name in part.unused),
    )

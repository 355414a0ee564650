"""Outputs of constant norm: `‖F‖²` of a normalized output does not depend on the parameters, and MAS finds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.model import batches
from forgetless.model.outputs import Output
from forgetless.model.parameters import listing

_PROBED = 16  # parameters that are looked at, spread over the network
_SMALL = 1e-2  # of the gradient's parts; those of a norm that is not constant are as large as their parts
_NUMEL = 8  # elements at the least: of fewer, parts may cancel by chance


def constant_norm(output: Output, model: nn.Module, parameters: Mapping[str, Tensor], batch: Any) -> str | None:
    """The sentence about parameters on which `‖F‖²` does not depend although F does; None where there are none.

    `∂‖F‖² = 2 Σ_o F_o ∂F_o` is compared with `2 Σ_o ±F_o ∂F_o` under random signs, for the first two samples.

    Args:
        output: F.
        model: as it is measured.
        parameters: those that are measured.
        batch: a batch.
    """
    leaves = {name: each for name, each in parameters.items() if each.is_leaf and each.numel() >= _NUMEL}
    step = -(-len(leaves) // _PROBED) or 1
    probed = dict(list(leaves.items())[::step])
    if not probed or batches.size(batch) < 1:
        return None
    try:
        tried = range(min(2, batches.size(batch)))
        found = [_ratios(output, model, probed, batches.rows(batch, n, n + 1)) for n in tried]
    except Exception:  # what cannot be tried is measured, or refused there
        return None
    constant = [name for name in probed if all(each.get(name, 1.0) < _SMALL for each in found)]
    if not constant:
        return None
    return (
        f"the norm of this output is constant: it does not depend on {listing(constant)} beyond rounding, as where the "
        "output is normalized last, and so their importance says nothing; give output= or forward= the tensor before "
        'the normalization, or measure with form="vector".'
    )


def _ratios(output: Output, model: nn.Module, parameters: Mapping[str, Tensor], sample: Any) -> dict[str, float]:
    """The largest gradient of `‖F‖²` over that of its parts under random signs, where these are not rounding too."""
    tensors = output.tensors(model, sample)
    generator = torch.Generator().manual_seed(0)
    total = torch.stack([each.double().square().sum() for each in tensors]).sum()
    signed = []
    for each in tensors:
        signs = torch.randint(0, 2, each.shape, generator=generator).to(each.device) * 2 - 1
        signed.append((each.double() * each.detach().double() * signs).sum() * 2)
    wanted = list(parameters.values())
    whole = torch.autograd.grad(total, wanted, retain_graph=True, allow_unused=True)
    parts = torch.autograd.grad(torch.stack(signed).sum(), wanted, allow_unused=True)
    sizes = [0.0 if each is None else float(each.abs().max()) for each in parts]
    largest = max(sizes)
    return {
        name: float(gradient.abs().max()) / size
        for name, gradient, size in zip(parameters, whole, sizes, strict=True)
        if gradient is not None and size > 1e-3 * largest
    }

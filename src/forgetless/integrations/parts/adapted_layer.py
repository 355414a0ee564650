"""One of PEFT's LoRA layers, read as matrices: its base weight, its active adapters, and what they add to it.

A linear layer's weight is `[o, i]`; an embedding's and GPT-2's (`fan_in_fan_out`) are stored transposed; of a
convolution's all axes but the first count as one. B is `[o, r]` and A `[r, i]` throughout.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.integrations.parts.dequantized import is_quantized, shape_of, weight_of
from forgetless.protect.anchored_parameter import pieces


@dataclass(frozen=True)
class Adapter:
    """One active adapter of a layer.

    Attributes:
        a: A, in the shape that its layer gives it.
        b: B, likewise.
        scale: s, α/r or with rsLoRA α/√r.
        magnitude: DoRA's m; None for LoRA.
    """

    a: nn.Parameter
    b: nn.Parameter
    scale: float
    magnitude: nn.Parameter | None = None


@dataclass(frozen=True)
class Change:
    """What adapters make of the base weight: `W + Δ = c ⊙ (W + L R)`, by rows.

    Attributes:
        left: L [o, r].
        right: R [r, i].
        factor: DoRA's c [o]; None for 1 everywhere.
    """

    left: Tensor
    right: Tensor
    factor: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """`left`, `right` and, where rows are scaled, `factor`."""
        parts = {"left": self.left, "right": self.right, "factor": self.factor}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    def rows(self, base: Tensor, rows: slice) -> Tensor:
        """`W + Δ`, a few rows of it."""
        found = torch.addmm(base[rows], self.left[rows].to(base), self.right.to(base))
        return found if self.factor is None else found.mul_(self.factor[rows, None].to(base))


def adapters_of(layer: Any) -> list[Adapter]:
    """The adapters of a layer that are active now."""
    found = []
    for name in layer.active_adapters:
        a, b = factor(layer, "A", name), factor(layer, "B", name)
        if a is not None and b is not None:
            dora = layer.lora_magnitude_vector
            magnitude = dora[name].weight if name in dora else None
            found.append(Adapter(a, b, float(layer.scaling[name]), magnitude))
    return found


def factor(layer: Any, letter: str, adapter: str) -> nn.Parameter | None:
    """A or B of an adapter; None if the layer has no adapter of that name."""
    modules, parameters = getattr(layer, f"lora_{letter}"), getattr(layer, f"lora_embedding_{letter}")
    found: nn.Parameter | None = modules[adapter].weight if adapter in modules else parameters.get(adapter, None)
    return found


def factors(layer: Any) -> tuple[Tensor, Tensor]:
    """L [o, Σr] and R [Σr, i] with `L R = Σ_k s_k B_k A_k`, in float32 or wider."""
    adapters, shape = adapters_of(layer), matrix_shape(layer)
    like = torch.empty(0, dtype=dtype_of(layer), device=device_of(layer))
    left = [like.new_zeros(shape[0], 0), *(each.scale * matrix(each.b).to(like) for each in adapters)]
    right = [like.new_zeros(0, shape[1]), *(matrix(each.a).to(like) for each in adapters)]
    return torch.cat(left, 1), torch.cat(right, 0)


@torch.no_grad()
def change_of(layer: Any) -> Change | None:
    """What the adapters change now; None for nothing."""
    adapters = adapters_of(layer)
    magnitude = adapters[0].magnitude if adapters else None
    if magnitude is None and not any(bool(each.a.any()) and bool(each.b.any()) for each in adapters):
        return None
    left, right = factors(layer)
    if magnitude is None:
        return Change(left, right)
    base, moved = base_matrix(layer).to(left), Change(left, right)
    norms = [moved.rows(base, rows).norm(dim=1) for (rows,) in pieces(tuple(base.shape), base.device)]
    return Change(left, right, magnitude.detach().flatten().to(base) / torch.cat(norms))


def effective(layer: Any) -> Tensor:
    """`W + ΔW` as it is now, in the shape and dtype of W."""
    weight: Tensor = layer.get_base_layer().weight.detach()
    change = change_of(layer)
    if change is None:
        return weight
    moved = change.rows(base_matrix(layer).to(change.left), slice(None))
    return as_shaped(layer, moved).to(weight.dtype)


def base_matrix(layer: Any) -> Tensor:
    """W as a matrix [o, i]; a view, or of a quantized layer dequantized."""
    base = layer.get_base_layer()
    return weight_of(base) if is_quantized(base) else as_matrix(layer, base.weight.detach())


def is_plain(layer: Any) -> bool:
    """Whether the base weight is an ordinary tensor and not quantized."""
    return not is_quantized(layer.get_base_layer())


def base_shape(layer: Any) -> tuple[int, ...]:
    """The shape of the base weight, also where a quantized one is stored in another."""
    base = layer.get_base_layer()
    return tuple(base.weight.shape) if is_plain(layer) else shape_of(base)


def matrix_shape(layer: Any) -> tuple[int, int]:
    """Its shape as a matrix, (o, i)."""
    rows, columns = as_matrix(layer, torch.empty(base_shape(layer), device="meta")).shape
    return rows, columns


def dtype_of(layer: Any) -> torch.dtype:
    """What ΔW is computed in: float32, or wider where an adapter is."""
    dtypes = [torch.float32, *(side.dtype for each in adapters_of(layer) for side in (each.a, each.b))]
    return functools.reduce(torch.promote_types, dtypes)


def device_of(layer: Any) -> torch.device:
    """Where the adapters are, or the base weight if there are none."""
    found = adapters_of(layer)
    device: torch.device = found[0].b.device if found else layer.get_base_layer().weight.device
    return device


def as_matrix(layer: Any, tensor: Tensor) -> Tensor:
    """What has the shape of the base weight, as a matrix [o, i]; a view."""
    return tensor.T if is_transposed(layer) else matrix(tensor)


def as_shaped(layer: Any, found: Tensor) -> Tensor:
    """A matrix [o, i] in the shape of the base weight; a view."""
    return found.T if is_transposed(layer) else found.view(base_shape(layer))


def is_transposed(layer: Any) -> bool:
    """Whether the base weight is stored as [i, o]: embeddings, and GPT-2's `Conv1D`."""
    return bool(layer.lora_embedding_A) or bool(getattr(layer, "fan_in_fan_out", False))


def matrix(tensor: Tensor) -> Tensor:
    """All axes but the first in one."""
    return tensor.detach().flatten(1)

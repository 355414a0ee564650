"""What adapters change of one base weight, as a product of two thin matrices, and the penalty on that change.

Every LoRA layer is read as a matrix: a linear layer's weight `[o, i]`, an embedding's and GPT-2's transposed, a
convolution's with all but its first axis in one. The adapters k that are active move it by

    ΔW = Σ_k s_k B_k A_k             B_k [o, r_k],  A_k [r_k, i],  s_k = α/r, or α/√r (rsLoRA)

and what is to be kept are the weights as they were when they were anchored, `W + Δ*`: Δ* is 0 for fresh adapters, and
the product of the adapters of that time otherwise. The penalty and its gradient, with `E = ΔW − Δ*`:

    P = λ Σ Ω E²,    ∂P/∂B_k = 2 λ s_k (Ω ⊙ E) A_kᵀ,    ∂P/∂A_k = 2 λ s_k B_kᵀ (Ω ⊙ E)

DoRA moves `W` to `c ⊙ (W + s B A)`, with `c = m / ‖W + s B A‖` for each row, so that `E = c (W + s B A) − W − Δ*`. With
`V = W + s B A`, `u = V / ‖V‖` and `F = 2 λ Ω ⊙ E` it follows for a row that `∂P/∂m = Σ_i F u` and
`∂P/∂V = c (F − (Σ_i F u) u)`, from where B and A go on as above. (In the loss PEFT takes ‖V‖ for a constant, as the
paper does; the penalty's gradient is exact.)

Neither ΔW nor E ever exists as a whole: both are made for a few rows at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.protect.anchored_parameter import pieces


@dataclass(frozen=True)
class Adapter:
    """One active adapter of a layer.

    Attributes:
        a: A, in the shape that its layer gives it.
        b: B, likewise.
        scale: s.
        magnitude: DoRA's m; None for LoRA.
    """

    a: nn.Parameter
    b: nn.Parameter
    scale: float
    magnitude: nn.Parameter | None = None


@dataclass(frozen=True)
class Kept:
    """Δ* of a layer, as `(c − 1) W + c L R`.

    Attributes:
        left: L [o, r].
        right: R [r, i].
        factor: c [o]; None for 1 everywhere.
    """

    left: Tensor
    right: Tensor
    factor: Tensor | None = None


@dataclass(eq=False)
class AdaptedWeight:
    """A base weight, what matters in it, and the adapters that change it.

    Attributes:
        name: the base weight's.
        layer: PEFT's layer around it.
        importance: Ω as a matrix [o, i].
        kept: Δ*; None for 0.
    """

    name: str
    layer: Any
    importance: Tensor
    kept: Kept | None = None

    def adapters(self) -> list[Adapter]:
        """The adapters that are active now."""
        return adapters_of(self.layer)

    def present(self) -> Kept | None:
        """ΔW as it is now, to be kept from now on; None if it is 0."""
        adapters = self.adapters()
        if not any(bool(each.a.any()) and bool(each.b.any()) for each in adapters) and self._factor(adapters) is None:
            return None
        left, right = self.factors(adapters)
        return Kept(left.clone(), right.clone(), self._factor(adapters))

    @property
    def dtype(self) -> torch.dtype:
        """What it is computed in: float32, or wider where an adapter is."""
        dtypes = [torch.float32, *(side.dtype for each in self.adapters() for side in (each.a, each.b))]
        return functools.reduce(torch.promote_types, dtypes)

    def factors(self, adapters: list[Adapter]) -> tuple[Tensor, Tensor]:
        """L [o, Σr] and R [Σr, i] with `L R = Σ_k s_k B_k A_k`."""
        rows, columns = self.importance.shape
        like = torch.empty(0, dtype=self.dtype, device=self.importance.device)
        lefts = [like.new_zeros(rows, 0), *(each.scale * matrix(each.b).to(like) for each in adapters)]
        rights = [like.new_zeros(0, columns), *(matrix(each.a).to(like) for each in adapters)]
        return torch.cat(lefts, 1), torch.cat(rights, 0)

    def away(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """P and Q with `P Q = L R − Δ*`, where no row is scaled (LoRA)."""
        if self.kept is None:
            return left, right
        return torch.cat((left, -self.kept.left.to(left)), 1), torch.cat((right, self.kept.right.to(right)), 0)

    @torch.no_grad()
    def drift(self) -> float:
        """`Σ Ω E²`."""
        return sum(float((omega * away.square()).sum()) for _, omega, away, _ in self._blocks(self.adapters()))

    @torch.no_grad()
    def gradients(self, strength: float) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """`∂P/∂θ` for every A, B and m of the active adapters, in the parameter's shape; float32 or wider."""
        adapters = self.adapters()
        if not adapters:
            return
        left, right = self.factors(adapters)
        to_left, to_right = torch.zeros_like(left), torch.zeros_like(right)
        to_magnitude = left.new_zeros(len(left))
        for rows, omega, away, unit in self._blocks(adapters):
            force = away.mul_(omega).mul_(2 * strength)
            if unit is not None:
                direction, factor = unit
                along = (force * direction).sum(1)
                to_magnitude[rows] = along
                force.addcmul_(along[:, None], direction, value=-1).mul_(factor[:, None])
            to_left[rows] = force @ right.T
            to_right.addmm_(left[rows].T, force)
        ranks = [len(each.a) for each in adapters]
        for each, b, a in zip(adapters, to_left.split(ranks, 1), to_right.split(ranks, 0), strict=True):
            yield each.b, (each.scale * b).view(each.b.shape)
            yield each.a, a.reshape(each.a.shape)
            if each.magnitude is not None:
                yield each.magnitude, to_magnitude.view(each.magnitude.shape)

    def _blocks(
        self, adapters: list[Adapter]
    ) -> Iterator[tuple[slice, Tensor, Tensor, tuple[Tensor, Tensor] | None]]:
        """A few rows at a time: which, Ω, E (a new tensor), and where they are scaled u and c."""
        left, right = self.factors(adapters)
        magnitude = adapters[0].magnitude if adapters else None
        scaled = magnitude is not None or (self.kept is not None and self.kept.factor is not None)
        if not scaled:
            p, q = self.away(left, right)
            for (rows,) in pieces(tuple(self.importance.shape), self.importance.device):
                yield rows, self.importance[rows].to(p), p[rows] @ q, None
            return
        base = self._base().to(left)
        for (rows,) in pieces(tuple(self.importance.shape), self.importance.device):
            moved, unit = torch.addmm(base[rows], left[rows], right), None
            if magnitude is not None:
                norm = moved.norm(dim=1).clamp_(min=torch.finfo(moved.dtype).tiny)
                factor = magnitude.detach().flatten().to(moved)[rows] / norm
                unit = (moved / norm[:, None], factor)
                moved = factor[:, None] * moved
            yield rows, self.importance[rows].to(moved), moved.sub_(self._kept_rows(base, rows)), unit

    def _kept_rows(self, base: Tensor, rows: slice) -> Tensor:
        """`W + Δ*`, a few rows of it."""
        if self.kept is None:
            return base[rows]
        whole = torch.addmm(base[rows], self.kept.left[rows].to(base), self.kept.right.to(base))
        return whole if self.kept.factor is None else self.kept.factor[rows, None].to(base) * whole

    def _factor(self, adapters: list[Adapter]) -> Tensor | None:
        """DoRA's c as it is now; None where there is none."""
        if not adapters or adapters[0].magnitude is None:
            return None
        left, right = self.factors(adapters)
        base = self._base().to(left)
        norms = [torch.addmm(base[r], left[r], right).norm(dim=1) for (r,) in pieces(tuple(base.shape), base.device)]
        return adapters[0].magnitude.detach().flatten().to(base) / torch.cat(norms)

    def _base(self) -> Tensor:
        return as_matrix(self.layer, self.layer.get_base_layer().weight.detach())


def adapters_of(layer: Any) -> list[Adapter]:
    """The active adapters of one of PEFT's LoRA layers."""
    found = []
    for name in layer.active_adapters:
        a, b = factor(layer, "A", name), factor(layer, "B", name)
        if a is None or b is None:
            continue
        dora = layer.lora_magnitude_vector
        magnitude = dora[name].weight if name in dora else None
        found.append(Adapter(a, b, float(layer.scaling[name]), magnitude))
    return found


def factor(layer: Any, letter: str, adapter: str) -> nn.Parameter | None:
    """A or B of an adapter; None if the layer has no adapter of that name."""
    modules, embeddings = getattr(layer, f"lora_{letter}"), getattr(layer, f"lora_embedding_{letter}")
    if adapter in modules:
        found: nn.Parameter = modules[adapter].weight
        return found
    return embeddings[adapter] if adapter in embeddings else None


def as_matrix(layer: Any, tensor: Tensor) -> Tensor:
    """What has the shape of the base weight, as a matrix [o, i]; a view."""
    return tensor.T if is_transposed(layer) else matrix(tensor)


def is_transposed(layer: Any) -> bool:
    """Whether the base weight is stored as [i, o]: embeddings, and GPT-2's `Conv1D`."""
    return bool(layer.lora_embedding_A) or getattr(layer, "fan_in_fan_out", False)


def matrix(tensor: Tensor) -> Tensor:
    """All axes but the first in one."""
    return tensor.detach().flatten(1)


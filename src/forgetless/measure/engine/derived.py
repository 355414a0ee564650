"""Tensors computed from parameters alone: views, casts, concatenations, weight norm, `W + BA`, a table looked up.

An operation may consume such a tensor instead of the parameter itself. Its term is in the derived tensor's shape and is
pulled back to the parameter sample by sample. Where the tensor only rearranges the parameter's elements, the modulus
passes through, and one pull-back serves all samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from forgetless.measure.kernels.parts.rule import Operation
from forgetless.measure.kernels.parts.terms import Mixture, Rows, Term, added, combined, modulus_

_T = torch.Tensor
REARRANGING: frozenset[Operation] = frozenset(
    {
        *(_T.view, _T.reshape, _T.flatten, _T.unflatten, _T.permute, _T.transpose, _T.t, _T.movedim, _T.swapaxes),
        *(torch.reshape, torch.flatten, torch.permute, torch.transpose, torch.t, torch.movedim, torch.swapaxes),
        *(_T.squeeze, _T.unsqueeze, torch.squeeze, torch.unsqueeze, _T.expand, _T.expand_as, _T.repeat, _T.tile),
        *(_T.__getitem__, _T.select, _T.narrow, _T.chunk, _T.split, _T.unbind, _T.index_select, _T.gather),
        *(torch.select, torch.narrow, torch.chunk, torch.split, torch.unbind, torch.index_select, torch.gather),
        *(_T.contiguous, _T.clone, torch.clone, _T.to, _T.float, _T.double, _T.half, _T.bfloat16, _T.type),
        *(_T.view_as, _T.reshape_as, _T.type_as, _T.roll, torch.roll, _T.flip, torch.flip),
        *(torch.cat, torch.concat, torch.stack, torch.hstack, torch.vstack, torch.broadcast_to, _T.broadcast_to),
        *(_T.T.__get__, _T.mT.__get__, torch.embedding, torch.nn.functional.embedding),  # type: ignore[attr-defined]
    }
)  # fmt: skip
SHAPED_LIKE: frozenset[Operation] = frozenset(
    {_T.view_as, _T.reshape_as, _T.expand_as, _T.type_as, _T.to}
)  # of the second tensor only the shape or the dtype matters


@dataclass(eq=False)
class Derived:
    """A tensor computed from parameters alone, or a parameter itself.

    Attributes:
        value: the tensor, with its autograd graph to the parameters.
        roots: the parameters it was computed from, by name.
        rearranged: whether it holds elements of its roots and nothing else.
        terms: of the uses in this pass, filled while the backward pass runs.
    """

    value: Tensor
    roots: dict[str, Tensor]
    rearranged: bool
    terms: list[Term] = field(default_factory=list)

    def pull(self, gradient: Tensor, root: Tensor) -> Tensor:
        """The gradient of `root` from the gradient of this tensor."""
        if self.value is root:
            return gradient
        with torch.enable_grad():
            (pulled,) = torch.autograd.grad(self.value, root, gradient.to(self.value.dtype), retain_graph=True)
        return pulled


@dataclass(frozen=True)
class _Pulled:
    """The term of a parameter through one derived tensor."""

    derived: Derived
    term: Term
    root: Tensor

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        if self.derived.value is self.root:
            return self.term.modulus_sum(power, into)
        if self._passes() and all(bool((each <= 1).all()) for each in self.footprints()):
            return added(self.derived.pull(self.term.modulus_sum(power), self.root), into)
        total = torch.zeros_like(self.sample(0)) if into is None else into
        for n in range(self.samples):
            total += modulus_(self.sample(n), power)
        return total

    def _passes(self) -> bool:
        """Whether the modulus of a gradient is pulled back as the gradient is."""
        hooks = getattr(self.derived.value, "_backward_hooks", None)  # which would get moduli for gradients
        return self.derived.rearranged and not hooks

    def sample(self, n: int) -> Tensor:
        return self.derived.pull(self.term.sample(n), self.root)

    @property
    def samples(self) -> int:
        return self.term.samples

    def footprints(self) -> Iterator[Tensor]:
        """How often a sample's gradient meets each element of the parameter; one for samples that are alike."""
        value = self.derived.value
        ones = torch.ones_like(value)
        if not isinstance(self.term, Rows):
            yield self.derived.pull(ones, self.root)
            return
        term = replace(self.term, gradient=ones)
        together = self.derived.pull(ones, self.root)
        if bool((together <= 1).all()):
            yield together  # no less than any sample's
            return
        alike = value.stride(term.axis) == 0  # an expanded axis: every row is the same memory
        for n in range(1 if alike else term.samples):
            yield self.derived.pull(term.sample(n), self.root)


@dataclass(frozen=True)
class _Disjoint:
    """Terms that touch different elements of a parameter (the query, key and value thirds of one matrix)."""

    terms: tuple[_Pulled, ...]

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        total = self.terms[0].modulus_sum(power, into)
        for term in self.terms[1:]:
            total = term.modulus_sum(power, total)
        return total

    def sample(self, n: int) -> Tensor:
        return Mixture(self.terms).sample(n)

    @property
    def samples(self) -> int:
        return self.terms[0].samples


def root_term(root: Tensor, uses: Sequence[Derived]) -> Term | None:
    """The term of a parameter from all tensors derived from it that were used; `None` if none was."""
    parts = tuple(_Pulled(use, combined(use.terms), root) for use in uses if use.terms)
    if len(parts) < 2:
        return parts[0] if parts else None
    if all(part.derived.rearranged for part in parts):
        met = [list(part.footprints()) for part in parts]
        samples = max(map(len, met))
        each = ([own[n] if len(own) > 1 else own[0] for own in met] for n in range(samples))
        if all(bool((torch.stack(some).sum(0) <= 1).all()) for some in each):
            return _Disjoint(parts)
    return Mixture(parts)

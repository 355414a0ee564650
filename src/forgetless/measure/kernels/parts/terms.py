"""Per-sample gradients of one parameter use, in a form smaller than one gradient per sample.

A *use* is one operation that consumes a parameter; its *term* stands for the gradients `g_n` of every sample n through
that use. A term knows `Σ_n |g_n|^power` without ever holding all `g_n` at once: memory is O(parameters).
Index letters: n sample, t position, i in, o out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from forgetless.measure.kernels.parts import native
from forgetless.model.shapes import Float

# Elements of the scratch that holds |g_n|: on a CPU it stays in a cache (measured), elsewhere it fills the device.
_TILE, _TILE_ELSEWHERE = 1 << 18, 1 << 26
_ROWS = 32  # of g_n at least, or a product is not worth its call


@runtime_checkable
class Term(Protocol):
    """The gradients of a parameter through one use, one per sample."""

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """`Σ_n |g_n|^power`, elementwise, in the parameter's shape; added to `into`, and that returned, if given."""
        ...

    def sample(self, n: int) -> Tensor:
        """`g_n` itself, in the parameter's shape."""
        ...

    @property
    def samples(self) -> int:
        """How many samples, N."""
        ...


@dataclass(frozen=True)
class Dense:
    """Gradients written out, `[N, *shape]`: for parameters that are small beside the activations (biases, norms)."""

    gradients: Tensor

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """`Σ_n |g_n|^power`."""
        return added(modulus(widened(self.gradients), power).sum(0), into)

    def sample(self, n: int) -> Tensor:
        """`g_n`."""
        return widened(self.gradients[n])

    @property
    def samples(self) -> int:
        """N."""
        return self.gradients.shape[0]


@dataclass(frozen=True)
class Rows:
    """Gradients of a tensor that has a row (or k rows) per sample, each touched by its own sample only.

    Attributes:
        gradient: of the whole tensor, in its shape.
        axis: the axis of the rows, `N·k` long.
        samples: N.
        inner: whether the sample index runs fastest along it.
    """

    gradient: Tensor
    axis: int
    samples: int
    inner: bool = False

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """`|g|^power`: every element belongs to one sample."""
        return added(modulus(self.gradient, power), into)

    def sample(self, n: int) -> Tensor:
        """The gradient, zero outside the rows of sample n."""
        rows = self.gradient.shape[self.axis] // self.samples
        own = slice(n, None, self.samples) if self.inner else slice(n * rows, (n + 1) * rows)
        index = (*[slice(None)] * self.axis, own)
        alone = torch.zeros_like(self.gradient)
        alone[index] = self.gradient[index]
        return alone


@dataclass(frozen=True)
class Outer:
    """Sums of outer products over positions, `g_n = Σ_t d_nt a_ntᵀ`: a matrix applied at T positions of each sample.

    Attributes:
        d: gradient of the output, `[N, T, O]`, any strides.
        a: the input, `[N, T, I]`, any strides.
        shape: the parameter's shape; O·I elements in row-major order.
    """

    d: Float[Tensor, "n t o"]
    a: Float[Tensor, "n t i"]
    shape: torch.Size

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """`Σ_n |Σ_t d_nt a_ntᵀ|^power`; for T = 1 one product, since `|d aᵀ| = |d||a|ᵀ`."""
        d, a = widened(self.d), widened(self.a)
        if into is None or not into.is_contiguous() or into.dtype != d.dtype:
            return added(self.modulus_sum(power, d.new_zeros(self.shape)), into)
        total = into.view(d.shape[2], a.shape[2])
        if d.shape[1] == 1:
            total.addmm_(modulus(d[:, 0], power).T, modulus(a[:, 0], power))
        elif native.serves(d, a):
            native.outer(d, a, total, power)
        else:
            rows = max(_ROWS, portion(d, _TILE, _TILE_ELSEWHERE) // max(1, a.shape[2]))
            for block, columns in zip(torch.split(total, rows), torch.split(d.transpose(1, 2), rows, 1), strict=True):
                _tile_sum(block, columns, a, power)
        return into

    def sample(self, n: int) -> Tensor:
        """`g_n = D_nᵀ A_n`."""
        return (widened(self.d[n]).T @ widened(self.a[n])).view(self.shape)

    @property
    def samples(self) -> int:
        """N."""
        return self.d.shape[0]


@dataclass(frozen=True)
class Blocks:
    """Sums of outer products in every block of a parameter `[B, I, O]`.

    Attributes:
        blocks: the terms of each block, `[I, O]`.
    """

    blocks: tuple[Outer, ...]

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """Block by block."""
        if into is None:
            return torch.stack([block.modulus_sum(power) for block in self.blocks])
        for block, total in zip(self.blocks, into, strict=True):
            block.modulus_sum(power, total)
        return into

    def sample(self, n: int) -> Tensor:
        """`g_n`, `[B, I, O]`."""
        return torch.stack([block.sample(n) for block in self.blocks])

    @property
    def samples(self) -> int:
        """N."""
        return self.blocks[0].samples


@dataclass(frozen=True)
class Lookups:
    """Gradients that touch only the rows a sample looked up.

    Attributes:
        d: gradient of the looked-up rows, `[N, T, D]`.
        ids: which rows, `[N, T]`.
        shape: the table's shape `[V, D]`.
        padding: the row that never receives a gradient, or -1.
    """

    d: Tensor
    ids: Tensor
    shape: torch.Size
    padding: int

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """Sum equal ids inside a sample, take the modulus, add to the rows."""
        n = torch.arange(self.samples, device=self.ids.device).unsqueeze(1)
        keys, segment = torch.unique(n * self.shape[0] + self.ids, return_inverse=True)
        d = self._masked()
        sums = d.new_zeros(len(keys), self.shape[1])
        sums.index_add_(0, segment.reshape(-1), d.reshape(-1, self.shape[1]))
        total = d.new_zeros(self.shape) if into is None else into
        return total.index_add_(0, keys % self.shape[0], modulus_(sums, power))

    def sample(self, n: int) -> Tensor:
        """`g_n`, the whole table."""
        d = self._masked()
        return d.new_zeros(self.shape).index_add_(0, self.ids[n], d[n])

    def touched(self, n: int) -> tuple[Tensor, Tensor]:
        """The rows that sample n looked up, once each, `[U]`, and their gradients, `[U, D]`."""
        ids, segment = torch.unique(self.ids[n], return_inverse=True)
        d = widened(self.d[n]).masked_fill((self.ids[n] == self.padding).unsqueeze(-1), 0)
        return ids, d.new_zeros(len(ids), self.shape[1]).index_add_(0, segment, d)

    def _masked(self) -> Tensor:
        return widened(self.d).masked_fill((self.ids == self.padding).unsqueeze(-1), 0)

    @property
    def samples(self) -> int:
        """N."""
        return self.ids.shape[0]


@dataclass(frozen=True)
class Tied:
    """A matrix that is multiplied with and looked up in, as a language model's tied head: `g_n = h_n + l_n`.

    Attributes:
        product: the terms of the product, h.
        lookups: the terms of the lookups, l.
    """

    product: Outer
    lookups: Lookups

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """`Σ_n |h_n|^p` at the price of the product, put right in the few rows that each sample looked up."""
        total = self.product.modulus_sum(power, into)
        for n in range(self.samples):
            ids, looked_up = self.lookups.touched(n)
            product = widened(self.product.d[n][:, ids]).T @ widened(self.product.a[n])
            total.index_add_(0, ids, (modulus(product + looked_up, power) - modulus(product, power)).to(total.dtype))
        return total

    def sample(self, n: int) -> Tensor:
        """`g_n`, the whole matrix."""
        return self.product.sample(n) + self.lookups.sample(n)

    @property
    def samples(self) -> int:
        """N."""
        return self.product.samples


def _tile_sum(total: Tensor, left: Tensor, right: Tensor, power: int) -> None:
    """`total += Σ_n |left_n right_n|^power`, as many samples at a time as the scratch holds."""
    tile = portion(total, _TILE, _TILE_ELSEWHERE)
    chunk = min(max(1, tile // max(1, total.numel())), max(1, len(left)))
    scratch = total.new_empty(chunk, *total.shape)
    for some, others in zip(torch.split(left, chunk), torch.split(right, chunk), strict=True):
        products = scratch[: len(some)]
        if len(some) > 1:
            total += modulus_(torch.bmm(some, others, out=products), power).sum(0)
        elif len(some):
            total += modulus_(torch.mm(some[0], others[0], out=products[0]), power)


def portion(values: Tensor, on_cpu: int, elsewhere: int) -> int:
    """How many elements to work on at a time: few where a cache is to hold them, many where a launch has its price."""
    return on_cpu if values.is_cpu else elsewhere


def widened(values: Tensor) -> Tensor:
    """Half precision as float32: sums over samples need its digits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def added(total: Tensor, into: Tensor | None) -> Tensor:
    """`total`, or the sum of both where there is something to add to."""
    return total if into is None else into.add_(total)


def modulus(values: Tensor, power: int) -> Tensor:
    """`|values|^power` for power 1 or 2."""
    return values.abs() if power == 1 else values.square()


def modulus_(values: Tensor, power: int) -> Tensor:
    """`modulus`, in place."""
    return values.abs_() if power == 1 else values.square_()


@dataclass(frozen=True)
class Mixture:
    """Terms of different kinds that add up inside a sample; written out one sample at a time."""

    terms: tuple[Term, ...]

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """`Σ_n |Σ_u g_n^(u)|^power`."""
        total = torch.zeros_like(self.terms[0].sample(0)) if into is None else into
        for n in range(self.samples):
            total += modulus_(self.sample(n), power)
        return total

    def sample(self, n: int) -> Tensor:
        """`Σ_u g_n^(u)`."""
        gradient = self.terms[0].sample(n).clone()
        for term in self.terms[1:]:
            gradient += term.sample(n)
        return gradient

    @property
    def samples(self) -> int:
        """N."""
        return self.terms[0].samples


def combined(terms: Sequence[Term]) -> Term:
    """The term of a parameter used several times (tied, reused, recurrent): uses add up *inside* a sample."""
    first = terms[0]
    if len(terms) == 1:
        return first
    if isinstance(first, Outer) and all(isinstance(term, Outer) for term in terms):
        outers = [term for term in terms if isinstance(term, Outer)]
        d = torch.cat([term.d for term in outers], dim=1)
        a = torch.cat([term.a for term in outers], dim=1)
        return Outer(d, a, first.shape)
    lookups = [term for term in terms if isinstance(term, Lookups)]
    others = [term for term in terms if not isinstance(term, Lookups)]
    if lookups and len({term.padding for term in lookups}) == 1:
        d, ids = torch.cat([term.d for term in lookups], 1), torch.cat([term.ids for term in lookups], 1)
        looked_up = Lookups(d, ids, lookups[0].shape, lookups[0].padding)
        product = combined(others) if others else None
        if product is None:
            return looked_up
        if isinstance(product, Outer) and product.shape == looked_up.shape:
            return Tied(product, looked_up)
    if isinstance(first, Dense) and all(isinstance(term, Dense) for term in terms):
        denses = [term.gradients for term in terms if isinstance(term, Dense)]
        return Dense(torch.stack(denses).sum(0))
    return Mixture(tuple(terms))

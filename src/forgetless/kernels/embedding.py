"""`F.embedding`: rows looked up by id. `g_n[v] = Σ_{t: id_nt = v} d_nt`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forgetless.kernels.rule import Call, Operation, Rule
from forgetless.kernels.terms import modulus_


@dataclass(frozen=True)
class Rows:
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

    def modulus_sum(self, power: int) -> Tensor:
        """Sum equal ids inside a sample, take the modulus, add to the rows."""
        n = torch.arange(self.samples, device=self.ids.device).unsqueeze(1)
        keys, segment = torch.unique(n * self.shape[0] + self.ids, return_inverse=True)
        sums = self.d.new_zeros(len(keys), self.shape[1])
        sums.index_add_(0, segment.reshape(-1), self._masked().reshape(-1, self.shape[1]))
        total = self.d.new_zeros(self.shape)
        return total.index_add_(0, keys % self.shape[0], modulus_(sums, power))

    def sample(self, n: int) -> Tensor:
        """`g_n`, the whole table."""
        return self.d.new_zeros(self.shape).index_add_(0, self.ids[n], self._masked()[n])

    def _masked(self) -> Tensor:
        return self.d.masked_fill((self.ids == self.padding).unsqueeze(-1), 0)

    @property
    def samples(self) -> int:
        """N."""
        return self.ids.shape[0]


def embedding(
    samples: int,
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Call | None:
    """Rule of `torch.embedding`: table `[V, D]`, ids `[N, …]` → rows `[N, …, D]`."""
    if indices.dim() < 1 or indices.shape[0] != samples or scale_grad_by_freq:
        return None

    def table_term(d: Tensor, ids: Tensor) -> Rows:
        return Rows(d.reshape(samples, -1, d.shape[-1]), ids.reshape(samples, -1), weight.shape, padding_idx)

    return Call(
        indices,
        (weight,),
        forward=lambda ids, table: torch.embedding(table, ids, padding_idx),
        input_gradient=lambda d, ids, table: None,
        terms=(table_term,),
    )


RULES: dict[Operation, Rule] = {torch.embedding: embedding}

"""What processes that measure one network together tell each other between the passes: one alone, replicas, shards.

Replicas (DDP) hold all weights: every one goes its own way, and they add up in the end. Shards (FSDP2) hold parts: each
pass is made by all, and its sums are spread over them at once (`lockstep`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.confidence import Confidence
from forgetless.measure.engine.passes import wide
from forgetless.model import batches
from forgetless.model.ranks import Ranks
from forgetless.model.sharding import local

Pooled = tuple[Mapping[str, Tensor], int, Confidence | None]


class Alone:
    """One process: nobody to ask."""

    first = True  # whether this is the process that warns and shows progress

    def dealt(self, data: Iterable[Any]) -> Iterator[Any]:
        """This process's batches, and None in their place for as long as another has more."""
        return iter(data)

    def anyone(self, samples: int) -> bool:
        """Whether any process has samples in its batch."""
        return samples > 0

    def most(self, *numbers: int) -> tuple[int, ...]:
        """The largest of every process's numbers, where all must go on for as long."""
        return numbers

    def decided(self, enough: bool) -> bool:
        """What the first process decides."""
        return enough

    def counted(self, samples: int) -> int:
        """How many samples the sums of one part are over."""
        return samples

    def finite(self, total: Tensor) -> bool:
        """Whether no element of a sum is NaN or Inf, on any process."""
        return batches.finite(total)

    def held(self, parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The parameters as the optimizer holds them."""
        return parameters

    def pooled(
        self, parameters: Mapping[str, Tensor], sums: dict[str, Tensor], count: int, confidence: Confidence | None
    ) -> Pooled:
        """The sums, count and confidence of all processes, from this one's."""
        return sums, count, confidence


class Replicas(Alone):
    """Processes that each hold all weights."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.first = ranks.rank == 0

    def dealt(self, data: Iterable[Any]) -> Iterator[Any]:
        """As for one process, in step with the others."""
        return self.ranks.lockstep(data)

    def anyone(self, samples: int) -> bool:
        """Asks all."""
        return bool(self.ranks.agree(samples).any())

    def most(self, *numbers: int) -> tuple[int, ...]:
        """The parts of all; each has pieces of its own."""
        return (int(self.ranks.agree(*numbers)[:, 0].max()), *numbers[1:])

    def decided(self, enough: bool) -> bool:
        """What the first decides, for all."""
        return bool(self.ranks.agree(enough)[0, 0])

    def pooled(
        self, parameters: Mapping[str, Tensor], sums: dict[str, Tensor], count: int, confidence: Confidence | None
    ) -> Pooled:
        """Added up."""
        total = int(self.ranks.agree(count).sum())
        used = set().union(*self.ranks.gathered(set(sums)))
        added = {name: self._added(parameters[name], sums.get(name)) for name in parameters if name in used}
        return added, total, None if confidence is None else self._confidence(parameters, confidence)

    def _added(self, parameter: Tensor, mine: Tensor | None) -> Tensor:
        own = torch.zeros_like(parameter, dtype=wide(parameter)) if mine is None else mine.clone()
        return self.ranks.total(own.detach())

    def _confidence(self, parameters: Mapping[str, Tensor], mine: Confidence) -> Confidence:
        told = self.ranks.gathered((mine.squares, mine.batches, mine.half_count, set(mine.half)))
        pooled = Confidence()
        for squares, count, half_count, _ in told:
            pooled = pooled.merge(Confidence(squares, count, {}, half_count))
        halves = set().union(*(names for *_, names in told))
        pooled.half = {n: self._added(parameters[n], mine.half.get(n)) for n in parameters if n in halves}
        return pooled


class Shards(Replicas):
    """Processes that each hold a part of every weight: the sums they hold are sharded like it, over all samples."""

    def most(self, *numbers: int) -> tuple[int, ...]:
        """The largest of all: every pass is made by all."""
        return tuple(self.ranks.agree(*numbers).max(0).values.tolist())

    def counted(self, samples: int) -> int:
        """Those of all processes."""
        return int(self.ranks.agree(samples).sum())

    def finite(self, total: Tensor) -> bool:
        """On every process's shard."""
        return not bool(self.ranks.agree(not batches.finite(local(total))).any())

    def held(self, parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Their shards."""
        return self.ranks.shards

    def pooled(
        self, parameters: Mapping[str, Tensor], sums: dict[str, Tensor], count: int, confidence: Confidence | None
    ) -> Pooled:
        """The sums are those of all processes already."""
        return sums, int(self.ranks.agree(count).sum()), confidence


Group = Alone  # what a sweep asks; the others answer for several processes


def group_of(ranks: Ranks | None) -> Group:
    """The group of the processes that share a network."""
    if ranks is None:
        return Alone()
    return Shards(ranks) if ranks.sharded else Replicas(ranks)

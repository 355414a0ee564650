"""`Asking`: a network in training is asked about its probes piece by piece, at a pace that costs little.

Where several processes train the network together (DDP around it, `fully_shard` in it), all of them ask at the same
steps, about the same probes, and go by what the first of them reads: what follows from it is done on every one alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.model.ranks import Ranks, ranks_of
from forgetless.protect.forgetting.pace import Pace
from forgetless.protect.forgetting.probes import Probes, Reading, pooled

_T = TypeVar("_T")


class Asking:
    """Asks a network about one piece of the probes after every few steps, and keeps the latest reading of each piece.

    Attributes:
        pace: when a piece is due; None before `start()`.
    """

    def __init__(self, model: nn.Module, probes: Probes, every: int | None, rounds: int = 1) -> None:
        """Read all pieces once.

        Args:
            model: the network that is being trained.
            probes: what it is asked.
            every: steps between two askings; None for the pace of `forgetless.protect.forgetting.pace`.
            rounds: how often each sample is asked about in a round.

        Raises:
            ForgetlessError: other processes that train the network have other probes.
        """
        self._ranks = _ranks(model)
        if self._ranks is not None:
            self._ranks.refuse_difference(probes.fingerprint(), "the set of probes")
        self._model, self._probes, self._every, self._rounds = model, probes, every, rounds
        self._turn = 0
        self._latest: list[Reading]
        self.pace: Pace | None = None
        self.read()

    def start(self) -> None:
        """Count steps from 0 and begin a new round."""
        self.close()
        self.pace = Pace(self._model, self._every, self._probes.rows, rounds=self._rounds, shared=self._firsts)
        self._turn = 0

    def close(self) -> None:
        """Note no more forward passes."""
        if self.pace is not None:
            self.pace.close()

    def stepped(self, react: Callable[[Reading, bool], None]) -> None:
        """Count a step; if a piece is due, ask about it and call `react(its reading, whether a round ends)`."""
        if self.pace is None:
            self.start()
        pace = self.pace
        assert pace is not None
        if not pace.stepped():
            return
        with pace.asking():
            if pace.rows != self._probes.rows:
                self._probes.split(pace.rows)
                self._latest = [pooled(self._latest)] * self._probes.pieces
            number = self._turn % self._probes.pieces
            self._turn += 1
            self._latest[number] = self._firsts(self._probes.read(self._model, [number]))[0]
            react(self._latest[number], self._turn % self._probes.pieces == 0)

    def read(self) -> Reading:
        """Ask about all probes now."""
        self._latest = self._firsts(self._probes.read(self._model))
        return pooled(self._latest)

    def _firsts(self, own: _T) -> _T:
        """The first process's in place of this one's own."""
        return own if self._ranks is None else self._ranks.gathered(own)[0]

    @property
    def latest(self) -> Reading:
        """One reading for all probes, from the latest answer to each."""
        return pooled(self._latest)

    @property
    def steps(self) -> int:
        """Steps since `start()`."""
        return 0 if self.pace is None else self.pace.steps

    @property
    def cost(self) -> float:
        """The seconds spent asking ÷ all other seconds since `start()`."""
        return 0.0 if self.pace is None else self.pace.cost


def _ranks(model: nn.Module) -> Ranks | None:
    """The processes that train the model together, as far as the model shows it."""
    try:
        return ranks_of(model)
    except ForgetlessError:  # of FSDP1 and tensor parallelism, every process reads the same anyway
        return None

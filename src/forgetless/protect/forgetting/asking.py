"""`Asking`: a network in training is asked about its probes piece by piece, at a pace that costs little."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from forgetless.protect.forgetting.pace import Pace
from forgetless.protect.forgetting.probes import Probes, Reading, pooled


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
        """
        self._model, self._probes, self._every, self._rounds = model, probes, every, rounds
        self._turn = 0
        self._latest: list[Reading]
        self.pace: Pace | None = None
        self.read()

    def start(self) -> None:
        """Count steps from 0 and begin a new round."""
        self.close()
        self.pace = Pace(self._model, self._every, self._probes.rows, rounds=self._rounds)
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
            self._latest[number] = self._probes.read(self._model, [number])[0]
            react(self._latest[number], self._turn % self._probes.pieces == 0)

    def read(self) -> Reading:
        """Ask about all probes now."""
        self._latest = self._probes.read(self._model)
        return pooled(self._latest)

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

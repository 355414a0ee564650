"""What every kind of model does to learn something new: measure, learn, judge, save. A subclass says how."""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import forgetless
from forgetless.errors import ForgetlessError, brief
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.lab.finetuning.loaded import Kind, Loaded
from forgetless.lab.finetuning.samples import Batches, Samples
from forgetless.measure.importance import Importance
from forgetless.model import batches
from forgetless.model.parameters import listing, named
from forgetless.protect.anchor import Anchor
from forgetless.protect.distillation import Distillation

#: Told where a phase is: its name, how much of it is done, and how much there is.
Tell = Callable[[str, int, int], None]
#: Told after a step: its number, its loss, and what protects, if anything does.
Reached = Callable[[int, float | Tensor, Anchor | DeltaAnchor | Distillation | None], None]
#: What was found by name, such as "old_accuracy"; None where there is nothing to find yet.
Figures = dict[str, float | None]


@dataclass(frozen=True)
class Plan:
    """How to learn.

    Attributes:
        method: one of `protected.METHODS`.
        strength: λ, or "auto": of distillation 1.
        epochs: passes over the new data.
        lr: the learning rate at the start; it falls to 0.
        batch_size: samples in a step.
        seed: decides the order, dropout and the first weights of a new head.
        lora: whether adapters learn in the place of the weights.
        hold: the share of the movement that is held back; None where λ is given, or nothing is held.
    """

    method: str
    strength: float | str
    epochs: int
    lr: float
    batch_size: int
    seed: int
    lora: bool = False
    hold: float | None = None


class Training(abc.ABC):
    """A model, what it is to learn, and samples of what it is to keep.

    Attributes:
        notes: sentences about what was decided on the way.
        strength: the λ of the last steps; None before training, and without protection.
        frozen: the share of the anchored weights that were stopped in the end; None without an anchor.
        reached: told after every step of the training.
    """

    def __init__(self, loaded: Loaded, plan: Plan, new: Samples, old: Samples | None) -> None:
        self.loaded, self.plan, self.new, self.old = loaded, plan, new, old
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network: nn.Module = loaded.network.to(self.device).eval()
        if loaded.normalize is not None:
            loaded.normalize.to(self.device)
        self.notes: list[str] = []
        self.strength: float | None = None
        self.frozen: float | None = None
        self.reached: Reached = lambda step, loss, anchor: None

    @property
    def steps(self) -> int:
        """How many steps the training has."""
        return self.plan.epochs * -(-len(self.new.numbers) // self.plan.batch_size)

    def batches_of(self, samples: Samples, held: bool = False) -> Batches:
        """The samples to measure on, or those held out, in their order."""
        return Batches(samples, samples.held if held else samples.numbers, self.plan.batch_size)

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """Turn what the model raises on a batch into a sentence.

        Raises:
            ForgetlessError: as said.
        """
        try:
            yield
        except Exception as error:  # whatever a model raises
            what = "token numbers" if self.loaded.kind.reads_texts else "pictures, uint8 [N, 3, size, size]"
            own = what if self.loaded.normalize is None else "pictures"
            raise ForgetlessError(f"{self.loaded.name} fails on {own}: {brief(error)}.") from error

    def on_device(self, batch: object) -> object:
        """The batch where the model is."""
        return batches.mapped(batch, lambda tensor: tensor.to(self.device))

    def measurement(self) -> forgetless.Measurement:
        """A measurement of the model as it was loaded, by Memory Aware Synapses."""
        own = self.loaded.normalize is not None or self.loaded.kind is Kind.TEXT_ENCODER
        return forgetless.Measurement(
            self.network, forward=self.loaded.forward if own else None, exclude=self.not_measured()
        )

    def measure(self, tell: Tell) -> Importance:
        """Ω on the old data."""
        assert self.old is not None
        measurement, read = self.measurement(), self.batches_of(self.old)
        with measurement:
            for number, batch in enumerate(read, 1):
                measurement.add(self.on_device(batch))
                tell("measuring the importance", number, len(read))
        return measurement.importance()

    def old_batch(self, numbers: Sequence[int]) -> Any:
        """The inputs of old samples of these numbers."""
        assert self.old is not None
        return self.old.take(numbers)[0]

    def not_measured(self) -> tuple[str, ...]:
        """Parameters that have no part in what is measured."""
        return ()

    def refuse_other(self, importance: Importance, path: Path) -> None:
        """Refuse an importance of another model.

        Raises:
            ForgetlessError: it names parameters that the model does not have, or in another shape.
        """
        own = named(self.network)
        if wrong := [n for n, sums in importance.sums.items() if n not in own or own[n].shape != sums.shape]:
            raise ForgetlessError(f"{path} is the importance of another model: it has {listing(wrong)}.")

    @abc.abstractmethod
    def figures(self) -> Figures:
        """What the model does now on the held-out samples, old and new."""

    @abc.abstractmethod
    def train(self, importance: Importance | None, folder: Path, tell: Tell) -> None:
        """Learn the new data by the plan's method.

        Args:
            importance: Ω by the names of the model as it was loaded; None for a method that has none.
            folder: where checkpoints are kept, from which a training that was stopped goes on.
            tell: told after every step.
        """

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model in its own format, and what belongs to it."""

    @abc.abstractmethod
    def try_step(self, method: str) -> float:
        """The seconds of one training step by a method, for an estimate; the model is of no use afterwards.

        Of what an anchor does nothing is counted.
        """


class Numbers(torch.utils.data.Dataset[int]):
    """The numbers of samples, which a collator reads."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> int:
        return self._numbers[place]


def timed(step: Callable[[], object]) -> float:
    """The seconds that a step takes."""
    begun = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun

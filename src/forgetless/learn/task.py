"""`Task`: one part of a stream: samples to learn from, samples to evaluate on, and what is asked of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.learn.objective import Objective
from forgetless.learn.samples import Samples, samples_of


@dataclass(frozen=True, eq=False)
class Task:
    """One distribution to learn.

    `train` and `test` may each be

    - tensors: a tensor, a tuple of tensors (inputs first) or a dict of tensors, row n for sample n; memory-mapped ones
      are read as they are used;
    - a map-style `Dataset` of samples, each a tensor, a tuple or a dict: batches are read by number as they are used;
    - an iterable of batches or an `IterableDataset`: the order is the stream's, and a resumed run reads and drops the
      batches it has used. Methods that read samples by number refuse it.

    Tensors and a dataset of the same samples give bit-identical runs.

    Attributes:
        name: unique in its stream.
        train: samples to learn from.
        test: held-out samples; never used for learning.
        objective: the loss and the score.

    Raises:
        ForgetlessError: samples of another kind, none, or samples that do not fit the objective.
    """

    name: str
    train: Any
    test: Any
    objective: Objective

    def __post_init__(self) -> None:
        for part, data in (("train", self.train), ("test", self.test)):
            where = f"the {part} part of task {self.name!r}"
            self.objective.check(data, where)
            found = samples_of(data)
            if found.steps(1) == 0:
                raise ForgetlessError(f"{where} is empty.")

    @functools.cached_property
    def samples(self) -> Samples:
        """How the training samples are read."""
        return samples_of(self.train)

    def inputs(self) -> Any:
        """The training inputs without their targets, as `forgetless.mas` and the other estimators take them."""
        return self.samples.inputs()

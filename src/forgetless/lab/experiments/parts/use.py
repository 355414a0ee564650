"""Measuring Ω on what a network is used for, which may be a part of what it has learned, or something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from forgetless.learn import methods
from forgetless.learn.facts import Facts
from forgetless.learn.method import Method
from forgetless.learn.methods.mas import MAS
from forgetless.learn.network import Network
from forgetless.learn.objective import Objective, answers
from forgetless.learn.retrieval import average_precision
from forgetless.learn.task import Task
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from forgetless.model.parameters import fingerprint

_BATCH = 128


@dataclass
class MASOnUse(MAS):
    """MAS whose Ω is measured, when a task ends, on unlabeled pictures of what the network is used for.

    Each measurement takes the place of the last one: what is protected is what is used now.

    Attributes:
        used: the pictures `[N, …]`.
        task: the name of the task whose head answers for them.
    """

    name: ClassVar[str] = "mas"
    used: Tensor = field(default_factory=lambda: torch.empty(0), kw_only=True)
    task: str = field(default="", kw_only=True)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """λ, and a hash of the pictures."""
        return {"strength": self.strength, "used": fingerprint(self.used)}

    def measure(self, model: Network, task: Task) -> Importance:
        """Eq. 2 on the pictures."""
        return mas(
            model,
            self.used,
            forward=lambda network, inputs: network(inputs, self.task),
            exclude=model.unshared,
            progress=False,
        )

    def end(self, model: Network, task: Task) -> None:
        """Measure Ω anew, in the place of the old one, and move θ* to the current weights."""
        anchor = self.anchor(model)
        anchor.detach()
        anchor.consolidate(self.measure(model, task), 0.0)


def create(used: Tensor, task: str, name: str, strength: float | None = None, **settings: Any) -> Method:
    """`forgetless.learn.methods.create`, with MAS on these pictures."""
    made = methods.create(name, strength, **settings)
    return MASOnUse(made.strength or 0.0, used=used, task=task) if isinstance(made, MAS) else made


def look(
    objective: Objective, test: tuple[Tensor, Tensor], subset: Tensor, task: str, model: Network
) -> Mapping[str, Tensor]:
    """The score of the first task on its classes of the subset, and on the rest of them.

    Args:
        objective: of the first task.
        test: its test pictures and labels.
        subset: the labels of the subset.
        task: its name.
        model: the network.
    """
    scores = _precisions if isinstance(objective, Facts) else _hits
    labels, found = scores(objective, test, task, model)
    inside = torch.isin(labels, subset)
    return {"subset": found[inside].mean(), "rest": found[~inside].mean()}


def _precisions(objective: Objective, test: tuple[Tensor, Tensor], task: str, model: Network) -> tuple[Tensor, Tensor]:
    """The facts of the test pictures, and the average precision of each among all of these."""
    assert isinstance(objective, Facts)
    similar, labels = objective.similarities(model, task, test, _BATCH)
    facts = torch.unique(labels)
    return facts, average_precision(similar[:, facts].T, labels == facts[:, None])


def _hits(objective: Objective, test: tuple[Tensor, Tensor], task: str, model: Network) -> tuple[Tensor, Tensor]:
    """The labels of the test pictures, and whether each is classified right."""
    found = [
        objective.scores(model, task, outputs, batch).cpu() for outputs, batch in answers(model, task, test, _BATCH)
    ]
    return test[1], torch.cat(found).double()

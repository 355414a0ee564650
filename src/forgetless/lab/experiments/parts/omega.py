"""Measuring Ω on other samples than the ones that were learned from: it needs no labels, so any will do (Table 3)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch.utils.data import ConcatDataset, TensorDataset

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts.settings import setting
from forgetless.learn import methods
from forgetless.learn.method import Method
from forgetless.learn.methods.local_mas import LocalMAS
from forgetless.learn.methods.mas import MAS
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.importance import Importance

SOURCES = ("train", "test", "both")


def omega_setting() -> Any:
    """The setting `omega`."""
    return setting("train", help="The samples of a task that mas and local-mas measure Ω on.", choices=SOURCES)


def elsewhere(task: Task, source: str) -> Task:
    """The task with the inputs of `source` in the place of its training inputs; for measuring, not for learning."""
    both: ConcatDataset[Any] = ConcatDataset(
        [TensorDataset(*task.train), TensorDataset(*task.test)]
    )  # read by number: nothing is copied
    return dataclasses.replace(task, train={"train": task.train, "test": task.test, "both": both}[source])


@dataclass
class MASOn(MAS):
    """MAS with Ω from the inputs of `source`; labels are not used.

    Attributes:
        source: "train", "test" or "both".
    """

    source: str = "train"

    def measure(self, model: Network, task: Task) -> Importance:
        """Eq. 2 on those inputs."""
        return super().measure(model, elsewhere(task, self.source))


@dataclass
class LocalMASOn(LocalMAS):
    """Local MAS with Ω from the inputs of `source`; labels are not used.

    Attributes:
        source: "train", "test" or "both".
    """

    source: str = "train"

    def measure(self, model: Network, task: Task) -> Importance:
        """The local Ω on those inputs."""
        return super().measure(model, elsewhere(task, self.source))


def create(source: str, name: str, strength: float | None = None, **settings: Any) -> Method:
    """`forgetless.learn.methods.create`, for the methods whose Ω can be measured on any inputs.

    Raises:
        ForgetlessError: no such source, or a method whose Ω is not measured without labels afterwards.
    """
    if source not in SOURCES:
        raise ForgetlessError(f"omega must be 'train', 'test' or 'both', not {source!r}.")
    if source == "train":
        return methods.create(name, strength, **settings)
    kinds: dict[str, type[MASOn] | type[LocalMASOn]] = {"mas": MASOn, "local-mas": LocalMASOn}
    if name not in kinds:
        raise ForgetlessError(f"--omega {source} is for 'mas' and 'local-mas'; the method {name!r} measures otherwise.")
    given = methods.create(name, strength, **settings).settings()
    return kinds[name](**given, source=source)  # type: ignore[arg-type]

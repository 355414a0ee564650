"""Networks for streams of tasks: linear heads as the scenario asks for them, or one head of any kind."""

from __future__ import annotations

import functools
from urllib.parse import quote

import torch
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network, OldOutputs

SCENARIOS = ("task", "domain", "class")


class MultiHead(Network):
    """A shared backbone and linear heads: `logits = W · backbone(x) + b`, W `[classes, features]`.

    The scenario says which head answers for a task (van de Ven and Tolias, "Three scenarios for continual learning",
    2019, arXiv 1904.07734). "task": each task has a head, so a prediction needs the task's name. "domain": all tasks
    use one head, whose class c means the same in all of them. "class": all tasks use one head, which grows by every
    task's classes and must tell all of them apart.

    Args:
        backbone: any module from inputs `[N, …]` to features `[N, features]`; it normalizes its inputs itself.
        features: the number of its features.
        pretrained: whether the backbone is trained before the first task. If not, every method learns the first task
            without protection.
        scenario: "task", "domain" or "class".

    Raises:
        ForgetlessError: another scenario than these.
    """

    def __init__(self, backbone: nn.Module, features: int, *, pretrained: bool = False, scenario: str = "task") -> None:
        super().__init__(backbone, pretrained=pretrained)
        if scenario not in SCENARIOS:
            raise ForgetlessError(f"a scenario is 'task', 'domain' or 'class', not {scenario!r}.")
        self.heads = nn.ModuleDict()
        self.features = features
        self.scenario = scenario
        self._first: dict[str, int] = {}  # task → the column of its first class

    def grow(self, task: str, outputs: int) -> bool:
        """Add a head, or rows to the shared one, or nothing, by the scenario; on the backbone's device, in its dtype.

        New weights are drawn from torch's global generator; old rows stay as they are.

        Args:
            task: the task's name.
            outputs: how many classes it has.

        Returns:
            Whether the task got a head that no earlier task has used.

        Raises:
            ForgetlessError: the task has a head already, it has fewer than one class, or in the domain scenario it has
                another number of classes than the head.
        """
        if outputs < 1:
            raise ForgetlessError(f"the head of task {task!r} needs at least one class, not {outputs}.")
        if task in self._first:
            raise ForgetlessError(f"task {task!r} has a head already.")
        key = self._key(task)
        old = dict(self.heads.items()).get(key)
        rows = old.out_features if isinstance(old, nn.Linear) else 0
        if self.scenario == "domain" and rows not in (0, outputs):
            raise ForgetlessError(f"all tasks share a head of {rows} classes, and task {task!r} has {outputs}.")
        self._first[task] = rows if self.scenario == "class" else 0
        if self.scenario == "domain" and rows:
            return False
        like = next(self.backbone.parameters(), torch.empty(0))
        head = nn.Linear(self.features, rows + outputs, device=like.device, dtype=like.dtype)
        if isinstance(old, nn.Linear):
            with torch.no_grad():
                head.weight[:rows], head.bias[:rows] = old.weight, old.bias
        self.heads[key] = head
        return old is None

    def head(self, task: str) -> nn.Linear:
        """The linear head that answers for `task`.

        Raises:
            ForgetlessError: there is none.
        """
        key = self._key(task)
        if key not in self.heads:
            known = ", ".join(repr(key) for key in self.heads) or "none"
            raise ForgetlessError(f"task {task!r} has no head; the heads are {known}.")
        head = self.heads[key]
        assert isinstance(head, nn.Linear)
        return head

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that it has made room for, in order."""
        return tuple(self._first)

    @property
    def unshared(self) -> tuple[str, ...]:
        """The heads, where each belongs to a single task."""
        return ("heads",) if self.scenario == "task" else ()

    def first(self, task: str) -> int:
        """The column of the logits that is the task's class 0; other than 0 only where one head grows."""
        return self._first[task] if self.scenario == "class" else 0

    def can_answer(self, task: str) -> bool:
        """Whether it has outputs for `task`: in the domain scenario the one head answers for tasks to come too."""
        return bool(self._first) if self.scenario == "domain" else task in self._first

    def outputs_before(self, task: str) -> list[OldOutputs]:
        """The heads of earlier tasks; of a shared head, the classes that it had before `task`."""
        earlier = self.tasks[: self.tasks.index(task)]
        if self.scenario == "task":
            return [OldOutputs(each, self.width(each), 1) for each in earlier]
        width = self.first(task) if self.scenario == "class" else self.width(task)
        return [OldOutputs(earlier[0], width, len(earlier))] if earlier else []

    def new_rows(self, task: str) -> dict[str, int]:
        """The rows of a growing head from the task's first class on."""
        if self.scenario != "class":
            return {}
        return dict.fromkeys(("heads.shared.weight", "heads.shared.bias"), self.first(task))

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """The scenario."""
        return {"scenario": self.scenario}

    def _key(self, task: str) -> str:
        return _key(task) if self.scenario == "task" else "shared"


class SharedHead(Network):
    """A backbone and one head of any kind that all tasks use and that never grows: regression, language models.

    Args:
        backbone: any module from inputs `[N, …]` to features `[N, …, features]`.
        head: any module from features to outputs `[N, …, outputs]`.
        outputs: how many outputs it has.
        pretrained: whether the network is trained before the first task.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, outputs: int, *, pretrained: bool = False) -> None:
        super().__init__(backbone, pretrained=pretrained)
        self.shared = head
        self.outputs = outputs
        self._tasks: list[str] = []

    def grow(self, task: str, outputs: int) -> bool:
        """Note the task; the head stays as it is.

        Raises:
            ForgetlessError: the task was noted before, or has another number of outputs than the head.
        """
        if task in self._tasks:
            raise ForgetlessError(f"task {task!r} has a head already.")
        if outputs != self.outputs:
            raise ForgetlessError(f"all tasks share a head of {self.outputs} outputs, and task {task!r} has {outputs}.")
        self._tasks.append(task)
        return False

    def head(self, task: str) -> nn.Module:
        """The one head."""
        return self.shared

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that it was given, in order."""
        return tuple(self._tasks)

    def width(self, task: str) -> int:
        """How many outputs the head has."""
        return self.outputs

    def can_answer(self, task: str) -> bool:
        """Always: tasks to come are evaluated too."""
        return True


@functools.cache
def _key(task: str) -> str:
    """The task's name as a key `nn.ModuleDict` takes: no dots, not empty, none of its attributes' names."""
    key = quote(task, safe=" ").replace(".", "%2E")
    return f"{key}%" if not key or hasattr(nn.ModuleDict(), key) else key

"""The buffer of an online learner: a uniform sample of everything that came, or one with equal shares of the classes.

Vitter, "Random Sampling with a Reservoir", ACM TOMS 1985. Prabhu, Torr, Dokania, "GDumb", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.learn.families.memory import Remembered
from forgetless.learn.families.state import from_leaves, leaves
from forgetless.learn.task import Task
from forgetless.model import batches


class Reservoir:
    """At most `size` samples of a stream. After N samples each of them is in it with probability `size / N`.

    Samples stay on the CPU, in tensors of one row per place. Random numbers come from torch's global generator.

    Args:
        size: the most samples.
        tasks: the stream's tasks; they give the objectives that samples are replayed with.

    Attributes:
        size: as given.
        seen: how many samples came.
        owners: the number of the task that each place's sample belongs to, int64 `[n]`.
        columns: by name, what is kept of every sample: the parts of the batch, and "outputs" where they are kept.

    Raises:
        ForgetlessError: a size below 1.
    """

    def __init__(self, size: int, tasks: Sequence[Task]) -> None:
        if not isinstance(size, int) or size < 1:
            raise ForgetlessError(f"a buffer holds one sample or more, not {size!r}.")
        self.size, self.seen = size, 0
        self._tasks = list(tasks)
        self._numbers = {task.name: number for number, task in enumerate(tasks)}
        self.owners = torch.empty(0, dtype=torch.int64)
        self.columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        """How many samples it holds."""
        return len(self.owners)

    def add(self, part: Remembered) -> None:
        """Offer the samples of a batch, each once.

        Raises:
            ForgetlessError: samples of another form than those before; nothing has changed.
        """
        found = {f"batch/{name}": tensor.detach().cpu() for name, tensor in leaves(part.batch).items()}
        if part.outputs is not None:
            found["outputs"] = part.outputs.detach().cpu()
        if self.columns and (form(found) != form(self.columns)):
            raise ForgetlessError(
                f"the samples of a stream differ in their form: {form(self.columns)} and, in task {part.task!r}, "
                f"{form(found)}."
            )
        owner = torch.full((len(part),), self._numbers[part.task])
        places = self.places(part)
        grown = sum(place == -1 for place in places.values())
        if not self.columns:
            self.columns = {name: tensor[:0] for name, tensor in found.items()}
        appended = [row for row, place in places.items() if place == -1]
        replaced = {place: row for row, place in places.items() if place != -1}  # of several for a place, the last
        if grown:
            self.owners = torch.cat([self.owners, owner[appended]])
            self.columns = {name: torch.cat([self.columns[name], found[name][appended]]) for name in found}
        if replaced:
            to, rows = list(replaced), list(replaced.values())
            self.owners[to] = owner[rows]
            for name, tensor in found.items():
                self.columns[name][to] = tensor[rows]
        self.seen += len(part)

    def places(self, part: Remembered) -> dict[int, int]:
        """Row of the batch → the place that it takes, or −1 for one more; rows that are not kept are left out."""
        free = self.size - len(self)
        found = dict.fromkeys(range(min(free, len(part))), -1)
        late = range(len(found), len(part))
        if late:
            came = torch.arange(self.seen + late.start + 1, self.seen + late.stop + 1, dtype=torch.float64)
            drawn = (torch.rand(len(late), dtype=torch.float64) * came).long().tolist()
            found |= {row: place for row, place in zip(late, drawn, strict=True) if place < self.size}
        return found

    def draw(self, samples: int) -> list[Remembered]:
        """At most `samples` of them, uniformly and without repeats, by task."""
        return self.take(torch.randperm(len(self))[:samples])

    def all(self) -> list[Remembered]:
        """All samples, by task."""
        return self.take(torch.arange(len(self)))

    def take(self, chosen: Tensor) -> list[Remembered]:
        """The samples at the places `chosen`, int64 `[n]`, by task in the order of the stream."""
        owners = self.owners[chosen]
        return [self._part(number, chosen[owners == number]) for number in sorted(set(owners.tolist()))]

    def _part(self, number: int, chosen: Tensor) -> Remembered:
        rows = {name: column[chosen] for name, column in self.columns.items()}
        outputs = rows.pop("outputs", None)
        batch = from_leaves({name.removeprefix("batch/"): tensor for name, tensor in rows.items()})
        return Remembered(self._tasks[number].name, self._tasks[number].objective, batch, outputs)

    def tree(self) -> dict[str, Any]:
        """All of it, for a checkpoint; views, not copies."""
        return {"columns": self.columns, "owners": self.owners, "seen": torch.tensor(self.seen)}

    def load(self, tree: Mapping[str, Any]) -> None:
        """Take back what `tree` gave.

        Raises:
            ForgetlessError: it is incomplete, or of another stream or size.
        """
        owners, columns = tree["owners"], tree.get("columns", {})
        fits = owners.ndim == 1 and len(owners) <= self.size and bool(columns) == bool(len(owners))
        fits = fits and all(len(column) == len(owners) for column in columns.values())
        if not fits or (len(owners) and not 0 <= int(owners.min()) <= int(owners.max()) < len(self._tasks)):
            raise ForgetlessError("the buffer in the state is incomplete, or of another stream.")
        # Copies: places are overwritten as the stream goes on.
        self.owners, self.seen = owners.clone(), int(tree["seen"])
        self.columns = {name: column.clone() for name, column in columns.items()}


class Balanced(Reservoir):
    """Equal shares of the classes: a full buffer gives up a sample of its largest class for one of a smaller.

    The greedy sampler of GDumb. A class is a label of a task; where tasks share their labels, of all that share it.
    """

    def __init__(self, size: int, tasks: Sequence[Task], firsts: Sequence[int]) -> None:
        """`firsts` are the numbers that the first class of each task has among all classes."""
        super().__init__(size, tasks)
        self._firsts = torch.tensor(firsts)

    def add(self, part: Remembered) -> None:
        """Offer the samples of a batch, one after the other."""
        for row in range(len(part)):
            super().add(part.take(torch.tensor([row])))

    def places(self, part: Remembered) -> dict[int, int]:
        """Of a single sample; which one of the largest class goes is random."""
        if len(self) < self.size:
            return {0: -1}
        kinds = self._labels() + self._firsts[self.owners]
        own = int(batches.labels(part.batch)) + int(self._firsts[self._numbers[part.task]])
        counts = kinds.bincount(minlength=own + 1)
        if counts[own] >= counts.max():
            return {}
        theirs = (kinds == counts.argmax()).nonzero().flatten()
        return {0: int(theirs[torch.randint(len(theirs), ())])}

    def _labels(self) -> Tensor:
        rows = {name.removeprefix("batch/"): column for name, column in self.columns.items() if name != "outputs"}
        return batches.labels(from_leaves(rows))


def form(columns: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The shape of a row, by name."""
    return {name: list(tensor.shape[1:]) for name, tensor in columns.items()}

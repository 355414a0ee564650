"""Jobs, and what does them: one interface, whoever started the processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from forgetless.lab.kept import stem
from forgetless.learn.position import Progress

PAUSE = 0.2  # seconds between two reports of one phase


@dataclass(frozen=True)
class Job:
    """One run of an experiment.

    Attributes:
        folder: the experiment's, in the run directory.
        method: its name.
        seed: of the network, the samples' order and everything else that is random.
        order: the number of the order in which the tasks come.
    """

    folder: str
    method: str
    seed: int
    order: int

    @property
    def stem(self) -> str:
        """The name of its files, without their ending."""
        return stem(self.method, self.seed, self.order)

    @property
    def label(self) -> str:
        """Its name in messages."""
        order = f", order {self.order}" if self.order else ""
        return f"{self.folder}: " * bool(self.folder) + f"{self.method}, seed {self.seed}{order}"


Tell = Callable[[Progress], None]
Found = dict[str, Any]  # a run's entry in `results.json`
Work = Callable[[Job, Tell], Found]


@runtime_checkable
class Runner(Protocol):
    """Something that does jobs.

    Attributes:
        leads: whether this process plans the jobs, keeps the run directory and gathers what is found. Exactly one
            process does.
        threads: how many threads a job has.
    """

    leads: bool

    @property
    def threads(self) -> int:
        """How many threads a job has."""

    def run(
        self, works: Mapping[str, Work], jobs: Sequence[Job], tell: Callable[[Job, Progress], None]
    ) -> Iterator[tuple[Job, Found]]:
        """Do the jobs; yields each with what it found, as they end. Called by the process that leads.

        On Ctrl-C, or when a job raises, jobs that are under way save where they are, and end.

        Args:
            works: folder → what does its jobs.
            jobs: in the order in which to begin them.
            tell: called here with a job and its progress, whichever process does it.

        Raises:
            ForgetlessError: works that cannot be sent to another process, a process that died, or what a job raised.
        """

    def serve(self, works: Mapping[str, Work]) -> None:
        """Do jobs until there are none left. Called by every process that does not lead."""


class ThisProcess:
    """Does the jobs here, one after the other."""

    leads = True

    @property
    def threads(self) -> int:
        """All that torch uses."""
        return torch.get_num_threads()

    def run(
        self, works: Mapping[str, Work], jobs: Sequence[Job], tell: Callable[[Job, Progress], None]
    ) -> Iterator[tuple[Job, Found]]:
        """See `Runner.run`."""
        for job in jobs:
            yield job, works[job.folder](job, lambda progress, job=job: tell(job, progress))  # type: ignore[misc]

    def serve(self, works: Mapping[str, Work]) -> None:
        """Nothing: this process leads."""


def now_and_then(tell: Tell) -> Tell:
    """`tell`, but for one phase and epoch only every 0.2 seconds."""
    last: tuple[Any, ...] = ()
    when = 0.0

    def thinned(progress: Progress) -> None:
        nonlocal last, when
        here, now = (progress.task, progress.phase, progress.epoch), time.monotonic()
        if here != last or now - when > PAUSE:
            last, when = here, now
            tell(progress)

    return thinned


def take_gpu(number: int) -> None:
    """Make "cuda" mean a GPU of its own for this process, by turns where there are more processes than GPUs."""
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())

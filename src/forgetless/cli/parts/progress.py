"""Progress of a run: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from forgetless.lab.running.jobs import Job
    from forgetless.learn.position import Progress


@contextlib.contextmanager
def watched() -> Iterator[Lines | Bars]:
    """An object that shows progress, with `plan(jobs)` and `progress(job, progress)`."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Display(*columns, TextColumn("{task.fields[doing]}", style="dim"), console=console) as display:
        yield Bars(display)


class Lines:
    """A line per task and per trial of a search, each with the share of all jobs that is done."""

    def __init__(self) -> None:
        self._tally = _Tally()
        self._last: dict[Job, tuple[int, str]] = {}

    def plan(self, jobs: Sequence[Job]) -> None:
        """These will be done."""
        self._tally.plan(jobs)

    def progress(self, job: Job, progress: Progress) -> None:
        """A job is here."""
        self._tally.progress(job, progress)
        if self._last.get(job) != (progress.task, progress.name):
            self._last[job] = (progress.task, progress.name)
            where = f"task {progress.task} of {progress.tasks}, {progress.name}"
            typer.echo(f"[{self._tally}] {job.label}: {where}", err=True)


class Bars:
    """A bar for all jobs with an estimate of the time left, and one for each that is under way."""

    def __init__(self, bars: Any) -> None:
        self._bars, self._tally = bars, _Tally()
        self._rows: dict[Job, Any] = {}
        self._total: Any = None

    def plan(self, jobs: Sequence[Job]) -> None:
        """These will be done."""
        self._tally.plan(jobs)
        if len(jobs) > 1:
            self._total = self._bars.add_task(f"{len(jobs)} runs", total=1.0, doing="")

    def progress(self, job: Job, progress: Progress) -> None:
        """A job is here."""
        self._tally.progress(job, progress)
        if job not in self._rows:
            self._rows[job] = self._bars.add_task(job.label, total=progress.tasks, doing="")
        completed = _completed(progress)
        over = completed >= progress.tasks
        self._bars.update(self._rows[job], completed=completed, doing=_doing(progress), visible=not over)
        if self._total is not None:
            self._bars.update(self._total, completed=self._tally.share, doing=str(self._tally))


_LEARNED = 0.05  # of one job: what must be learned before the pace is known


class _Tally:
    """How much of all jobs is done, and how long the rest will take at the pace so far.

    A search for a strength is no part of the pace: it comes once, and nothing of a job is done by it.
    """

    def __init__(self) -> None:
        self._jobs, self._latest, self._spent = 1, time.monotonic(), 0.0
        self._done: dict[Job, float] = {}
        self._first: dict[Job, float] = {}
        self._searching: set[Job] = set()

    def plan(self, jobs: Sequence[Job]) -> None:
        self._jobs, self._latest = max(1, len(jobs)), time.monotonic()

    def progress(self, job: Job, progress: Progress) -> None:
        now = time.monotonic()
        if job not in self._searching:
            self._spent += now - self._latest
        self._latest = now
        (self._searching.add if progress.phase == "search" else self._searching.discard)(job)
        self._done[job] = _completed(progress) / progress.tasks
        self._first.setdefault(job, self._done[job])  # done by an earlier process: no measure of this one's pace

    @property
    def share(self) -> float:
        return min(1.0, sum(self._done.values()) / self._jobs)

    def __str__(self) -> str:
        learned = sum(self._done.values()) - sum(self._first.values())
        if learned < _LEARNED:
            return f"{self.share:.0%}"
        left = self._spent * (self._jobs - sum(self._done.values())) / learned
        return f"{self.share:.0%}, {timedelta(seconds=max(0, round(left)))} left"


def _completed(progress: Progress) -> float:
    """How many tasks are done, the one being learned in part."""
    learned = {"search": 0.0, "warm_start": 0.0, "train": progress.step / max(1, progress.steps)}
    return progress.task - 1 + learned.get(progress.phase, 1.0)


def _doing(progress: Progress) -> str:
    words = {"search": "searching", "warm_start": "warming up the head", "train": f"epoch {progress.epoch}"}
    doing = words.get(progress.phase, progress.phase)
    return f"{progress.name}: {doing}"

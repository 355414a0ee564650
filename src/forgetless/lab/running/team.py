"""Jobs shared out among the processes that torchrun started, on one machine or on several with one file system.

Every process takes the next job when it has done one; they never wait for each other inside a job. The first process
plans, keeps the run directory and gathers what the others find; it learns of them through the store that torchrun's
processes meet at.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from torch.distributed.rendezvous import rendezvous

from forgetless.errors import ForgetlessError
from forgetless.lab.running.parallel import PAUSE, Job, Work, now_and_then, take_gpu
from forgetless.learn.train import Progress

_PATIENCE = timedelta(days=1)  # for a plan: the first process may have pictures to decode


class Team:
    """The processes that torchrun started.

    Args:
        store: where they meet.
        rank: of this process; 0 is the first.
        size: how many they are.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.store, self.rank, self.size = store, rank, size
        self._looked = 0.0

    @classmethod
    def join(cls) -> Team | None:
        """The team that the environment tells of, and a GPU of its own for this process; None if it is on its own.

        Raises:
            ForgetlessError: the environment tells of several processes, and not where they meet.
        """
        size = os.environ.get("WORLD_SIZE", "1")
        if size == "1":
            return None
        try:
            store, rank, count = next(rendezvous("env://"))
        except (ValueError, RuntimeError) as error:
            raise ForgetlessError(
                f"WORLD_SIZE is {size}, but these processes cannot meet: start them with torchrun, or unset it for one "
                "process."
            ) from error
        take_gpu(int(os.environ.get("LOCAL_RANK", rank)))
        return cls(store, rank, count)

    def done(
        self, works: Mapping[str, Work], jobs: Sequence[Job], tell: Callable[[Job, Progress], None]
    ) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Do the jobs together; for the first process. Yields each with what it found.

        What others have found is yielded between this process's own jobs. Lost on the way, it is not lost: the job's
        checkpoint holds it.

        Args:
            works: folder → what does its jobs.
            jobs: in the order in which to begin them.
            tell: called here with a job and its progress, whoever does it.
        """
        self.store.set("jobs", json.dumps([dataclasses.astuple(job) for job in jobs]))
        left = set(range(len(jobs)))

        def told(job: Job, progress: Progress) -> None:
            tell(job, progress)
            self._look(tell)

        for number in self._numbers(len(jobs)):
            job = jobs[number]
            yield job, works[job.folder](job, lambda progress, job=job: told(job, progress))  # type: ignore[misc]
            left.discard(number)
            yield from self._found(jobs, left)
        while left:
            self._look(tell)
            yield from self._found(jobs, left)
            time.sleep(PAUSE)

    def serve(self, works: Mapping[str, Work]) -> None:
        """Do jobs until there are none left; for every other process."""
        self.store.wait(["jobs"], _PATIENCE)
        jobs = [Job(*each) for each in json.loads(self.store.get("jobs"))]
        for number in self._numbers(len(jobs)):
            job = jobs[number]

            def send(progress: Progress, job: Job = job) -> None:
                report = (dataclasses.astuple(job), dataclasses.astuple(progress))
                self.store.set(f"progress {self.rank}", json.dumps(report))

            found = works[job.folder](job, now_and_then(send))
            self.store.set(f"found {number}", json.dumps(found))

    def _numbers(self, jobs: int) -> Iterator[int]:
        """The number of the next job that nobody has begun, again and again."""
        while (number := self.store.add("begun", 1) - 1) < jobs:
            yield number

    def _found(self, jobs: Sequence[Job], left: set[int]) -> Iterator[tuple[Job, dict[str, Any]]]:
        """What others have found since; takes it from `left`."""
        for number in sorted(left):
            if self.store.check([f"found {number}"]):
                left.discard(number)
                yield jobs[number], json.loads(self.store.get(f"found {number}"))

    def _look(self, tell: Callable[[Job, Progress], None]) -> None:
        """Tell where the others are."""
        if time.monotonic() - self._looked < PAUSE:
            return
        for rank in range(1, self.size):
            if self.store.check([f"progress {rank}"]):
                job, progress = json.loads(self.store.get(f"progress {rank}"))
                tell(Job(*job), Progress(*progress))
        self._looked = time.monotonic()

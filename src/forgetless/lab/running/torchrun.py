"""Jobs shared among the processes that torchrun started, on one machine or on several with one file system.

Every process takes the next job when it has done one; they never wait for each other inside a job. The first process
leads: it plans, keeps the run directory and gathers what the others find, through the store that torchrun's processes
share.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch.distributed.rendezvous import rendezvous

from forgetless.errors import ForgetlessError
from forgetless.lab.running.jobs import PAUSE, Found, Job, Work, now_and_then, take_gpu
from forgetless.learn.position import Progress

_PATIENCE = timedelta(days=1)  # for a plan: the first process may have pictures to decode


class Torchrun:
    """The processes that torchrun started.

    Args:
        store: shared by all of them.
        rank: of this process; 0 is the first.
        size: how many they are.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.store, self.rank, self.size, self.leads = store, rank, size, rank == 0
        self._looked = 0.0

    @classmethod
    def join(cls) -> Torchrun | None:
        """The processes that the environment variables describe, with a GPU for this one; None without torchrun.

        Raises:
            ForgetlessError: WORLD_SIZE says several processes, and they cannot meet.
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

    @property
    def threads(self) -> int:
        """As many as torch uses in each process."""
        return torch.get_num_threads()

    def run(
        self, works: Mapping[str, Work], jobs: Sequence[Job], tell: Callable[[Job, Progress], None]
    ) -> Iterator[tuple[Job, Found]]:
        """See `Runner.run`.

        What others have found is yielded between this process's own jobs. A result that is not reported, because a
        process ended, is recovered from the job's checkpoint by the next `--resume`.
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
        """See `Runner.serve`."""
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

    def _found(self, jobs: Sequence[Job], left: set[int]) -> Iterator[tuple[Job, Found]]:
        """What others have found since the last call; removes it from `left`."""
        for number in sorted(left):
            if self.store.check([f"found {number}"]):
                left.discard(number)
                yield jobs[number], json.loads(self.store.get(f"found {number}"))

    def _look(self, tell: Callable[[Job, Progress], None]) -> None:
        """Pass on the progress of the others."""
        if time.monotonic() - self._looked < PAUSE:
            return
        for rank in range(1, self.size):
            if self.store.check([f"progress {rank}"]):
                job, progress = json.loads(self.store.get(f"progress {rank}"))
                tell(Job(*job), Progress(*progress))
        self._looked = time.monotonic()

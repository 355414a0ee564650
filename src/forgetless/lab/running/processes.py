"""Several jobs at a time, each in a process with one thread and one GPU, started and ended by this process."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.running.jobs import Found, Job, Work, now_and_then, take_gpu
from forgetless.learn.position import Progress


class Processes:
    """Does jobs in processes of its own; also a single job, since the number of threads decides the last bits.

    Args:
        count: how many at a time.

    Raises:
        ForgetlessError: fewer than one.
    """

    leads = True
    threads = 1

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ForgetlessError(f"processes must be at least 1, not {count}.")
        self.count = count

    def run(
        self, works: Mapping[str, Work], jobs: Sequence[Job], tell: Callable[[Job, Progress], None]
    ) -> Iterator[tuple[Job, Found]]:
        """See `Runner.run`."""
        if not jobs:
            return
        try:
            sent = pickle.dumps(dict(works))  # by value: shared memory may be small
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise ForgetlessError(
                f"this experiment cannot run in several processes ({error}); use --processes 1."
            ) from error
        context = multiprocessing.get_context("spawn")
        todo, events, stop = context.Queue(), context.Queue(), context.Event()
        count = min(self.count, len(jobs))
        for job in [*jobs, *[None] * count]:
            todo.put(job)
        workers = [
            context.Process(target=_serve, args=(number, sent, todo, events, stop), daemon=True)
            for number in range(count)
        ]
        for worker in workers:
            worker.start()
        try:
            yield from _collected(events, workers, len(jobs), tell)
        finally:
            stop.set()
            while any(worker.is_alive() for worker in workers):  # they save, and must not block on a full pipe
                _drain(events)
                time.sleep(0.01)
            _drain(events)
            for channel in (todo, events):
                channel.cancel_join_thread()
                channel.close()

    def serve(self, works: Mapping[str, Work]) -> None:
        """Nothing: this process leads."""


def _collected(
    events: Any, workers: Sequence[Any], jobs: int, tell: Callable[[Job, Progress], None]
) -> Iterator[tuple[Job, Found]]:
    left = jobs
    while left:
        try:
            kind, job, what = events.get(timeout=1.0)
        except queue.Empty:
            dead = [worker for worker in workers if worker.exitcode not in (None, 0)]
            if dead:
                raise ForgetlessError(
                    f"a worker process ended with exit code {dead[0].exitcode} (out of memory?); finished runs are "
                    "kept: continue with --resume."
                ) from None
            continue
        if kind == "progress":
            tell(job, what)
        elif kind == "found":
            left -= 1
            yield job, what
        else:
            raise what


def _drain(events: Any) -> None:
    try:
        while True:
            events.get_nowait()
    except queue.Empty:
        pass


def _serve(number: int, sent: bytes, todo: Any, events: Any, stop: Any) -> None:
    """Do jobs until there are none left, the parent says stop, or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the parent says when to stop
    torch.set_num_threads(1)
    take_gpu(number)
    parent = multiprocessing.parent_process()
    works: dict[str, Work] = pickle.loads(sent)

    def orphaned() -> bool:
        return stop.is_set() or (parent is not None and not parent.is_alive())

    while not orphaned() and (job := todo.get()) is not None:

        def send(progress: Progress, job: Job = job) -> None:
            events.put(("progress", job, progress))
            if orphaned():
                raise KeyboardInterrupt

        try:
            events.put(("found", job, works[job.folder](job, now_and_then(send))))
        except KeyboardInterrupt:
            return
        except Exception as error:
            events.put(("raised", job, _portable(error)))
            return


def _portable(error: Exception) -> Exception:
    """The error itself if it can be sent, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ForgetlessError(f"{type(error).__name__}: {error}")
    return error

"""Jobs done one after the other, or several at a time in processes of one thread, and one GPU, each."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from forgetless.errors import ForgetlessError
from forgetless.learn.train import Progress

PAUSE = 0.2  # seconds between two reports of one phase


@dataclass(frozen=True)
class Job:
    """One run of an experiment.

    Attributes:
        folder: the experiment's, in the run directory.
        method: its name.
        seed: of the network, the samples' order and all else that is drawn.
        order: the number of the order in which the tasks come.
    """

    folder: str
    method: str
    seed: int
    order: int

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.method}-{self.seed}" + (f"-{self.order}" if self.order else "")

    @property
    def label(self) -> str:
        """What it is called to people."""
        order = f", order {self.order}" if self.order else ""
        return f"{self.folder}: " * bool(self.folder) + f"{self.method}, seed {self.seed}{order}"


Tell = Callable[[Progress], None]
Work = Callable[[Job, Tell], dict[str, Any]]


def done(
    works: Mapping[str, Work],
    jobs: Sequence[Job],
    processes: int,
    tell: Callable[[Job, Progress], None],
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Do the jobs; yields each with what it found, as they end.

    On Ctrl-C, or when a job raises, jobs that are under way save where they are, and end.

    Args:
        works: folder → what does its jobs.
        jobs: in the order in which to begin them.
        processes: how many at a time; 1 does them here.
        tell: called here with a job and its progress.

    Raises:
        ForgetlessError: works that cannot be sent to another process, a process that died, or what a job raised.
    """
    if processes == 1 or not jobs:  # one job of several processes' runs in one of them: threads decide the last bits
        for job in jobs:
            yield job, works[job.folder](job, lambda progress, job=job: tell(job, progress))  # type: ignore[misc]
        return
    try:
        sent = pickle.dumps(dict(works))  # by value: shared memory may be small
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ForgetlessError(
            f"this experiment cannot run in several processes ({error}); use --processes 1."
        ) from error
    context = multiprocessing.get_context("spawn")
    todo: Any = context.Queue()
    events: Any = context.Queue()
    stop = context.Event()
    for job in jobs:
        todo.put(job)
    count = min(processes, len(jobs))
    for _ in range(count):
        todo.put(None)
    workers = [
        context.Process(target=_serve, args=(number, sent, todo, events, stop), daemon=True) for number in range(count)
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


def _collected(
    events: Any, workers: Sequence[Any], jobs: int, tell: Callable[[Job, Progress], None]
) -> Iterator[tuple[Job, dict[str, Any]]]:
    left = jobs
    while left:
        try:
            kind, job, what = events.get(timeout=1.0)
        except queue.Empty:
            dead = [worker for worker in workers if worker.exitcode not in (None, 0)]
            if dead:
                raise ForgetlessError(
                    f"a process that did the work ended with exit code {dead[0].exitcode} (out of memory?); "
                    "finished runs are kept: continue with --resume."
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
    """The life of a process: jobs until there are none left, or it is told to stop, or nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of us: the parent says when to stop
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


def _portable(error: Exception) -> Exception:
    """The error itself if it can be sent, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ForgetlessError(f"{type(error).__name__}: {error}")
    return error

"""Learning a stream in one pass: one loop for all online learners, which can be resumed between any two batches."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from forgetless.errors import ForgetlessError
from forgetless.learn import checkpoint as checkpoints
from forgetless.learn import interrupts
from forgetless.learn.classification import Classification
from forgetless.learn.evaluation import evaluate
from forgetless.learn.families.memory import Remembered
from forgetless.learn.metrics import Matrix
from forgetless.learn.network import Network, nonfinite
from forgetless.learn.position import Position, Progress
from forgetless.learn.seeding import derive, seed_generators
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.learner import Learner
from forgetless.learn.streaming.passes import Passes
from forgetless.learn.task import Task

_TESTED = 256  # samples that are evaluated at once

#: After how many batches of the stream, and the score of every task that had begun.
Look = tuple[int, list[float]]


@dataclass(frozen=True)
class Streamed:
    """What learning a stream in one pass came to.

    Attributes:
        accuracy: R[i][j], the score on task j's held-out samples after task i; None for j > i.
        looks: the scores at every task's end, and in between where that was asked for.
        passes: the samples that went forward and backward to learn; evaluation does not count.
        figures: what the learner found out on the way.
        seconds: phase → seconds spent in it, over all resumes.
    """

    accuracy: Matrix
    looks: list[Look]
    passes: Passes
    figures: dict[str, Any]
    seconds: dict[str, float]


@dataclass
class _Position(Position):
    """Where a run is, and what it saw."""

    batches: int = 0  # of the whole stream
    looks: list[Look] = field(default_factory=list)


def learn_online(
    model: Network,
    tasks: Sequence[Task],
    learner: Learner,
    budget: Budget,
    *,
    seed: int,
    look: int | None = None,
    checkpoint: str | Path | None = None,
    every: float = 30.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Streamed:
    """Learn `tasks` in order, every sample once: `budget.glances` updates on each batch, then on to the next.

    The network has the outputs of all tasks from the start, and one optimizer serves the whole stream. Every random
    number is a function of (seed, task, batch, glance) alone: all learners see the same batches and replay from the
    same buffer, and a run that was killed and called again with the same arguments gives a bit-identical result (on
    the same CPU or GPU with as many threads).

    Args:
        model: the network; trained in place.
        tasks: the stream; names unique, and in a class-incremental stream classes too.
        learner: a fresh one.
        budget: updates, buffer and learning rate.
        seed: decides the order of samples, the first weights of heads, what the buffer keeps and what is replayed.
        look: evaluate the tasks so far after every so many batches too; None for at the end of each task only.
        checkpoint: a file to continue from if it exists, and to keep up to date: between batches, after each task, and
            on Ctrl-C (at the end of the batch).
        every: seconds between checkpoints.
        on_progress: called when a phase starts and after each batch; a batch is a step.

    Raises:
        ForgetlessError: no tasks, a name or a class twice, a checkpoint that is damaged or of other settings, a loss or
            weights that stop being finite (the last checkpoint stays as it was).
    """
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ForgetlessError(f"a stream needs tasks of different names, not {names}.")
    if look is not None and look < 1:
        raise ForgetlessError(f"look is a number of batches, at least 1, not {look}.")
    _refuse_repeated(model, tasks)
    device = next(model.parameters()).device
    path = None if checkpoint is None else Path(checkpoint)
    run = _Run(model, tasks, learner, budget, seed, look, path, every, on_progress or (lambda progress: None))
    kind = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=kind):
        run.learn()
    return Streamed(run.at.accuracy, run.at.looks, learner.passes, learner.figures(), run.at.seconds)


def _refuse_repeated(model: Network, tasks: Sequence[Task]) -> None:
    """Where one head tells all classes apart, a class belongs to one task."""
    if model.settings().get("scenario") != "class":
        return
    owners: dict[str, str] = {}
    for task in tasks:
        for name in task.objective.classes if isinstance(task.objective, Classification) else ():
            if name in owners:
                raise ForgetlessError(
                    f"the class {name!r} is in task {owners[name]!r} and again in task {task.name!r}: in a "
                    "class-incremental stream a class belongs to one task. Make it a domain-incremental stream."
                )
            owners[name] = task.name


class _Run:
    """A run: its arguments, and where it is."""

    def __init__(
        self,
        model: Network,
        tasks: Sequence[Task],
        learner: Learner,
        budget: Budget,
        seed: int,
        look: int | None,
        path: Path | None,
        every: float,
        report: Callable[[Progress], None],
    ) -> None:
        self.model, self.tasks, self.learner, self.budget = model, tasks, learner, budget
        self.seed, self.look, self.path, self.every, self.report = seed, look, path, every, report
        self.device = next(model.parameters()).device
        self.config = checkpoints.config(model, tasks, learner, budget, seed) | {"look": look}
        self.at = _Position.first(len(tasks))
        self.saved = time.monotonic()
        for task in tasks:
            seed_generators(derive(seed, task.name, "head"), self.device)
            task.objective.prepare(model, task.name)
        self.optimizer = torch.optim.SGD(model.parameters(), budget.lr, budget.momentum)
        seed_generators(derive(seed, "begin"), self.device)
        learner.begin(model, tasks, self.optimizer, budget)

    @property
    def task(self) -> Task:
        return self.tasks[self.at.index]

    def learn(self) -> None:
        """Learn all batches that are not learned yet."""
        if self.path is not None and self.path.exists():
            self._restore()
        while self.at.index < len(self.tasks):
            with interrupts.held() as interrupt:
                self._train(interrupt)
            self._close()

    def _train(self, interrupt: Callable[[], None]) -> None:
        """Learn the task's remaining batches."""
        self.model.train()
        steps = self.task.samples.steps(self.budget.batch_size)
        order = derive(self.seed, self.task.name, "order")
        for batch in self.task.samples.epoch(self.budget.batch_size, order, self.at.step):
            with self.at.timed("train"):
                loss = self._batch(Remembered(self.task.name, self.task.objective, batch))
            if self.look is not None and self.at.batches % self.look == 0 and self.at.step != steps:
                with self.at.timed("evaluate"):
                    self._look()
            try:
                self._tell("train", self.at.step, steps or 0, loss)
                interrupt()
            except KeyboardInterrupt:
                self._save()  # here, and only here, the state is whole
                raise
            if time.monotonic() - self.saved >= self.every:
                self._save()
        if not self.at.step:
            raise ForgetlessError(f"the stream of task {self.task.name!r} gave no batch.")
        self._save()

    def _batch(self, part: Remembered) -> float:
        """All updates on a batch; gives the last loss."""
        loss = 0.0
        for glance in range(self.budget.glances):
            self._seed("glance", self.at.step, glance)
            loss = self.learner.glance(part, self.at.batches, glance + 1 == self.budget.glances)
            if not math.isfinite(loss):
                raise ForgetlessError(self._diverged(f"the loss became {loss}", self.at.step + 1))
        self._seed("keep", self.at.step)
        self.learner.keep(part)
        self.at.step, self.at.batches = self.at.step + 1, self.at.batches + 1
        return loss

    def _close(self) -> None:
        """Let the learner take the border, evaluate the tasks so far, and move on."""
        with self._phase("measure"):
            self._seed("border")
            self.learner.border(self.task, self.at.batches)
        self._refuse_nonfinite()
        with self._phase("evaluate"):
            scores = self._look()
        self.at.accuracy[self.at.index][: len(scores)] = scores
        self.at.next_task()
        self._save()

    def _look(self) -> list[float]:
        """Evaluate the tasks so far; gives their scores."""
        scores = [evaluate(self.model, task, _TESTED) for task in self.tasks[: self.at.index + 1]]
        self.at.looks.append((self.at.batches, scores))
        self.model.train()
        return scores

    def _seed(self, *purpose: str | int) -> None:
        seed_generators(derive(self.seed, self.task.name, *purpose), self.device)

    def _save(self) -> None:
        self._refuse_nonfinite()
        if self.path is None:
            return
        parts = {
            "model": self.model.state_dict(),
            "learner": self.learner.state(),
            "optimizer": checkpoints.optimizer_state(self.optimizer),
        }
        checkpoints.write(self.path, self.config, self.at.saved(), parts)
        self.saved = time.monotonic()

    def _restore(self) -> None:
        """Continue from the checkpoint."""
        assert self.path is not None
        position, parts = checkpoints.read(self.path, self.config)
        try:
            self.at = _Position.read(position, len(self.tasks), self.path)
            self.model.load_state_dict(parts["model"])
            checkpoints.restore_optimizer(self.optimizer, parts.get("optimizer", {}))
            self.learner.load_state(parts["learner"])
        except (ForgetlessError, torch.OutOfMemoryError):
            raise
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ForgetlessError(f"{self.path} is damaged: it does not hold a whole run.") from error

    def _refuse_nonfinite(self) -> None:
        if (name := nonfinite(self.model)) is not None:
            raise ForgetlessError(self._diverged(f"the weights {name!r} became NaN or Inf", self.at.step))

    def _diverged(self, what: str, step: int) -> str:
        return (
            f"{what} in task {self.task.name!r}, batch {step}, under {self.learner.name!r}; "
            f"lower lr (now {self.budget.lr:g})."
        )

    @contextlib.contextmanager
    def _phase(self, phase: str) -> Iterator[None]:
        self._tell(phase, step=self.at.step)
        with self.at.timed(phase):
            yield

    def _tell(self, phase: str, step: int = 0, steps: int = 0, loss: float = float("nan")) -> None:
        epoch = int(phase == "train")
        self.report(Progress(self.at.index + 1, len(self.tasks), self.task.name, phase, epoch, step, steps, loss))

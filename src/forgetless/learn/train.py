"""Learning a stream of tasks: one plain loop that can be resumed at any step with a bit-identical result."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn import checkpoint as checkpoints
from forgetless.learn import interrupts
from forgetless.learn.evaluation import evaluate
from forgetless.learn.method import Method
from forgetless.learn.metrics import Matrix
from forgetless.learn.network import Network, nonfinite
from forgetless.learn.position import Position, Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.samples import Batch
from forgetless.learn.seeding import derive, seed_generators
from forgetless.learn.task import Task
from forgetless.model import batches


@dataclass(frozen=True)
class Outcome:
    """What learning a stream came to.

    Attributes:
        accuracy: R[i][j], the score on task j's held-out samples after learning task i, a share in [0, 1]: the
            accuracy, or what task j's objective names in `score`. None where the network has no outputs for task j yet:
            for j > i, unless tasks share a head that does not grow.
        seconds: phase → seconds spent in it, over all resumes.
    """

    accuracy: Matrix
    seconds: dict[str, float]


def learn(
    model: Network,
    tasks: Sequence[Task],
    method: Method,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: str | Path | None = None,
    every: float = 30.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Learn `tasks` in order by `method`: every step minimizes a task's loss plus the method's penalty.

        L = 1/N Σ_n losses(head(task)(backbone(x)))_n + penalty(x),  losses by the task's objective, `[N]`

    Every random number is a function of (seed, task, epoch or step) alone. So all methods see the same samples in the
    same order under the same dropout masks, and a run that was interrupted at any moment and called again with the
    same arguments gives a bit-identical result (on the same CPU or GPU with as many threads). Of a task that is a
    stream, a resumed run reads and drops the batches that were used.

    Args:
        model: the network; trained in place. Its heads grow with the tasks.
        tasks: the stream; names unique.
        method: a fresh method.
        recipe: how each task is learned.
        seed: decides the order of samples, the first weights of heads, and dropout.
        checkpoint: a file to continue from if it exists, and to keep up to date: inside a task, at the end of
            its training, after it, and on Ctrl-C (at the end of the step).
        every: seconds between checkpoints inside a task.
        on_progress: called when a phase starts and after each step.

    Returns:
        The accuracy matrix and the seconds of each phase.

    Raises:
        ForgetlessError: no tasks, equal names, a checkpoint that is damaged or of another run, a loss or weights that
            stop being finite (the last checkpoint stays as it was), a score outside [0, 1], or a stream that has no
            batches.
    """
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ForgetlessError(f"a stream needs tasks of different names, not {names}.")
    path = None if checkpoint is None else Path(checkpoint)
    device = next(model.parameters()).device
    run = _Run(model, tasks, method, recipe, seed, path, every, on_progress or (lambda progress: None))
    kind = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=kind):
        run.learn()
    return Outcome(run.at.accuracy, run.at.seconds)


class _Run:
    """A run: its arguments, and where it is."""

    def __init__(
        self,
        model: Network,
        tasks: Sequence[Task],
        method: Method,
        recipe: Recipe,
        seed: int,
        path: Path | None,
        every: float,
        report: Callable[[Progress], None],
    ) -> None:
        self.model, self.tasks, self.method, self.recipe = model, tasks, method, recipe
        self.seed, self.path, self.every, self.report = seed, path, every, report
        self.device = next(model.parameters()).device
        self.config = checkpoints.config(model, tasks, method, recipe, seed)
        self.at = Position.first(len(tasks))
        self.saved = time.monotonic()

    @property
    def task(self) -> Task:
        return self.tasks[self.at.index]

    def learn(self) -> None:
        """Learn all tasks that are not learned yet."""
        optimizer = self._restore() if self.path is not None and self.path.exists() else None
        while self.at.index < len(self.tasks):
            if optimizer is None:
                optimizer = self._open()
            with interrupts.held() as interrupt:
                self._train(optimizer, interrupt)
            self._close()
            optimizer = None

    def _open(self) -> Optimizer:
        """Make room for the task and let the method begin; a head of the task's own then gets a warm start."""
        self._seed("head")
        objective, name = self.task.objective, self.task.name
        fresh = objective.prepare(self.model, name)
        optimizer = self._begin()
        if self.recipe.warm_start and objective.warm_starts and fresh and self.model.is_trained:
            with self._phase("warm_start"):
                objective.warm_start(self.model, name, self.task.train, self.recipe.batch_size)
        return optimizer

    def _begin(self) -> Optimizer:
        self._seed("begin")
        optimizer = self.recipe.optimizer(self.model.parameters(), lr=self.recipe.lr)
        for (
            group
        ) in optimizer.param_groups:  # as schedulers do; an anchor looks for the largest rate, also when resumed
            group.setdefault("initial_lr", self.recipe.lr)
        self.method.begin(self.model, self.task, optimizer)
        return optimizer

    def _train(self, optimizer: Optimizer, interrupt: Callable[[], None]) -> None:
        """Take the task's remaining steps."""
        per_epoch = self.task.samples.steps(self.recipe.batch_size)
        steps = None if per_epoch is None else per_epoch * self.recipe.epochs
        self._set_modes()
        while self.at.epoch < self.recipe.epochs:
            reader = self._epoch()
            while True:
                with self.at.timed("train"):
                    batch = next(reader, None)
                    loss = math.nan if batch is None else self._step(optimizer, batch, steps)
                if batch is None:
                    break
                try:
                    self._tell("train", self.at.epoch + 1, self.at.step, steps or 0, loss)
                    interrupt()
                except KeyboardInterrupt:
                    self._save(optimizer)  # here, and only here, the state is whole
                    raise
                if self.at.step == steps or time.monotonic() - self.saved >= self.every:
                    self._save(optimizer)
            if not self.at.batch:
                raise ForgetlessError(
                    f"the stream of task {self.task.name!r} gave no batch in epoch {self.at.epoch + 1}: it must begin "
                    "anew whenever it is iterated over; a generator does so only once."
                )
            self.at.epoch, self.at.batch = self.at.epoch + 1, 0
        if steps is None:
            self._save(optimizer)

    def _epoch(self) -> Iterator[Batch]:
        """The batches of the present epoch that were not used yet."""
        seed = derive(self.seed, self.task.name, "order", self.at.epoch)
        return self.task.samples.epoch(self.recipe.batch_size, seed, self.at.batch)

    def _step(self, optimizer: Optimizer, read: Batch, steps: int | None) -> float:
        """One step on a batch; gives the loss."""
        self._seed("step", self.at.step)
        batch = batches.mapped(read, lambda tensor: tensor.to(self.device))
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.at.step, steps)
        outputs = self.model(batches.inputs(batch), self.task.name)
        losses = self.task.objective.losses(self.model, self.task.name, outputs, batch)
        loss = losses.mean()
        penalty = self.method.penalty(batch)
        if penalty is not None:
            loss = loss + penalty
        if not bool(torch.isfinite(loss)):
            raise ForgetlessError(self._diverged(f"the loss became {loss.item()}", self.at.step + 1))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        optimizer.step()
        self.method.observe(self.model, batch, losses.detach())
        self.at.step, self.at.batch = self.at.step + 1, self.at.batch + 1
        return float(loss.detach())

    def _close(self) -> None:
        """Let the method measure, evaluate every task that the network can answer, and move on to the next."""
        with self._phase("measure"):
            self._seed("end")
            self.method.end(self.model, self.task)
        self._refuse_nonfinite()
        with self._phase("evaluate"):
            for column, task in enumerate(self.tasks):
                if self.model.can_answer(task.name):
                    self.at.accuracy[self.at.index][column] = evaluate(self.model, task, self.recipe.batch_size)
        self.at.next_task()
        self._save(None)

    def _seed(self, *purpose: str | int) -> None:
        seed_generators(derive(self.seed, self.task.name, *purpose), self.device)

    def _set_modes(self) -> None:
        self.model.train()
        if self.recipe.freeze_batchnorm and self.model.is_trained:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _save(self, optimizer: Optimizer | None) -> None:
        """Write the checkpoint; `optimizer` is None between tasks."""
        if optimizer is not None:
            self._refuse_nonfinite()
        if self.path is None:
            return
        parts = {"model": self.model.state_dict(), "method": self.method.state()}
        if optimizer is not None:
            parts["optimizer"] = checkpoints.optimizer_state(optimizer)
        checkpoints.write(self.path, self.config, self.at.saved(), parts)
        self.saved = time.monotonic()

    def _restore(self) -> Optimizer | None:
        """Continue from the checkpoint; gives the optimizer if it is inside a task."""
        assert self.path is not None
        position, parts = checkpoints.read(self.path, self.config)
        try:
            return self._resume(position, parts)
        except (ForgetlessError, torch.OutOfMemoryError):
            raise
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ForgetlessError(f"{self.path} is damaged: it does not hold a whole run.") from error

    def _resume(self, position: object, parts: checkpoints.Parts) -> Optimizer | None:
        assert self.path is not None
        self.at = Position.read(position, len(self.tasks), self.path)
        inside = self.at.step > 0
        learned = self.tasks[: self.at.index + inside]
        for task in learned:
            task.objective.prepare(self.model, task.name)
        self.model.load_state_dict(parts["model"])
        optimizer = self._begin() if inside else None
        if optimizer is not None:
            checkpoints.restore_optimizer(optimizer, parts.get("optimizer", {}))
        self.method.load_state(self.model, parts.get("method", {}), learned)
        return optimizer

    def _refuse_nonfinite(self) -> None:
        if (name := nonfinite(self.model)) is not None:
            raise ForgetlessError(self._diverged(f"the weights {name!r} became NaN or Inf", self.at.step))

    def _diverged(self, what: str, step: int) -> str:
        return (
            f"{what} in task {self.task.name!r}, step {step}, under {self.method.name!r}; "
            f"lower lr (now {self.recipe.lr:g}) or set clip."
        )

    @contextlib.contextmanager
    def _phase(self, phase: str) -> Iterator[None]:
        self._tell(phase, step=self.at.step)
        with self.at.timed(phase):
            yield

    def _tell(self, phase: str, epoch: int = 0, step: int = 0, steps: int = 0, loss: float = math.nan) -> None:
        task = self.task.name
        where = (self.at.index + 1, len(self.tasks), task, phase, epoch, step, steps, loss)
        self.report(Progress(*where, accuracy=self.at.accuracy))

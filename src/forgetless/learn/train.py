"""Learning a stream of tasks: the one plain loop, resumable at any step to the bit-identical result."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn import checkpoint as checkpoints
from forgetless.learn import interrupts
from forgetless.learn.heads import MultiHead, warm_start
from forgetless.learn.metrics import Matrix
from forgetless.learn.task import Method as Method
from forgetless.learn.task import Recipe as Recipe
from forgetless.learn.task import Task as Task
from forgetless.model.parameters import fingerprint

PHASES = ("warm_start", "train", "measure", "evaluate")


@dataclass(frozen=True)
class Progress:
    """Where a run is. All numbers count from 1; `step` and `steps` are the task's.

    Attributes:
        task: the number of the task, of `tasks`.
        tasks: how many there are.
        name: the task's name.
        phase: one of `PHASES`, reported when it starts; "train" after every step.
        epoch: the epoch of the last step; 0 outside "train".
        step: steps done in this task; 0 outside "train".
        steps: all steps of this task.
        loss: the last batch's loss with the penalty; NaN outside "train".
    """

    task: int
    tasks: int
    name: str
    phase: str
    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Outcome:
    """What learning a stream came to.

    Attributes:
        accuracy: R[i][j], the share of task j's test samples classified rightly after learning task i; None
            for j > i, where task j has no head yet (in the domain scenario it has one, and R is whole).
        seconds: phase → seconds spent in it, over all resumes.
    """

    accuracy: Matrix
    seconds: dict[str, float]


def learn(
    model: MultiHead,
    tasks: Sequence[Task],
    method: Method,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: str | Path | None = None,
    every: float = 30.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Learn `tasks` in order by `method`: cross-entropy plus the method's penalty, under the model's heads.

    Every random number is a pure function of (seed, task, epoch or step), never of what was drawn before. So
    all methods see the same samples in the same order under the same dropout masks, and a run that was killed
    at any moment and called again with the same arguments ends with the same bits as one that was not (on the
    same machine with as many threads).

    Args:
        model: the network; trained in place, its head or heads grow with each task.
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
        ForgetlessError: no tasks, equal names, a checkpoint that is damaged or of another run, or a loss or
            weights that stop being finite (the last checkpoint stays as it was).
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
    return Outcome(run.accuracy, run.seconds)


class _Run:
    """A run and its position: task `index` with `step` steps done; step 0 is before the task begins."""

    def __init__(
        self,
        model: MultiHead,
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
        self.config = _config(model, tasks, method, recipe, seed)
        self.index = self.step = 0
        self.accuracy: Matrix = [[None] * len(tasks) for _ in tasks]
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.saved = time.monotonic()

    @property
    def task(self) -> Task:
        return self.tasks[self.index]

    def learn(self) -> None:
        """Learn all tasks that are not learned yet."""
        optimizer = self._restore() if self.path is not None and self.path.exists() else None
        while self.index < len(self.tasks):
            if optimizer is None:
                optimizer = self._open()
            with interrupts.held() as interrupt:
                self._train(optimizer, interrupt)
            self._close()
            optimizer = None

    def _open(self) -> Optimizer:
        """Give the task its head and the method its beginning; a head of its own then gets a warm start."""
        self._seed("head")
        self.model.grow(self.task.name, len(self.task.classes))
        optimizer = self._begin()
        new = self.model.scenario == "task" or self.model.tasks == 1
        if self.recipe.warm_start and new and self.model.knows_something:
            with self._phase("warm_start"):
                warm_start(self.model, self.task.name, *self.task.train, self.recipe.batch_size)
        return optimizer

    def _begin(self) -> Optimizer:
        self._seed("begin")
        optimizer = _optimizer(self.model, self.recipe)
        self.method.begin(self.model, self.task, optimizer)
        return optimizer

    def _train(self, optimizer: Optimizer, interrupt: Callable[[], None]) -> None:
        """Take the task's remaining steps."""
        samples = len(self.task.train[1])
        per_epoch = math.ceil(samples / self.recipe.batch_size)
        steps = per_epoch * self.recipe.epochs
        self._set_modes()
        while self.step < steps:
            epoch, batch = divmod(self.step, per_epoch)
            order = permutation(samples, derive(self.seed, self.task.name, "order", epoch))
            for chosen in order.tensor_split(per_epoch)[batch:]:
                with self._timed("train"):
                    loss = self._step(optimizer, chosen, steps)
                try:
                    self._tell("train", epoch + 1, self.step, steps, loss)
                    interrupt()
                except KeyboardInterrupt:
                    self._save(optimizer)  # here, and only here, the state is whole
                    raise
                if self.step == steps or time.monotonic() - self.saved >= self.every:
                    self._save(optimizer)

    def _step(self, optimizer: Optimizer, chosen: Tensor, steps: int) -> float:
        """One step on the samples `chosen`; gives the loss."""
        self._seed("step", self.step)
        inputs, labels = (part[chosen].to(self.device) for part in self.task.train)
        labels = labels + self.model.first(self.task.name)
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step, steps)
        logits = self.model(inputs, self.task.name)
        loss = F.cross_entropy(logits, labels)
        penalty = self.method.penalty(inputs, labels, logits)
        if penalty is not None:
            loss = loss + penalty
        if not bool(torch.isfinite(loss)):
            raise ForgetlessError(self._diverged(f"the loss became {loss.item()}", self.step + 1))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _close(self) -> None:
        """Let the method measure, test every task so far, and move on to the next."""
        with self._phase("measure"):
            self._seed("end")
            self.method.end(self.model, self.task)
        self._refuse_nonfinite()
        with self._phase("evaluate"):
            answered = len(self.tasks) if self.model.scenario == "domain" else self.index + 1
            for column, task in enumerate(self.tasks[:answered]):
                self.accuracy[self.index][column] = accuracy(self.model, task, self.recipe.batch_size)
        self.index, self.step = self.index + 1, 0
        self._save(None)

    def _seed(self, *purpose: str | int) -> None:
        """Seed torch's global generators. Not by `torch.manual_seed`, which takes as long as a small network's step."""
        seed = derive(self.seed, self.task.name, *purpose)
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(seed)

    def _set_modes(self) -> None:
        self.model.train()
        if self.recipe.freeze_batchnorm and self.model.knows_something:
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
        position = {
            "index": self.index,
            "step": self.step,
            "accuracy": self.accuracy,
            "seconds": self.seconds,
        }
        checkpoints.write(self.path, self.config, position, parts)
        self.saved = time.monotonic()

    def _restore(self) -> Optimizer | None:
        """Continue from the checkpoint; gives the optimizer if it is inside a task."""
        assert self.path is not None
        position, parts = checkpoints.read(self.path, self.config)
        try:
            return self._resume(position, parts)
        except (LookupError, TypeError, RuntimeError) as error:
            raise ForgetlessError(f"{self.path} is damaged: it does not hold a whole run.") from error

    def _resume(self, position: dict[str, Any], parts: checkpoints.Parts) -> Optimizer | None:
        self.index, self.step = position["index"], position["step"]
        self.accuracy, self.seconds = position["accuracy"], position["seconds"]
        inside = self.step > 0
        for task in self.tasks[: self.index + inside]:
            self.model.grow(task.name, len(task.classes))
        self.model.load_state_dict(parts["model"])
        optimizer = self._begin() if inside else None
        if optimizer is not None:
            checkpoints.restore_optimizer(optimizer, parts.get("optimizer", {}))
        self.method.load_state(self.model, parts.get("method", {}))
        return optimizer

    def _refuse_nonfinite(self) -> None:
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise ForgetlessError(self._diverged(f"the weights {name!r} became NaN or Inf", self.step))

    def _diverged(self, what: str, step: int) -> str:
        return (
            f"{what} in task {self.task.name!r}, step {step}, under {self.method.name!r}; "
            f"lower lr (now {self.recipe.lr:g}) or set clip."
        )

    @contextlib.contextmanager
    def _phase(self, phase: str) -> Iterator[None]:
        self._tell(phase)
        with self._timed(phase):
            yield

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start

    def _tell(self, phase: str, epoch: int = 0, step: int = 0, steps: int = 0, loss: float = math.nan) -> None:
        task = self.task.name
        self.report(Progress(self.index + 1, len(self.tasks), task, phase, epoch, step, steps, loss))


@torch.no_grad()
def accuracy(model: MultiHead, task: Task, batch_size: int) -> float:
    """The share of the task's test samples that the model, in eval mode, classifies rightly.

    Among the classes its head knows: the task's own, or all so far where one head grows.
    """
    model.eval()
    device = next(model.parameters()).device
    right, first = 0, model.first(task.name)
    for inputs, labels in zip(*(torch.split(part, batch_size) for part in task.test), strict=True):
        logits = model(inputs.to(device), task.name)
        if not bool(torch.isfinite(logits).all()):
            raise ForgetlessError(f"the logits of task {task.name!r} hold NaN or Inf in eval mode.")
        right += int((logits.argmax(1) == labels.to(device) + first).sum())
    return right / len(task.test[1])


def derive(seed: int, *purpose: str | int) -> int:
    """A seed of its own for every purpose: 63 bits, a pure function of `seed` and `purpose`."""
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:8], "big") >> 1


def permutation(samples: int, seed: int) -> Tensor:
    """The numbers 0 … samples − 1 in an order decided by `seed` alone."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed))


def _optimizer(model: MultiHead, recipe: Recipe) -> Optimizer:
    if recipe.optimizer == "adam":
        # Fused: the same update in one pass, at a sixth of the time on a CPU.
        fused = all(weights.device.type in ("cpu", "cuda") for weights in model.parameters())
        return torch.optim.Adam(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=fused)
    return torch.optim.SGD(model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)


def _config(model: MultiHead, tasks: Sequence[Task], method: Method, recipe: Recipe, seed: int) -> checkpoints.Config:
    """Everything that defines a run, flat: two runs with equal ones end with the same bits."""
    settings = {f"{method.name}'s {name}": value for name, value in method.settings().items()}
    stream = {
        f"task {number}": f"{task.name} {'/'.join(map(fingerprint, (*task.train, *task.test)))}"
        for number, task in enumerate(tasks, 1)
    }
    state = model.state_dict()
    weights = hashlib.sha256("".join(f"{name}{fingerprint(state[name])}" for name in state).encode())
    return {
        "method": method.name,
        **settings,
        "seed": seed,
        **{f"the recipe's {name}": value for name, value in dataclasses.asdict(recipe).items()},
        **stream,
        "the network at the start": weights.hexdigest()[:16],
        "scenario": model.scenario,
    }

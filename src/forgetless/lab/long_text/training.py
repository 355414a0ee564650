"""Training on a long text, window by window; resumed at any step, in the middle of a book, with a bit-identical result.

    L = 1/(N T) Σ_nt −log p(token_n,t+1) + Σ_layers compression loss

The first term reaches everything but the compressors, the second nothing but these; with the loss "bptt" the first one
trains the compressors too, through the second of two windows. Then a step reads half as many rows twice as far.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.reading import Tokens, refuse_short, window
from forgetless.lab.long_text.recipes import Recipe
from forgetless.lab.networks.compressive import CompressiveTransformer, Pass
from forgetless.lab.networks.parts.memory import Memory
from forgetless.learn import checkpoint as checkpoints
from forgetless.learn import interrupts
from forgetless.learn.optimizers import adam
from forgetless.learn.position import Progress
from forgetless.learn.seeding import derive, seed_generators

_POINTS = 40  # of the curve
_Count = Annotated[int, files.Between(0, 2**62)]


@dataclass
class _At:
    """Where training is: steps done, seconds, the curve so far, and the sum of the losses of its next point."""

    step: _Count = 0
    seconds: float = 0.0
    curve: list[float] = dataclasses.field(default_factory=list)
    total: float = 0.0
    summed: _Count = 0


@dataclass(frozen=True)
class Trained:
    """What training came to.

    Attributes:
        curve: bits per token of the training text, means over one fortieth of the steps each.
        seconds: how long it took, over all resumes.
    """

    curve: list[float]
    seconds: float


def train(
    model: CompressiveTransformer,
    text: Tokens,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: str | Path | None = None,
    every: float = 30.0,
    attach: Callable[[Optimizer], object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a network on a text, in place.

    Args:
        model: with its first weights.
        text: what it reads, around and around.
        recipe: how.
        seed: decides where the first row begins, and dropout.
        checkpoint: a file to continue from if it exists, and to keep up to date; on Ctrl-C too.
        every: seconds between checkpoints.
        attach: called with the optimizer before the first step, as `Anchor.attach`; then without a checkpoint.
        on_progress: called after every step.

    Raises:
        ForgetlessError: the text is too short, the loss stops being finite, "bptt" with a single row, the checkpoint is
            damaged or of another run, or a checkpoint together with `attach`.
    """
    if attach is not None and checkpoint is not None:
        raise ForgetlessError("a checkpoint does not hold what acts on the optimizer; give `attach` or `checkpoint`.")
    run = _Run(model, text, recipe, seed, None if checkpoint is None else Path(checkpoint))
    run.restore()
    if attach is not None:
        attach(run.optimizer)
    with torch.random.fork_rng([]), interrupts.held() as interrupt:
        saved = time.monotonic()
        while run.at.step < recipe.steps:
            begun = time.perf_counter()
            loss = run.step()
            run.at.seconds += time.perf_counter() - begun
            try:
                if on_progress is not None:
                    on_progress(Progress(1, 1, "long text", "train", 1, run.at.step, recipe.steps, loss))
                interrupt()
            except KeyboardInterrupt:
                run.save()
                raise
            if time.monotonic() - saved >= every or run.at.step == recipe.steps:
                run.save()
                saved = time.monotonic()
    return Trained(run.at.curve, round(run.at.seconds, 3))


class _Run:
    """A run: what it trains on, and where it is."""

    def __init__(
        self, model: CompressiveTransformer, text: Tokens, recipe: Recipe, seed: int, path: Path | None
    ) -> None:
        self.model, self.text, self.recipe, self.seed, self.path = model, text, recipe, seed, path
        self.windows = 2 if model.sizes.compressed and model.sizes.loss == "bptt" else 1
        self.rows = recipe.rows // self.windows
        if not self.rows:
            raise ForgetlessError("the loss 'bptt' reads two windows of half the rows in a step: give 2 rows or more.")
        refuse_short(text, "training", self.rows, recipe.window)
        self.device = next(model.parameters()).device
        self.start = derive(seed, "start") % len(text)
        self.optimizer: Optimizer = adam(model.parameters(), recipe.high)
        self.memory: Memory = model.empty(self.rows)
        self.at = _At()
        compressors = {id(each) for each in model.compressor_parameters()}
        self.parts = [
            [each for each in model.parameters() if (id(each) in compressors) == which] for which in (False, True)
        ]
        self.config: checkpoints.Config = {
            **{f"the network's {key}": value for key, value in dataclasses.asdict(model.sizes).items()},
            **{f"the recipe's {key}": value for key, value in dataclasses.asdict(recipe).items()},
            "seed": seed,
            "the text": files.sha256(text.tokens)[:16],
        }

    def step(self) -> float:
        """One step; gives the loss of the network, without its compressors'."""
        number, windows = self.at.step, self.windows
        seed_generators(derive(self.seed, "step", number), self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(number)
        self.model.train()
        memory, losses, others = self.memory, list[Tensor](), list[Tensor]()
        for each in range(windows):
            found, target = self._read(number * windows + each, memory)
            memory = found.memory
            losses.append(F.cross_entropy(found.logits.flatten(0, 1), target.flatten()))
            others.append(found.loss)
        mean = torch.stack(losses).mean()
        loss = float(mean.detach())
        if not math.isfinite(loss):
            raise ForgetlessError(f"the loss is {loss} in step {number + 1}; take a lower rate, or a longer warm-up.")
        torch.autograd.backward((mean + torch.stack(others).mean()) * self.recipe.share(number))
        self.memory = memory.detach()
        if self.recipe.moves(number):
            for part in filter(None, self.parts):
                nn.utils.clip_grad_norm_(part, self.recipe.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self._count(loss)
        return loss

    def _read(self, number: int, memory: Memory) -> tuple[Pass, Tensor]:
        """What the network makes of a window, and the tokens that follow."""
        read, target = window(self.text.tokens, self.start, number, self.rows, self.recipe.window)
        return self.model.step(read.to(self.device), memory), target.to(self.device)

    def _count(self, loss: float) -> None:
        at = self.at
        at.step, at.total, at.summed = at.step + 1, at.total + loss / math.log(2), at.summed + 1
        if at.step * _POINTS // self.recipe.steps > (at.step - 1) * _POINTS // self.recipe.steps:
            at.curve.append(round(at.total / at.summed, 5))
            at.total, at.summed = 0.0, 0

    def save(self) -> None:
        """Write the checkpoint, with gradients that wait for the next update."""
        if self.path is None:
            return
        waiting = {name: each.grad for name, each in self.model.named_parameters() if each.grad is not None}
        parts: checkpoints.Parts = {
            "model": self.model.state_dict(),
            "optimizer": checkpoints.optimizer_state(self.optimizer),
            "memory": self.memory.tensors(),
            "gradient": waiting,
        }
        checkpoints.write(self.path, self.config, {"seen": self.memory.seen, **dataclasses.asdict(self.at)}, parts)

    def restore(self) -> None:
        """Continue from the checkpoint if there is one.

        Raises:
            ForgetlessError: it is damaged or of another run.
        """
        if self.path is None or not self.path.exists():
            return
        position, parts = checkpoints.read(self.path, self.config)
        found: _Found = files.decoded(position, _Found, self.path)
        restore_weights(self.model, parts.get("model", {}), self.path)
        memory = Memory.of(parts.get("memory", {}), found.seen).to(self.device)
        checkpoints.restore_optimizer(self.optimizer, parts.get("optimizer", {}))
        for name, parameter in self.model.named_parameters():
            waiting = parts.get("gradient", {}).get(name)
            parameter.grad = None if waiting is None else waiting.to(self.device)
        self.memory = memory
        self.at = _At(found.step, found.seconds, found.curve, found.total, found.summed)


@dataclass
class _Found(_At):
    seen: _Count = 0


def restore_weights(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Give a network the weights of a file.

    Raises:
        ForgetlessError: they are not those of this network.
    """
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ForgetlessError(f"{path} is damaged: it does not hold the weights of this network.") from error

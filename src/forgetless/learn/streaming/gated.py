"""Gated gradients, and coefficients that a step on replayed samples adapts: what `mango` and `mas-gated` share.

Awasthi, Roy, Apolinario, "MANGO", 2026, arXiv 2605.19080.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn import checkpoint
from forgetless.learn.families.memory import Remembered, mean_loss
from forgetless.learn.families.state import on_device_of
from forgetless.learn.network import Network
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.groups import groups_of
from forgetless.learn.streaming.learner import Replaying
from forgetless.learn.streaming.passes import statistics_kept
from forgetless.learn.task import Task

_BINS = 20  # of a histogram of gates, over 0 … 1


@dataclass
class Gated(Replaying):
    """`θ ← θ − η v, v ← μ v + gate ⊙ (g + λ_i w ⊙ (θ − θ_old))`, with log λ_i of group i moved by a hypergradient.

    g is the gradient of the loss on stream and replay, θ_old the weights at the end of the last task, w a weight of
    each element. There is no penalty in the first task, nor on a parameter that has no gradient in an update (the head
    of a task that is not replayed).

    The meta step. θ' are the weights after the step of the optimizer, momentum included: the "virtual" step is the real
    one, since the same gated gradient is used for both, so that no copy is needed. η is SGD's learning rate. Of θ' only
    the last term of v depends on the present λ, so the derivative of the loss of a replay batch at θ' is, exactly,

        ∂L/∂log λ_i = −η λ_i Σ_{j∈i} gate_j w_j (θ_j − θ_old,j) ∂L/∂θ'_j

    with θ before the step. Adam moves log λ by it; the new λ acts from the next update on. A meta step follows the last
    glance of every `meta_every`-th batch. It is skipped while the buffer is empty and in the first task, where the
    derivative is zero.

    Memory: θ_old, beside the buffer. At a meta step the gradients of the replay loss take the place of the step's.

    Attributes:
        groups: how many coefficients there are at most; see `groups_of`.
        replayed: whether replayed samples are in the loss, or serve the meta step only.
        penalized: whether there is a penalty.
        meta: whether the coefficients adapt; otherwise they stay at their start.
        meta_every: after how many batches there is a meta step.
        meta_batch: samples in one.
        meta_lr: Adam's rate.
        start: log λ at the start.
    """

    groups: int = 5
    replayed: bool = True
    penalized: bool = True
    meta: bool = True
    meta_every: int = 3
    meta_batch: int = 256
    meta_lr: float = 2e-3
    start: float = -7.6
    _old: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _log: nn.Parameter = field(init=False, repr=False)
    _adam: torch.optim.Adam = field(init=False, repr=False)
    _inside: dict[str, int] = field(init=False, repr=False)
    _names: tuple[str, ...] = field(init=False, repr=False)
    _named: list[tuple[str, nn.Parameter]] = field(init=False, repr=False)
    _trace: list[list[float]] = field(default_factory=list, init=False, repr=False)
    _seen: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("meta_every", "meta_batch"):
            if getattr(self, name) < 1:
                raise ForgetlessError(f"{name} must be at least 1, not {getattr(self, name)!r}.")
        if not self.meta_lr > 0:
            raise ForgetlessError(f"meta_lr must be above 0, not {self.meta_lr!r}.")

    # ---- what a subclass defines

    def _prepare(self) -> None:
        """Called before gates are asked for, on the weights before a step."""
        return

    def _gate(self, name: str, weights: Tensor) -> Tensor | float:
        """The gates of a parameter's elements, in [0, 1], at `weights`."""
        raise NotImplementedError

    def _weigh(self, name: str, distance: Tensor) -> Tensor:
        """`w ⊙ distance`; may be done in place."""
        return distance

    # ---- the learner

    def begin(self, model: Network, tasks: Sequence[Task], optimizer: Optimizer, budget: Budget) -> None:
        """Begin with every λ at its start.

        Raises:
            ForgetlessError: an optimizer whose step is not `θ − η v`.
        """
        super().begin(model, tasks, optimizer, budget)
        settings = optimizer.param_groups[0]
        fits = isinstance(optimizer, torch.optim.SGD) and not settings["dampening"] and not settings["nesterov"]
        if not fits or settings["maximize"] or len(optimizer.param_groups) != 1:
            raise ForgetlessError(f"{self.name!r} needs SGD with one group, no dampening and no Nesterov momentum.")
        self._named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        found = groups_of(model, self.groups)
        self._names = tuple(found)
        self._inside = {name: group for group, names in enumerate(found.values()) for name in names}
        like = next(model.parameters())
        self._log = nn.Parameter(torch.full((len(found),), self.start, dtype=like.dtype, device=like.device))
        self._adam = torch.optim.Adam([self._log], self.meta_lr)

    def glance(self, part: Remembered, batch: int, last: bool) -> float:
        """One update; after the last on every `meta_every`-th batch, a meta step."""
        loss = super().glance(part, batch, last)
        due = self.meta and last and (batch + 1) % self.meta_every == 0
        if due and self._protects and len(self._buffer) and math.isfinite(loss):
            self._adapt(batch + 1)
        return loss

    def border(self, task: Task, batches: int) -> None:
        """Note the gates' histogram, and pull towards the present weights from now on."""
        self._prepare()
        found = torch.zeros(len(self._names), _BINS, dtype=torch.int64)
        for name, weights in self._named:
            gates = self._gate(name, weights.detach())
            spread = torch.full((1,), gates) if isinstance(gates, float) else gates.float().cpu()
            counts = torch.histc(spread, _BINS, 0.0, 1.0).long()
            found[self._inside[name]] += counts * (weights.numel() if isinstance(gates, float) else 1)
        self._seen.append(found)
        for name, weights in self._named if self.penalized else ():
            if name in self._old:
                self._old[name].copy_(weights.detach())  # in place: at no time are there two copies
            else:
                self._old[name] = weights.detach().clone()
        self._trace.append([float(batches), *self._log.detach().exp().tolist()])

    def figures(self) -> dict[str, Any]:
        """λ of each group over the stream, and histograms of the gates at the end of each task."""
        return {
            "groups": list(self._names),
            "lambdas": self._trace if self.penalized else [],
            "gates": [each.tolist() for each in self._seen],
        }

    def tree(self) -> dict[str, Any]:
        """The buffer, θ_old, λ with Adam's moments, and what was noted."""
        return {
            **super().tree(),
            "old": self._old,
            "log": self._log.detach(),
            "adam": checkpoint.optimizer_state(self._adam),
            "trace": torch.tensor(self._trace, dtype=torch.float64),
            "seen": torch.stack(self._seen) if self._seen else torch.empty(0),
        }

    def load(self, tree: dict[str, Any]) -> None:
        """Take all of it back."""
        super().load(tree)
        self._old = on_device_of(self._model, tree.get("old", {}))
        with torch.no_grad():
            self._log.copy_(tree["log"])
        checkpoint.restore_optimizer(self._adam, {name: each.clone() for name, each in tree.get("adam", {}).items()})
        self._trace, self._seen = tree["trace"].tolist(), [*tree["seen"]]

    # ---- the update and the meta step

    @property
    def _protects(self) -> bool:
        return bool(self._old)

    def _drawn(self, part: Remembered) -> list[Remembered]:
        return super()._drawn(part) if self.replayed else []

    @torch.no_grad()
    def _shape(self) -> None:
        """Add the penalty's gradient, then the gates: the paper gates both."""
        self._prepare()
        lambdas = self._log.exp().unbind()
        for name, weights in self._named:
            if weights.grad is None:
                continue
            if self._old:
                pulled = self._weigh(name, weights - self._old[name])
                weights.grad.addcmul_(pulled, lambdas[self._inside[name]])
            weights.grad.mul_(self._gate(name, weights))

    def _adapt(self, batches: int) -> None:
        """A step of Adam on log λ, along the derivative of a replay batch's loss after the step just taken."""
        steps = self._taken()
        drawn = self._buffer.draw(self.meta_batch)
        with statistics_kept(self._model):
            loss = mean_loss(self.passes.recall(self._model, drawn))
            found = self.passes.gradients(loss, [weights for _, weights in self._named], drawn)
        if not bool(torch.isfinite(loss)):
            raise ForgetlessError(f"the loss of the meta step became {loss.item()} at batch {batches}; lower lr.")
        self._log.grad = self._derivative(steps, found)
        self._adam.step()
        self._trace.append([float(batches), *self._log.detach().exp().tolist()])

    def _taken(self) -> list[Tensor | None]:
        """The direction v of the step that was just taken on each parameter; None for one that it did not move."""
        steps: list[Tensor | None] = []
        for _, weights in self._named:
            gradient, weights.grad = weights.grad, None  # the gradients of the replay loss take their place
            kept = self._optimizer.state[weights].get("momentum_buffer") if self._budget.momentum else gradient
            steps.append(None if gradient is None else kept)
        return steps

    @torch.no_grad()
    def _derivative(self, steps: list[Tensor | None], found: Sequence[Tensor | None]) -> Tensor:
        """`∂L/∂log λ`, `[groups]`; the weights before the step are those now, plus η v."""
        rate = float(self._optimizer.param_groups[0]["lr"])
        sums = torch.zeros_like(self._log)
        for (name, weights), step, gradient in zip(self._named, steps, found, strict=True):
            if step is None or gradient is None:
                continue
            before = weights + rate * step
            gate = self._gate(name, before)
            pulled = self._weigh(name, before.sub_(self._old[name])).mul_(gate)
            sums[self._inside[name]] -= torch.sum(pulled.mul_(gradient))
        return sums * rate * self._log.exp()

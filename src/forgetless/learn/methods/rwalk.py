"""Riemannian Walk: a weight matters by the Fisher information, and by how much its path lowered the loss.

Chaudhry, Dokania, Ajanthan, Torr, "Riemannian Walk for Incremental Learning: Understanding Forgetting and
Intransigence", ECCV 2018, arXiv 1801.10112.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.families.state import Tensors, on_device_of, pack, padded, scalar, unpack
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.estimators.path_integral import PathIntegral
from forgetless.measure.importance import Importance
from forgetless.model.parameters import trainable


@dataclass
class RWalk(Anchored):
    """`Ω = F / max F + s / max s`, θ* the weights at the end of the last task.

    Training is cut into windows of Δt steps. `F ← a F + (1 − a) · mean of g² in the window`, along the whole stream;
    `s_k = Σ_windows max(ω, 0) / (½ F Δθ² + ε)`, ω the first-order decrease of the loss along the window's path,
    `−Σ g · (step)`; after each task but the first `s ← (s + s_k)/2`. g is the batch's gradient of the step's loss.
    Memory: eight tensors of the network's size inside a task, four between tasks.

    Differences from the paper: the decrease of the loss is taken to first order; the penalty acts as a proximal step;
    its memory of samples is left to another method (`rwalk+er`); where the recipe clips gradients, g is clipped.

    Attributes:
        strength: λ; 1, not tuned.
        decay: a; 0.9 as in the authors' code.
        window: Δt; 10, the authors' code has 10 to 50.
        damping: ε, which bounds s where a weight hardly moved; the paper does not state it.
    """

    name: ClassVar[str] = "rwalk"
    strength: Strength = 1.0
    decay: float = 0.9
    window: int = 10
    damping: float = 1e-3
    _fisher: Tensors = field(default_factory=dict, init=False, repr=False)
    _score: Tensors = field(default_factory=dict, init=False, repr=False)
    _squares: Tensors = field(default_factory=dict, init=False, repr=False)
    _gained: Tensors = field(default_factory=dict, init=False, repr=False)
    _steps: int = field(default=0, init=False, repr=False)
    _path: PathIntegral | None = field(default=None, init=False, repr=False)
    _hook: RemovableHandle | None = field(default=None, init=False, repr=False)

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Attach the anchor, and follow the path from here."""
        super().begin(model, task, optimizer)
        shared = trainable(model, exclude=model.unshared)
        self._squares, self._gained = ({name: torch.zeros_like(w) for name, w in shared.items()} for _ in range(2))
        self._path = PathIntegral(model, gradient="step", exclude=model.unshared).attach(optimizer)
        self._steps = 0

        @torch.no_grad()
        def count(*_: object) -> None:
            for name, weights in shared.items():
                if weights.grad is not None:
                    self._squares[name] += weights.grad.square()
            self._steps += 1
            if self._steps == self.window:
                self._close()

        # After the anchor's own hook, so that the pull is part of the path.
        self._hook = optimizer.register_step_post_hook(count)

    @torch.no_grad()
    def _close(self) -> None:
        """End a window: update F, and add what the path gained to the score."""
        assert self._path is not None
        for name, (work, moved) in self._path.so_far().items():
            recent = self._squares[name] / self._steps
            if name in self._fisher:
                recent = self.decay * padded(self._fisher[name], moved) + (1 - self.decay) * recent
            self._fisher[name] = recent
            self._gained[name] += work.clamp_min(0) / (recent * moved.square() / 2 + self.damping)
            self._squares[name].zero_()
        self._path.restart()
        self._steps = 0

    def measure(self, model: Network, task: Task) -> Importance:
        """Ω of all tasks so far."""
        assert self._hook is not None
        assert self._path is not None
        self._hook.remove()
        if self._steps:
            self._close()
        self._path.detach()
        for name, gained in self._gained.items():
            earlier = self._score.get(name)
            self._score[name] = gained if earlier is None else (padded(earlier, gained) + gained) / 2
        self._path, self._squares, self._gained = None, {}, {}
        most, highest = (_largest(kind) for kind in (self._fisher, self._score))
        shared = trainable(model, exclude=model.unshared)
        return Importance(
            {name: self._fisher[name] / most + self._score[name] / highest for name in shared}, 1, self.name
        )

    def end(self, model: Network, task: Task) -> None:
        """Anchor the network to the current weights, by the Ω of all tasks so far."""
        self.anchor(model).detach()
        self.renew(model, self.measure(model, task))

    def state(self) -> dict[str, Tensor]:
        """θ*, Ω, F and s, and inside a task the present window."""
        tree: dict[str, Any] = {"fisher": self._fisher, "score": self._score}
        if self._path is not None:
            window = {"path": self._path.state(), "squares": self._squares, "gained": self._gained}
            tree["inside"] = {**window, "steps": scalar(self._steps)}
        return {**super().state(), **pack(tree)}

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take all of them back."""
        super().load_state(model, tensors, tasks)
        kept = on_device_of(model, unpack(tensors))
        self._fisher, self._score = kept.get("fisher", {}), kept.get("score", {})
        if self._path is not None:
            inside = kept["inside"]
            self._squares, self._gained = inside["squares"], inside["gained"]
            self._steps = int(inside["steps"])
            self._path.load_state(inside["path"])


def _largest(tensors: Tensors) -> float:
    """The largest entry of all; 1 where all are 0."""
    return max((float(tensor.max()) for tensor in tensors.values() if tensor.numel()), default=0.0) or 1.0

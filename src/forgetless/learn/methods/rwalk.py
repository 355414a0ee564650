"""Riemannian Walk: a weight matters by the Fisher information, and by how much its way lowered the loss.

Chaudhry, Dokania, Ajanthan, Torr, "Riemannian Walk for Incremental Learning: Understanding Forgetting and
Intransigence", ECCV 2018, arXiv 1801.10112.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.learn.families.anchored import Anchored, padded
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task
from forgetless.measure.importance import Importance
from forgetless.model.parameters import trainable
from forgetless.protect.anchor import Anchor

Tensors = dict[str, Tensor]


@dataclass
class RWalk(Anchored):
    """`Ω = F / max F + s / max s`, θ* the weights at the end of the last task.

    Training is cut into windows of Δt steps. `F ← a F + (1 − a) · mean of g² in the window`, along the whole stream;
    `s_k = Σ_windows max(ω, 0) / (½ F Δθ² + ε)`, ω the first-order fall of the loss along the window's way,
    `−Σ g · (step)`; after each task but the first `s ← (s + s_k)/2`. g is the batch's gradient of the task's loss.
    Memory: seven tensors the size of the network inside a task, four between tasks.

    What differs from the paper: the fall of the loss is taken to first order; the penalty acts as a pull after a step;
    its memory of samples is another method's matter (`rwalk+er`); clipping, where the recipe asks for it, clips g.

    Attributes:
        strength: λ; 1, not tuned.
        decay: a; 0.9 as in the authors' code.
        window: Δt; 10, the authors' code has 10 to 50.
        damping: ε, which bounds s where a weight hardly moved; not told by the paper.
    """

    name: ClassVar[str] = "rwalk"
    strength: float = 1.0
    decay: float = 0.9
    window: int = 10
    damping: float = 1e-3
    _fisher: Tensors = field(default_factory=dict, init=False, repr=False)
    _score: Tensors = field(default_factory=dict, init=False, repr=False)
    _inside: dict[str, Tensors] = field(default_factory=dict, init=False, repr=False)
    _steps: int = field(default=0, init=False, repr=False)
    _hook: RemovableHandle | None = field(default=None, init=False, repr=False)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Attach the anchor, and follow the path from here."""
        super().begin(model, task, optimizer)
        shared = trainable(model, exclude=model.unshared)
        kinds = ("path", "squares", "gained")
        self._inside = {kind: {name: torch.zeros_like(w) for name, w in shared.items()} for kind in kinds}
        self._inside["start"] = {name: weights.detach().clone() for name, weights in shared.items()}
        before = {name: weights.detach().clone() for name, weights in shared.items()}
        self._steps = 0

        @torch.no_grad()
        def follow(*_: object) -> None:
            for name, weights in shared.items():
                if weights.grad is not None:
                    self._inside["path"][name] -= weights.grad * (weights - before[name])
                    self._inside["squares"][name] += weights.grad.square()
                before[name].copy_(weights)
            self._steps += 1
            if self._steps == self.window:
                self._close(shared)

        # After the anchor's own hook, so that the pull is part of the way.
        self._hook = optimizer.register_step_post_hook(follow)

    @torch.no_grad()
    def _close(self, shared: dict[str, nn.Parameter]) -> None:
        """End a window: update F, and add what the way gained to the score."""
        for name, weights in shared.items():
            path, squares, gained, start = (self._inside[kind][name] for kind in ("path", "squares", "gained", "start"))
            recent = squares / self._steps
            if name in self._fisher:
                recent = self.decay * padded(self._fisher[name], weights) + (1 - self.decay) * recent
            self._fisher[name] = recent
            gained += path.clamp_min(0) / (recent * (weights - start).square() / 2 + self.damping)
            path.zero_()
            squares.zero_()
            start.copy_(weights)
        self._steps = 0

    def measure(self, model: MultiHead, task: Task) -> Importance:
        """Ω of all tasks so far."""
        assert self._hook is not None
        self._hook.remove()
        shared = trainable(model, exclude=model.unshared)
        if self._steps:
            self._close(shared)
        for name, gained in self._inside["gained"].items():
            earlier = self._score.get(name)
            self._score[name] = gained if earlier is None else (padded(earlier, gained) + gained) / 2
        self._inside = {}
        most, highest = (_largest(kind) for kind in (self._fisher, self._score))
        return Importance(
            {name: self._fisher[name] / most + self._score[name] / highest for name in shared}, 1, self.name
        )

    def end(self, model: MultiHead, task: Task) -> None:
        """Hold to the current weights, by the Ω of all tasks so far."""
        self.anchor(model).detach()
        self._anchor = Anchor(model, self.measure(model, task), self.strength)

    def state(self) -> dict[str, Tensor]:
        """θ*, Ω, F and s, and inside a task what the window knows."""
        kinds = {"fisher": self._fisher, "score": self._score, **self._inside}
        steps = {"steps": torch.tensor(self._steps)} if self._inside else {}
        tensors = {f"{kind}.{name}": tensor for kind, named in kinds.items() for name, tensor in named.items()}
        return {**super().state(), **tensors, **steps}

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take all of them back."""
        rest, device = dict(tensors), next(model.parameters()).device
        self._steps = int(rest.pop("steps", torch.tensor(0)))
        for kind, named in {"fisher": self._fisher, "score": self._score, **self._inside}.items():
            for key in [key for key in rest if key.startswith(f"{kind}.")]:
                named[key.removeprefix(f"{kind}.")] = rest.pop(key).to(device, copy=True)
        super().load_state(model, rest)


def _largest(tensors: Tensors) -> float:
    """The largest entry of all; 1 where all are 0."""
    return max((float(tensor.max()) for tensor in tensors.values() if tensor.numel()), default=0.0) or 1.0

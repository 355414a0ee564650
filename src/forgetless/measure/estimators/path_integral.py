"""Synaptic Intelligence: a weight matters as much as its path through training lowered the loss.

Zenke, Poole, Ganguli, "Continual Learning Through Synaptic Intelligence", ICML 2017, arXiv 1703.04200.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance, refuse_mismatch
from forgetless.model.parameters import fingerprints, trainable, unwrapped
from forgetless.model.sharding import is_sharded


def _averaging(model: nn.Module) -> str | None:
    """What averages the gradients of several processes, if something does; it may be inside of torch.compile."""
    while type(model).__name__ == "OptimizedModule":
        model = model._orig_mod  # type: ignore[assignment]
    if type(model).__name__ in ("DistributedDataParallel", "FullyShardedDataParallel"):
        return type(model).__name__
    return "fully_shard" if any(is_sharded(parameter) for parameter in model.parameters()) else None


class PathIntegral:
    """The path integral of training: how much of the decrease of the loss each parameter's path accounts for.

        ω = −Σ_steps g · Δθ,  Ω = max(ω, 0) / ((θ_end − θ_start)² + ξ)         all in the parameter's shape

    g is the gradient of the loss as the last backward pass before the step left it: the sum where several passes
    accumulate, and not clipped. Δθ is everything that moves a parameter between this step and the next, with the pull
    of an attached `Anchor`, in whatever order the two were attached. With an anchor attached g is the gradient of the
    task's loss alone, as in the paper; `anchor.penalty()` in the loss would be part of it.

    Nothing is measured afterwards: Ω is a by-product of training and depends on the learning rate and on the order of
    batches. It cannot be measured for a network that was trained elsewhere; `forgetless.mas` can.

        path = forgetless.PathIntegral(model).attach(optimizer)
        train(model, optimizer)
        anchor.consolidate(path.importance())

    Args:
        model: the network that will be trained.
        damping: ξ, which bounds Ω where a weight hardly moved; 0.1 as in the code of Hsu et al. 2018.
        gradient: "loss" as above, at the price of a copy of the gradient in each backward pass; "step" takes the
            gradient that the optimizer used: clipped, without a `GradScaler`'s factor, averaged over ranks, changed by
            other hooks of the optimizer. Take "step" with a `GradScaler`; `DistributedDataParallel` and FSDP need it.
        exclude: parameters to leave out: names, module names ("head") or patterns ("*.bias").

    Raises:
        ForgetlessError: no trainable parameter, a damping that is not positive, another word for the gradient, or
            "loss" where ranks average their gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        damping: float = 0.1,
        gradient: Literal["loss", "step"] = "loss",
        exclude: str | Iterable[str] = (),
    ) -> None:
        if not (math.isfinite(damping) and damping > 0):
            raise ForgetlessError(f"damping must be positive and finite, not {damping!r}.")
        if gradient not in ("loss", "step"):
            raise ForgetlessError(f'gradient must be "loss" or "step", not {gradient!r}.')
        if gradient == "loss" and (by := _averaging(model)):
            raise ForgetlessError(
                f'{by} averages gradients after the backward pass; use PathIntegral(model, gradient="step").'
            )
        self.damping = damping
        self._of_loss = gradient == "loss"
        self._parameters = trainable(unwrapped(model), exclude)
        if not self._parameters:
            raise ForgetlessError(f"{type(model).__name__} has no trainable parameter whose path could be followed.")
        self._ways: dict[str, _Way] = {}
        self._handles: list[RemovableHandle] = []
        self.restart()

    def restart(self) -> None:
        """Begin a new path here and now (a new task, say); hooks stay."""
        self._ways = {name: _Way.begin(parameter) for name, parameter in self._parameters.items()}

    def attach(self, optimizer: Optimizer) -> PathIntegral:
        """Follow every `step` of this optimizer from now on. Returns the path.

        Raises:
            ForgetlessError: the path is attached already, or the optimizer holds none of the parameters.
        """
        if self._handles:
            raise ForgetlessError("this path is attached already; detach() it first.")
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if held.isdisjoint(id(parameter) for parameter in self._parameters.values()):
            raise ForgetlessError(f"this {type(optimizer).__name__} holds none of the parameters of the path.")
        self._handles.append(optimizer.register_step_pre_hook(lambda *_: self._before_step()))
        if not self._of_loss:
            self._handles.append(optimizer.register_step_post_hook(lambda *_: self._after_step()))
        else:
            for name, parameter in self._parameters.items():
                hook = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    lambda p, name=name: self._ways[name].see(p)
                )
                self._handles.append(hook)
        return self

    def detach(self) -> None:
        """Stop following; what was found so far stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def so_far(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Parameter → ω of the path up to now and `θ − θ_start`, in float32 or wider; the path goes on."""
        found = {}
        for name, parameter in self._parameters.items():
            way = self._ways[name]
            way.settle(parameter)
            found[name] = way.work, (parameter.detach() - way.start).to(way.work.dtype)
        return found

    def importance(self) -> Importance:
        """Ω of the path up to now, count 1; the path goes on.

        Raises:
            ForgetlessError: the path, the gradients on it or the weights are NaN or Inf (named parameter).
        """
        sums = {}
        for name, (work, moved) in self.so_far().items():
            sums[name] = work.clamp(min=0) / (moved.square() + self.damping)
            if not bool(torch.isfinite(sums[name]).all()):
                raise ForgetlessError(f"the path of {name!r} holds NaN or Inf: training has diverged there.")
        return Importance(sums, 1, "path-integral", fingerprints(self._parameters))

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on in another process, to the same bits: "work.NAME", "start.NAME" and so on."""
        state: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            way = self._ways[name]
            way.settle(parameter)
            state |= {f"work.{name}": way.work.clone(), f"start.{name}": way.start.clone()}
        return state

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, with the model's weights as they were then.

        Raises:
            ForgetlessError: it is of other parameters; nothing has changed.
        """
        expected = {f"{part}.{name}": p for part in ("work", "start") for name, p in self._parameters.items()}
        refuse_mismatch(tensors, expected, "the state", "the path")
        self.restart()
        for name, way in self._ways.items():
            way.work.copy_(tensors[f"work.{name}"])
            way.start.copy_(tensors[f"start.{name}"])

    def _before_step(self) -> None:
        """What moved since the last step belongs to the last step's gradients."""
        for name, parameter in self._parameters.items():
            self._ways[name].go(parameter, self._of_loss)

    def _after_step(self) -> None:
        """The gradients are now as the optimizer used them."""
        for name, parameter in self._parameters.items():
            self._ways[name].used(parameter)


@dataclass
class _Way:
    """The path of one parameter.

    Attributes:
        work: ω so far, without the step that is under way.
        start: where the path began.
        before: where the step that is under way began.
        gradient: g of that step, or of the next, once it is seen.
        seen: whether a backward pass has left a gradient for the next step.
        moving: whether a step with this gradient is under way.
    """

    work: Tensor
    start: Tensor
    before: Tensor
    gradient: Tensor
    seen: bool = False
    moving: bool = False

    @classmethod
    def begin(cls, parameter: Tensor) -> _Way:
        now = parameter.detach()
        wide = torch.promote_types(now.dtype, torch.float32)
        return cls(torch.zeros_like(now, dtype=wide), now.clone(), now.clone(), torch.zeros_like(now))

    @torch.no_grad()
    def settle(self, parameter: Tensor) -> None:
        """Add `−g · Δθ` of the step that is under way, as far as it went."""
        if self.moving:
            self.work -= self.gradient.to(self.work.dtype) * (parameter.detach() - self.before)
        self.before.copy_(parameter.detach())

    @torch.no_grad()
    def see(self, parameter: Tensor) -> None:
        """A backward pass has left a gradient: the last step is over, and the next one has this gradient."""
        self.settle(parameter)
        self.moving = False
        self.seen = parameter.grad is not None
        self._take(parameter)

    @torch.no_grad()
    def go(self, parameter: Tensor, of_loss: bool) -> None:
        """A step begins, with the gradient that was seen since the last one, or with none so far."""
        if not self.seen:
            self.settle(parameter)
        self.moving, self.seen = self.seen and of_loss, False

    @torch.no_grad()
    def used(self, parameter: Tensor) -> None:
        """A step was taken with the gradient that the parameter has now; what moves it next is part of the step."""
        self.moving = parameter.grad is not None
        self._take(parameter)

    def _take(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.gradient.copy_(parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad)

"""`Response`: how far an optimizer's step moves a parameter under a steady gradient; what the pull has to balance."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from forgetless.protect.anchored_parameter import Index

Group = Mapping[str, Any]
State = Mapping[str, Any]


class Response(NamedTuple):
    """r, what D is made of (1, or v, or `√(scale v − m²) + ε`), and which tensor the pull moves.

    Attributes:
        rate: r.
        second: v, in the parameter's shape; None where D is 1.
        mean: m, in the parameter's shape; None for 0.
        scale: what v is multiplied by.
        epsilon: ε.
        root: whether D is the root; v itself otherwise.
        moved: the tensor that the optimizer steps on, where that is not the parameter; it is pulled in its place.
        follow: the part of that tensor's move which the parameter makes with it.
        reach: the farthest that a weight goes back at once; None where the step itself keeps that small.
    """

    rate: float | Tensor
    second: Tensor | None = None
    mean: Tensor | None = None
    scale: float | Tensor = 1.0
    epsilon: float | Tensor = 0.0
    root: bool = True
    moved: Tensor | None = None
    follow: float | Tensor = 0.0
    reach: float | Tensor | None = None

    def divisor(self, part: Index = ()) -> Tensor | None:
        """D in one part of the parameter, a new tensor; None for 1."""
        if self.second is None:
            return None
        if not self.root:
            return self.second[part].clone()
        square = self.second[part] * self.scale
        if self.mean is not None:
            square.addcmul_(self.mean[part], self.mean[part], value=-1).clamp_(min=0)
        return square.sqrt_().add_(self.epsilon)


Form = Callable[[Group, State, Tensor], Response]


def is_settled(known: Known | str, state: State) -> bool:
    """Whether the form holds in this state: not before a first step, which GradScaler may skip in a fused optimizer."""
    if isinstance(known, str):
        return False
    steps = number(state.get("step", 1.0)) if state else 0.0
    return known.at_once or isinstance(steps, Tensor) or steps > 0  # on a device it is not waited for


@dataclass(frozen=True)
class Known:
    """An optimizer's form, and what comes with it.

    Attributes:
        form: (group, state, parameter) → `Response`, after a step.
        at_once: whether it needs no state, so that it holds before the first step as well.
        caution: what the user must know, as a sentence; "" for nothing.
    """

    form: Form
    at_once: bool = False
    caution: str = ""


def step_of(kind: type[Optimizer]) -> Any:
    """The function that a class of optimizers runs as its step, without what torch wraps around it."""
    return inspect.unwrap(kind.step)


def is_called(optimizer: Optimizer, *names: str) -> bool:
    """Whether the class whose step the optimizer runs has one of these names."""
    step = step_of(type(optimizer))
    return any(each.__name__ in names and "step" in vars(each) for each in _running(type(optimizer), step))


def comes_from(optimizer: Optimizer, package: str) -> bool:
    """Whether its class, or one that it is made from, is of this package."""
    return any(each.__module__.partition(".")[0] == package for each in type(optimizer).__mro__)


def number(value: Any) -> Any:
    """A count as a number, unless it lives on a device: asking for it there would stop the stream."""
    return float(value) if not isinstance(value, Tensor) or value.device.type == "cpu" else value


def _running(kind: type[Optimizer], step: Any) -> list[type]:
    return [each for each in kind.__mro__ if inspect.unwrap(getattr(each, "step", None) or len) is step]

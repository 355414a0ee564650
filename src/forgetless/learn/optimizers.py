"""How a recipe's optimizer is made: by any callable from parameters and a learning rate to an optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError

#: Called as `factory(parameters, lr=lr)`: a class such as `torch.optim.AdamW`, a function of a module, or a
#: `functools.partial` of either with keyword settings. All of them can be pickled and named.
Factory = Callable[..., Optimizer]


def sgd(
    parameters: Iterable[nn.Parameter], lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> Optimizer:
    """`torch.optim.SGD` with momentum 0.9."""
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay)


def adam(parameters: Iterable[nn.Parameter], lr: float, *, weight_decay: float = 0.0) -> Optimizer:
    """`torch.optim.Adam`, fused on CPUs and CUDA: the same update in one pass over the memory."""
    listed = list(parameters)
    fused = all(weights.device.type in ("cpu", "cuda") for weights in listed)
    return torch.optim.Adam(listed, lr, weight_decay=weight_decay, fused=fused)


def described(factory: Factory) -> str:
    """The factory as text: its full name, and its keyword settings in alphabetical order.

    Two runs whose factories have the same text use the same optimizer. `torch.optim.adamw.AdamW(weight_decay=0.1)`.

    Raises:
        ForgetlessError: a lambda or a function inside another one, which no other process could find again, or
            positional arguments in a `functools.partial`.
    """
    settings: dict[str, Any] = {}
    while isinstance(factory, functools.partial):
        if factory.args:
            raise ForgetlessError("an optimizer's settings are given by keyword: functools.partial(kind, name=value).")
        settings = {**factory.keywords, **settings}
        factory = factory.func
    name = f"{getattr(factory, '__module__', '')}.{getattr(factory, '__qualname__', repr(factory))}"
    if not callable(factory) or "<" in name:
        raise ForgetlessError(
            f"an optimizer is a class, a function of a module or a functools.partial of one, not {name.lstrip('.')}."
        )
    inside = ", ".join(f"{key}={value!r}" for key, value in sorted(settings.items()))
    return f"{name}({inside})"


def tried(factory: Factory, lr: float) -> None:
    """Make an optimizer of one number, so that wrong settings are refused before anything is learned.

    Raises:
        ForgetlessError: the factory fails, or gives something else.
    """
    name = described(factory)
    try:
        found = factory([nn.Parameter(torch.zeros(1))], lr=lr)
    except Exception as error:
        raise ForgetlessError(f"the optimizer {name} cannot be made: {error}.") from error
    if not isinstance(found, Optimizer):
        raise ForgetlessError(f"the optimizer {name} gives a {type(found).__name__}, not a torch.optim.Optimizer.")

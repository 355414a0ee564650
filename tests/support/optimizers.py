"""The open lists of optimizers: those whose pull ends at the penalized optimum, and those that are refused.

To add one, append a line. The contract tests and docs/exactness.md are made from these lists.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import optim
from torch.optim import Optimizer

from quadratics import Quadratic


@dataclass(frozen=True)
class Ending:
    """An optimizer that ends at the optimum of the penalized loss, with the pull, at every strength.

    Attributes:
        name: of its class.
        options: what it is made with.
        module: where its class is.
        within: how near, in the largest difference of a weight.
        steps: so many.
        decades: by how much the learning rate falls; 0 where it may stay.
        noise: on the gradient, for those that divide by its variance.
        free: whether a weight has no importance.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    module: str = "torch.optim"
    within: float = 1e-8
    steps: int = 1200
    decades: float = 8
    noise: float = 0.0
    free: bool = False

    def __str__(self) -> str:
        said = ", ".join(f"{key}={value}" for key, value in self.options.items() if key != "lr")
        where = "" if self.module == "torch.optim" else f"{self.module.partition('.')[0]} "
        return f"{where}{self.name}{f' ({said})' if said else ''}"

    def made(self, parameters: Any) -> Optimizer | None:
        """The optimizer; None where its package is not installed, or is older."""
        try:
            kind = getattr(importlib.import_module(self.module), self.name)
        except (ImportError, AttributeError):
            return None
        return kind(parameters, **self.options)  # type: ignore[no-any-return]

    def gap(self) -> float | None:
        """How far from the optimum it ends; None where it is not there."""
        problem = Quadratic(self.free)
        optimizer = self.made(problem.parameters())
        if optimizer is None:
            return None
        switches = hasattr(optimizer, "train")  # schedule-free ones have two states
        if switches:
            optimizer.train()
        problem.settle(optimizer, self.steps, self.decades, noise=self.noise)
        if switches:
            optimizer.eval()
        decay = 0.0 if self.name.startswith("AdamW") else self.options.get("weight_decay", 0.0)
        return float((problem.rows.detach() - problem.optimum(decay)).abs().max())


_sgd = partial(Ending, "SGD", within=1e-10, steps=1500, decades=0, free=True)
_BETAS = {"lr": 0.1, "betas": (0.8, 0.99)}
_rms = partial(Ending, "RMSprop", steps=2000)
_free = partial(Ending, module="schedulefree", steps=2500, decades=0)

ENDING = [
    _sgd({"lr": 0.1}),
    _sgd({"lr": 0.1, "momentum": 0.9}),
    _sgd({"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    _sgd({"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    _sgd({"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    _sgd({"lr": 0.1, "momentum": 0.9, "maximize": True}),
    Ending("Adam", _BETAS),
    Ending("Adam", {**_BETAS, "amsgrad": True}),
    Ending("Adam", {**_BETAS, "weight_decay": 0.1}),
    Ending("Adam", {**_BETAS, "maximize": True}),
    Ending("AdamW", {**_BETAS, "weight_decay": 0.0}),
    Ending("NAdam", _BETAS),
    Ending("NAdam", {**_BETAS, "weight_decay": 0.1}),
    Ending("RAdam", _BETAS),
    Ending("Adamax", _BETAS),
    _rms({"lr": 0.1, "alpha": 0.99}),
    _rms({"lr": 0.01, "alpha": 0.9, "momentum": 0.9}),
    _rms({"lr": 0.1, "alpha": 0.9, "centered": True}, noise=0.1),
    Ending("Adagrad", {"lr": 0.5}, decades=0),
    Ending("Adagrad", {"lr": 0.5, "lr_decay": 1e-4}, decades=0),
    Ending("Adafactor", {"lr": 0.05, "weight_decay": 0.0}, within=2e-3, steps=2000, decades=2),
    Ending(
        "Adafactor",
        {"lr": 0.05, "relative_step": False, "scale_parameter": False},
        "transformers.optimization",
        within=1e-9,
        steps=2000,
    ),
    Ending("Lion", {"lr": 0.05, "betas": (0.9, 0.95)}, "timm.optim", within=1e-6, steps=4000, decades=6),
    Ending("Prodigy", {"lr": 1.0, "d0": 0.1}, "prodigyopt", within=1e-12, steps=2000),
    _free("SGDScheduleFree", {"lr": 0.3, "momentum": 0.9, "r": 8.0}, within=1e-11),
    _free(
        "SGDScheduleFree", {"lr": 0.3, "momentum": 0.5, "r": 8.0, "warmup_steps": 10, "foreach": False}, within=1e-11
    ),
    _free("AdamWScheduleFree", {"lr": 0.05, "betas": (0.9, 0.99), "r": 8.0}, within=2e-4),
    _free("RAdamScheduleFree", {"lr": 0.05, "betas": (0.9, 0.99), "r": 8.0}, within=2e-4),
]


class Lomo(optim.SGD):
    """Named as one that steps during the backward pass."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing is left to be done."""


class ClosedSAM(optim.SGD):
    """Two phases, and no optimizer inside to be seen."""

    def first_step(self) -> None: ...

    def second_step(self) -> None: ...


class CPUOffloadOptimizer(optim.SGD):
    """Named as one that trains copies on the CPU."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """The weights become what the copies are."""


class Rotating(optim.Optimizer):
    """An optimizer of somebody's own, with a step of its own."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * parameter.grad.roll(1))


#: Whose optimizer → what makes it; `attach` refuses these, or warns of what its pull does not reach.
OTHERS: dict[str, Callable[[Any], Optimizer]] = {
    "LBFGS": optim.LBFGS,
    "LOMO, AdaLOMO": lambda parameters: Lomo(parameters, lr=0.1),
    "a SAM that shows no base_optimizer": lambda parameters: ClosedSAM(parameters, lr=0.1),
    "torchao's CPUOffloadOptimizer": lambda parameters: CPUOffloadOptimizer(parameters, lr=0.1),
    "Muon": lambda parameters: optim.Muon(parameters, lr=0.1),
    "Rprop": optim.Rprop,
    "one that is not known": lambda parameters: Rotating(parameters, lr=0.1),
}

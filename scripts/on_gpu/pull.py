"""The pull of `Anchor.attach` in every form of torch's optimizers: it must end at the optimum of the penalized loss.

The problem is `½ Σ h (θ − c)²`, whose penalized optimum is `(h c + 2 λ Ω θ*) / (h + 2 λ Ω)`, with `2 λ Ω` over seven
decades and some weights free. SGD ends there at a constant rate, Adam and AdamW (without decay) as their rate falls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim

from forgetless import Anchor, Importance
from scripts.on_gpu.checking import Check, Failed, Figures, NotRun, Setting

TOLERANCE = 1e-5  # `max |θ − optimum|`, in float32, of values of about 1; a CPU comes within 1e-6
STEPS = {"SGD": 600, "Adam": 1200, "AdamW": 1200}
LAG = 1e-4  # between two forms of one optimizer after a few steps of 0.1; capturable ones round 1 − β₂ᵗ in float32


class Quadratic(nn.Module):
    """The problem, its anchor, and where training must end."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        draw = partial(torch.randn, 256, generator=generator)
        self.theta = nn.Parameter(draw().to(device, dtype))
        self.center, self.curvature = draw().to(device), (0.5 + draw().sigmoid()).to(device)
        self.omega = torch.logspace(-3, 4, 256).to(device)
        self.omega[::16] = 0
        self.start = self.theta.detach().float().clone()

    def anchor(self, strength: float = 1.0) -> Anchor:
        """At the start."""
        return Anchor(self, Importance({"theta": self.omega}, 1.0), strength)

    def optimum(self, strength: float = 1.0) -> Tensor:
        """Where the gradients of loss and penalty balance."""
        pull = 2 * strength * self.omega
        return (self.curvature * self.center + pull * self.start) / (self.curvature + pull)

    @torch.no_grad()
    def differentiate(self) -> None:
        """Put the gradient of the loss into the parameter, in place once it has one."""
        gradient = (self.curvature * (self.theta.float() - self.center)).to(self.theta.dtype)
        if self.theta.grad is None:
            self.theta.grad = gradient
        else:
            self.theta.grad.copy_(gradient)


def optimizer_of(name: str, problem: nn.Module, form: str) -> optim.Optimizer:
    """An optimizer in one form; `foreach` is off unless it is the form.

    Raises:
        NotRun: torch has no such form here.
    """
    device = next(problem.parameters()).device
    if "capturable" in form and "fused" not in form and device.type == "cpu":
        raise NotRun("torch has capturable optimizers on accelerators only")
    options: dict[str, Any] = {"SGD": {"lr": 0.1, "momentum": 0.9}}.get(name, {"lr": 0.1, "betas": (0.8, 0.99)})
    if name == "AdamW":
        options["weight_decay"] = 0.0
    for word in form.split("+"):
        options |= {
            "for-loop": {"foreach": False},
            "foreach": {"foreach": True},
            "fused": {"fused": True, "foreach": None},
            "capturable": {"capturable": True},
            "tensor lr": {"lr": torch.tensor(options["lr"], device=device)},
        }[word]
    try:
        return getattr(optim, name)(problem.parameters(), **options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise NotRun(f"torch refuses {name} in this form: {error}") from error


def rate(name: str, initial: float, step: int) -> float:
    """The learning rate: constant for SGD, else constant at first and then down eight decades."""
    return initial if name == "SGD" else initial * 10 ** (-8 * max(0.0, step / STEPS[name] - 0.3) / 0.7)


def _set(optimizer: optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def _ended(problem: Quadratic) -> Figures:
    gap = float((problem.theta.detach() - problem.optimum()).abs().max())
    figures = {"max |θ − optimum|": gap, "tolerance": TOLERANCE}
    if not gap <= TOLERANCE:
        raise Failed("does not end at the optimum of the penalized loss", figures)
    return figures


def fixed_point(setting: Setting, name: str, form: str, compiled: bool = False) -> Figures:
    """Train to the end, eagerly."""
    problem = Quadratic(setting.device)
    optimizer = optimizer_of(name, problem, form)
    problem.anchor().attach(optimizer)
    take: Callable[[], Any] = torch.compile(optimizer.step) if compiled else optimizer.step
    for step in range(STEPS[name]):
        _set(optimizer, rate(name, 0.1, step))
        problem.differentiate()
        try:
            take()
        except Exception as error:
            if compiled and step == 0 and not _compiles(setting):
                raise NotRun("torch.compile does not work here") from error
            raise
    return _ended(problem)


def _compiles(setting: Setting) -> bool:
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=setting.device))
    except Exception:
        return False
    return True


def same_steps(setting: Setting, name: str, form: str) -> Figures:
    """Twenty steps in a form and as a for-loop lead to the same weights."""
    ends = []
    for each in ("for-loop", form):
        problem = Quadratic(setting.device)
        optimizer = optimizer_of(name, problem, each)
        problem.anchor().attach(optimizer)
        for _ in range(20):
            problem.differentiate()
            optimizer.step()
        ends.append(problem.theta.detach())
    gap = float((ends[1] - ends[0]).abs().max())
    if not gap <= LAG:
        raise Failed("the forms differ", {"max difference": gap})
    return {"max difference": gap}


def captured(setting: Setting, name: str, form: str, warm: int = 3) -> Figures:
    """Gradient, step and pull in one CUDA graph after `warm` steps outside it, replayed to the end."""
    setting.need_cuda("a CUDA graph")
    problem = Quadratic(setting.device)
    optimizer = optimizer_of(name, problem, form)
    problem.anchor().attach(optimizer)
    graph = _graph(problem, optimizer, warm)
    for step in range(STEPS[name]):
        _set(optimizer, rate(name, 0.1, step))
        graph.replay()
    return _ended(problem)


def _graph(problem: Quadratic, optimizer: optim.Optimizer, warm: int) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm):
            problem.differentiate()
            optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        problem.differentiate()
        optimizer.step()
    return graph


def captured_then_changed(setting: Setting) -> Figures:
    """A strength set after the capture: a replay runs no Python, so it can only be followed from the device."""
    setting.need_cuda("a CUDA graph")
    problem = Quadratic(setting.device)
    optimizer = optimizer_of("SGD", problem, "for-loop")
    anchor = problem.anchor()
    anchor.attach(optimizer)
    graph = _graph(problem, optimizer, 3)
    anchor.strength = 100.0
    for _ in range(STEPS["SGD"]):
        graph.replay()
    gap = float((problem.theta.detach() - problem.optimum(100.0)).abs().max())
    return {"followed": gap <= TOLERANCE}


def scaled(setting: Setting, name: str, form: str) -> Figures:
    """Under GradScaler a step whose gradients overflow moves nothing; the others are those of a run without it."""
    problem, plain = Quadratic(setting.device), Quadratic(setting.device)
    optimizer, beside = optimizer_of(name, problem, form), optimizer_of(name, plain, "for-loop")
    problem.anchor().attach(optimizer)
    plain.anchor().attach(beside)
    scaler = torch.amp.GradScaler(setting.device.type, init_scale=1024.0)
    moved = 0.0
    for step in range(12):
        # The first as well, when there is no state yet; torch's fused SGD then uses a buffer that it never set.
        skipped = step in ((5, 6) if name == "SGD" else (0, 5, 6))
        before = problem.theta.detach().clone()
        problem.theta.grad = None
        loss = (problem.curvature * (problem.theta - problem.center).square()).sum() / 2
        scaler.scale(loss).backward()
        if skipped:
            problem.theta.grad[3] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        if skipped:
            moved = max(moved, float((problem.theta.detach() - before).abs().max()))
            continue
        plain.differentiate()
        beside.step()
    gap = float((problem.theta.detach() - plain.theta.detach()).abs().max())
    figures = {"moved in skipped steps": moved, "max difference": gap}
    if moved or not gap <= LAG:
        raise Failed("a skipped step moved weights" if moved else "differs from the run without a scaler", figures)
    return figures


def half(setting: Setting, dtype: torch.dtype, form: str) -> Figures:
    """Weights kept in 16 bits, firmly held: they stay at θ* to the last bit where Ω is large."""
    problem = Quadratic(setting.device, dtype)
    optimizer = optimizer_of("AdamW", problem, form)
    problem.anchor(strength=1e8).attach(optimizer)
    for _ in range(50):
        problem.differentiate()
        optimizer.step()
    firm = problem.omega > 1
    left = float((problem.theta.detach().float() - problem.start)[firm].abs().max())
    if left or not bool(torch.isfinite(problem.theta).all()):
        raise Failed("firmly held weights moved", {"max |θ − θ*|": left})
    return {"max |θ − θ*|": left}


def _forms() -> list[Check]:
    checks = []
    for name in ("SGD", "Adam", "AdamW"):
        forms = ["for-loop", "foreach", "fused"]
        forms += (
            [] if name == "SGD" else ["capturable", "foreach+capturable", "fused+capturable", "capturable+tensor lr"]
        )
        for form in forms:
            checks.append(Check(f"fixed point, {name}, {form}", partial(fixed_point, name=name, form=form)))
            if form != "for-loop":
                checks.append(Check(f"same steps, {name}, {form}", partial(same_steps, name=name, form=form)))
        checks.append(Check(f"GradScaler, {name}, fused, skipped steps", partial(scaled, name=name, form="fused")))
    return checks  # fmt: skip


CHECKS = [
    *_forms(),
    Check("GradScaler, AdamW, foreach, skipped steps", partial(scaled, name="AdamW", form="foreach")),
    *(
        Check(f"firmly held, AdamW, {form}, weights in {title}", partial(half, dtype=dtype, form=form))
        for title, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16))
        for form in ("foreach", "fused")
    ),
]

# Compiling takes its time, so these come late.
COMPILED = [
    Check("fixed point, SGD, compiled step", partial(fixed_point, name="SGD", form="foreach", compiled=True), True),
    Check(
        "fixed point, AdamW, compiled step",
        partial(fixed_point, name="AdamW", form="capturable+tensor lr", compiled=True),
        True,
    ),
]

# What may leave CUDA in a state in which later checks fail comes last.
GRAPHS = [
    Check("CUDA graph, SGD", partial(captured, name="SGD", form="for-loop"), True),
    Check("CUDA graph, SGD, foreach", partial(captured, name="SGD", form="foreach"), True),
    *(
        Check(f"CUDA graph, {name}, {form}", partial(captured, name=name, form=f"{form}+capturable+tensor lr"), True)
        for name in ("Adam", "AdamW")
        for form in ("for-loop", "foreach", "fused")
    ),
    Check("CUDA graph, whether a strength set after the capture is followed", captured_then_changed, True),
    Check("CUDA graph, captured at the tenth step", partial(captured, name="SGD", form="for-loop", warm=9), True),
]

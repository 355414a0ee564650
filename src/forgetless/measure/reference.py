"""The reference implementation: every quantity again, one sample at a time, by plain autograd and nothing else.

Shares no code with the kernels, the engine or the estimators. Use it to check a fast result, or to read what a quantity
is. The model must be in eval mode already, and sums are in the parameters' dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.model import batches, documents
from forgetless.model.masks import Mask
from forgetless.model.outputs import Forward, Output, Select
from forgetless.model.parameters import trainable


def mas(
    model: nn.Module,
    data: Any,
    *,
    form: Literal["norm", "vector"] = "norm",
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
    exclude: str | Iterable[str] = (),
) -> Importance:
    """Global MAS by its definition, takes what `forgetless.mas` takes.

    Σ_n |∂‖F(x_n; θ)‖² / ∂θ|
    Σ_n √(Σ_o (∂F_o(x_n; θ) / ∂θ)²)
    """
    sums, function = _Sums(model, exclude), Output(output, forward, mask)
    for sample in _samples(data):
        if form == "norm":
            sums.add(gradient.abs() for gradient in sums.gradients(function.squared_norms(model, sample).sum()))
            continue
        values = torch.cat([tensor.flatten() for tensor in function.tensors(model, sample)])
        squares = [torch.zeros_like(parameter) for parameter in sums.parameters]
        for value in values:
            for total, gradient in zip(squares, sums.gradients(value, again=True), strict=True):
                total += gradient.square()
        sums.add(total.sqrt() for total in squares)
    return sums.importance("mas" if form == "norm" else "mas, vector form")


def fisher(
    model: nn.Module,
    data: Any,
    *,
    labels: Literal["sampled", "expected", "empirical"] = "sampled",
    form: Literal["square", "modulus"] = "square",
    seed: int = 0,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
    exclude: str | Iterable[str] = (),
) -> Importance:
    """The diagonal Fisher information by its definition, with the same draws; takes what `forgetless.fisher` takes.

    `Σ_n (∂ Σ_t log p(y_nt | x_n) / ∂θ)²`; "expected" is `Σ_n Σ_t Σ_c p(c | x_n) (∂ log p(c | x_n) / ∂θ)²` at every
    position t. form="modulus" takes first powers in place of squares.
    """
    power = 2 if form == "square" else 1
    sums, function = _Sums(model, exclude), Output(output, forward, mask)
    for n, sample in enumerate(_samples(data)):
        (logits,) = function.tensors(model, sample)
        if logits[0].numel() == 1 or logits.shape[-1] == 1:  # a Bernoulli variable: log(1 − σ(z)), log σ(z)
            z = logits[0].reshape(-1)
            log_p = torch.stack([-nn.functional.softplus(z), -nn.functional.softplus(-z)], 1)
        else:
            log_p = torch.log_softmax(logits[0].reshape(-1, logits.shape[-1]), 1)
        if labels == "expected":
            squares = [torch.zeros_like(parameter) for parameter in sums.parameters]
            for value in log_p.flatten():
                for total, gradient in zip(squares, sums.gradients(value, again=True), strict=True):
                    total += value.detach().exp() * gradient.abs().pow(power)
            sums.add(squares)
            continue
        chosen = []
        given = batches.labels(sample).flatten() if labels == "empirical" else None
        for t, row in enumerate(log_p):
            label = int(given[t]) if given is not None else _drawn(row.detach().exp().tolist(), _uniform(seed, n, t))
            if label != -100:
                chosen.append(row[label])
        known = sum(chosen) if chosen else log_p.sum() * 0
        sums.add(gradient.abs().pow(power) for gradient in sums.gradients(known))
    return sums.importance(f"fisher, {labels} labels" if form == "square" else f"modulus of log p, {labels} labels")


def output_curvature(
    model: nn.Module,
    data: Any,
    *,
    form: Literal["sampled", "exact"] = "sampled",
    seed: int = 0,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
    exclude: str | Iterable[str] = (),
) -> Importance:
    """The curvature of `½‖F‖²` by its definition, with the same signs; takes what `forgetless.output_curvature` takes.

    Σ_n (∂ Σ_o ε_no F_o(x_n; θ) / ∂θ)²,  ε_no = ±1
    Σ_n Σ_o (∂F_o(x_n; θ) / ∂θ)²
    """
    sums, function = _Sums(model, exclude), Output(output, forward, mask)
    for n, sample in enumerate(_samples(data)):
        values = torch.cat([tensor.flatten() for tensor in function.tensors(model, sample)])
        if form == "sampled":
            signed = [-value if _uniform(seed, n, o) < 0.5 else value for o, value in enumerate(values)]
            sums.add(gradient.square() for gradient in sums.gradients(torch.stack(signed).sum()))
            continue
        squares = [torch.zeros_like(parameter) for parameter in sums.parameters]
        for value in values:
            for total, gradient in zip(squares, sums.gradients(value, again=True), strict=True):
                total += gradient.square()
        sums.add(squares)
    return sums.importance(f"output curvature, {form}")


def local_mas(model: nn.Module, data: Any, *, forward: Forward | None = None) -> Importance:
    """Local MAS by its definition: `Σ_n |∂‖F_l(y_ln; θ_l)‖² / ∂θ_l|`, every layer's input y held fixed.

    For networks built of modules alone: a layer is a module that owns parameters, with the batch norm that is called on
    its very result, and with the ReLU called on that; dropout and what only reshapes in between is passed over. A
    network that uses parameters or ReLUs in other ways is beyond this reference.
    """
    sums = _Sums(model, ())
    for sample in _samples(data):
        calls = _calls(model, sample, forward)
        totals = [torch.zeros_like(parameter) for parameter in sums.parameters]
        followed: set[int] = set()
        for k, call in enumerate(calls):
            if k in followed or not list(call.module.parameters()):
                continue
            chain = _chain(calls, k)
            followed |= {j for j in chain if isinstance(calls[j].module, _BATCH_NORMS)}
            values: Any = call.given
            for j in chain:
                values = calls[j].module(*(values if isinstance(values, tuple) else (values,)))
                values = values[0] if isinstance(values, tuple) else values
            for total, gradient in zip(totals, sums.gradients(values.square().sum()), strict=True):
                total += gradient
        sums.add(total.abs() for total in totals)
    return sums.importance("local-mas")


def path(
    model: nn.Module,
    optimizer: Optimizer,
    losses: Iterable[Callable[[], Tensor]],
    *,
    damping: float = 0.1,
    between: Callable[[], Any] = lambda: None,
) -> Importance:
    """SI's path integral by its definition, training as it goes: `ω = −Σ_steps g · Δθ`, a step for each of `losses`.

    `Ω = max(ω, 0) / ((θ_end − θ_start)² + ξ)` with the damping ξ.

    Args:
        model: is trained.
        optimizer: of its parameters.
        losses: called in order, each gives the loss of one step.
        damping: ξ.
        between: called between the backward pass and the step (clipping, say); it does not change g.
    """
    sums = _Sums(model, ())
    start = [parameter.detach().clone() for parameter in sums.parameters]
    work = [torch.zeros_like(parameter) for parameter in sums.parameters]
    for loss in losses:
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in sums.parameters]
        before = [parameter.detach().clone() for parameter in sums.parameters]
        between()
        optimizer.step()
        for total, gradient, now, then in zip(work, gradients, sums.parameters, before, strict=True):
            total -= gradient * (now.detach() - then)
    moved = [(now.detach() - then).square() for now, then in zip(sums.parameters, start, strict=True)]
    sums.add(total.clamp(min=0) / (way + damping) for total, way in zip(work, moved, strict=True))
    return sums.importance("path-integral")


class _Sums:
    """Sums over samples by parameter."""

    def __init__(self, model: nn.Module, exclude: str | Iterable[str]) -> None:
        self._named = trainable(model, exclude)
        self.parameters: list[Tensor] = list(self._named.values())
        self._sums = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._count = 0

    def gradients(self, value: Tensor, again: bool = False) -> list[Tensor]:
        """`∂value/∂θ` of every parameter, zero where it takes no part."""
        found = torch.autograd.grad(value, self.parameters, retain_graph=again, allow_unused=True)
        pairs = zip(found, self.parameters, strict=True)
        return [torch.zeros_like(p) if g is None else g.detach().to_dense() for g, p in pairs]

    def add(self, sample: Iterable[Tensor]) -> None:
        """Take in what one sample adds to every parameter's sum."""
        for total, value in zip(self._sums, sample, strict=True):
            total += value
        self._count += 1

    def importance(self, estimator: str) -> Importance:
        """The result."""
        return Importance(dict(zip(self._named, self._sums, strict=True)), self._count, estimator)


def _samples(data: Any) -> Iterator[Any]:
    """Every sample as a batch of one, without padding where it is a document of a packed row."""
    for batch in batches.of(data, 1):
        found = []
        for piece, numbers in documents.unpacked(batch, full=1):
            own = range(batches.size(piece))
            found += [(n if numbers is None else int(numbers[n]), batches.rows(piece, n, n + 1)) for n in own]
        yield from (sample for _, sample in sorted(found, key=lambda each: each[0]))


def _uniform(seed: int, n: int, t: int) -> float:
    """The number in (0, 1) that decides position t of sample n: SplitMix64 of (seed, n, t), in plain integers."""
    key = 0
    for step, index in enumerate((0, n, t)):
        key = (seed if step == 0 else key) + (index + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        key = (key ^ key >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        key ^= key >> 31
    return ((key >> 11) + 0.5) / 2.0**53


def _drawn(probabilities: list[float], level: float) -> int:
    """The first class at which the summed probabilities reach the level."""
    for label in range(len(probabilities)):
        if math.fsum(probabilities[: label + 1]) >= level:
            return label
    return len(probabilities) - 1


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_PASSED_OVER = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Flatten, nn.Unflatten)
_WHOLE = (nn.RNNBase, nn.RNNCellBase)  # layers that own parameters and compute something between them


@dataclass
class _Call:
    """One call of a module: what it was given, and the object that it gave."""

    module: nn.Module
    given: tuple[Any, ...]
    read: Any
    result: Any
    ends: list[Any] = field(default_factory=list)  # keeps objects alive, so that no two have the same id


def _calls(model: nn.Module, sample: Any, forward: Forward | None) -> list[_Call]:
    """The calls of all innermost modules, in order, by forward hooks."""
    calls: list[_Call] = []
    handles = []
    for module in model.modules():
        if next(module.children(), None) is None or isinstance(module, _WHOLE):

            def hook(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
                copies = tuple(x.detach().clone() if isinstance(x, Tensor) else x for x in given)
                calls.append(_Call(module, copies, given[0], result))

            handles.append(module.register_forward_hook(hook))
        elif any(True for _ in module.parameters(recurse=False)):
            raise ForgetlessError(f"{type(module).__name__} owns parameters and modules: beyond this reference.")
    try:
        with torch.no_grad():
            inputs = batches.inputs(sample)
            if forward is not None:
                forward(model, sample)
            elif isinstance(inputs, dict):
                model(**inputs)
            else:
                model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _chain(calls: list[_Call], k: int) -> list[int]:
    """The calls that make up the layer that begins with call k: itself, a batch norm, a ReLU, what lies between."""
    chain, tail, normed = [k], k, isinstance(calls[k].module, _BATCH_NORMS)
    pending: list[int] = []
    while True:
        readers = [j for j in range(tail + 1, len(calls)) if calls[j].read is calls[tail].result]
        if not readers:
            return chain
        tail = readers[0]
        module = calls[tail].module
        pending.append(tail)
        if isinstance(module, nn.ReLU):
            return chain + pending
        if isinstance(module, _BATCH_NORMS) and not normed:
            chain, pending, normed = chain + pending, [], True
        elif not isinstance(module, _PASSED_OVER):
            return chain

"""One ordinary backward pass that leaves `Σ_n |g_n|` of every parameter instead of `Σ_n g_n`.

While a `Tape` is active, every torch operation that consumes a tracked parameter is looked up in `kernels.RULES`. Where
a rule holds, the operation runs as it is, but its backward hands the parameter's *term* (its per-sample gradients in
compact form) to the parameter's *slot* and computes only the gradient of the activations. The slot is a node of the
autograd graph on which every use of the parameter hangs: autograd itself runs it after the last of them, so tied and
reused parameters sum over their uses inside a sample, and a term is freed as soon as it was used.

Operations without a rule are never passed silently: their parameters are reported in `Tape.unruled`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from forgetless import data
from forgetless.kernels import RULES, Call, Term, combined_modulus_sum

Deposit = Callable[[str, Tensor], None]


class Tape(TorchFunctionMode):
    """Makes the backward pass of what runs inside deposit `Σ_n |g_n|^power` of every tracked parameter.

    Args:
        parameters: the tracked parameters by name.
        samples: how many samples N the batch holds.
        power: 1 for the modulus (MAS), 2 for the square (Fisher).
        deposit: called as `deposit(name, Σ_n |g_n|^power)` once per parameter during the backward pass.

    Attributes:
        unruled: name → the operation that no rule holds for. Such a parameter's deposits mean nothing.
        used: names of the parameters that some operation consumed.
    """

    def __init__(self, parameters: Mapping[str, Tensor], samples: int, power: int, deposit: Deposit) -> None:
        super().__init__()
        self.samples = samples
        self.unruled: dict[str, str] = {}
        self.used: set[str] = set()
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._slots: dict[str, tuple[Tensor, list[Term]]] = {}
        self._power = power
        self._deposit = deposit

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func`, by its rule where it has one and consumes a tracked parameter."""
        kwargs = kwargs or {}
        names = [self._names[id(item)] for item in data.tensors((args, kwargs)) if id(item) in self._names]
        if not names and func not in _BACKWARD:
            return func(*args, **kwargs)
        body = _body(func)
        if body is not None:  # a Python function: the operations inside it must stay visible
            with self:
                return body(*args, **kwargs)
        rule = RULES.get(func)
        call = rule(self.samples, *args, **kwargs) if rule is not None else None
        if call is not None and id(call.input) not in self._names:
            return self._use(call)
        result = func(*args, **kwargs)
        if any(item.requires_grad for item in data.tensors(result)):
            for name in names:
                self.unruled.setdefault(name, getattr(func, "__name__", str(func)))
        return result

    def _use(self, call: Call) -> Tensor:
        slots: list[Tensor | None] = []
        ledgers: list[list[Term] | None] = []
        for parameter in call.parameters:
            name = None if parameter is None else self._names.get(id(parameter))
            slot, ledger = (parameter, None) if name is None else self._slot(name, parameter)
            slots.append(slot)
            ledgers.append(ledger)
        return _Use.apply(call, ledgers, call.input, *slots)  # type: ignore[no-any-return]

    def _slot(self, name: str, parameter: Tensor | None) -> tuple[Tensor, list[Term]]:
        if name not in self._slots:
            self.used.add(name)
            terms: list[Term] = []
            slot = _Slot.apply(parameter, terms, self._power, lambda total: self._deposit(name, total))
            self._slots[name] = (slot, terms)
        return self._slots[name]


class _Slot(torch.autograd.Function):
    """The node that every use of one parameter hangs on; it runs when the last of them has."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, terms: list[Term], power: int, settle: Callable[[Tensor], None]) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.terms, ctx.power, ctx.settle = terms, power, settle
        return parameter.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None, None, None]:
        if ctx.terms:
            with torch._C.DisableTorchFunction():
                ctx.settle(combined_modulus_sum(ctx.terms, ctx.power))
            ctx.terms.clear()
        return None, None, None, None


class _Use(torch.autograd.Function):
    """One operation on one or more parameters: terms to their slots, the ordinary gradient to the input."""

    @staticmethod
    def forward(
        ctx: Any, call: Call, ledgers: list[list[Term] | None], x: Tensor, *parameters: Tensor | None
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.call, ctx.ledgers = call, ledgers
        ctx.save_for_backward(x, *parameters)
        return call.forward(x, *parameters)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (d,) = gradients
        x, *parameters = ctx.saved_tensors
        nothing = (None,) * len(parameters)
        if d is None:
            return None, None, None, *nothing
        with torch._C.DisableTorchFunction():
            for term, ledger in zip(ctx.call.terms, ctx.ledgers, strict=True):
                if ledger is not None:
                    ledger.append(term(d, x))
            needed = ctx.needs_input_grad[2]
            dx = ctx.call.input_gradient(d, x, *parameters) if needed else None
        return None, None, dx, *nothing


# The mode stays on while these run: a checkpointed block runs forward again inside.
_BACKWARD = (Tensor.backward, torch.autograd.backward)
_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@cache
def _body(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The body of one of torch's Python functions (`F.layer_norm`, …); `None` for a built-in one.

    Such a function hands itself to the mode instead of running, and inside the mode its own calls would be hidden. The
    copy made here has the same code but never hands itself over.
    """
    if not isinstance(function, types.FunctionType) or not any(c in function.__globals__ for c in _CHECKS):
        return None
    never = dict.fromkeys(_CHECKS, lambda *_: False)
    scope = {**function.__globals__, **never}
    body = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body

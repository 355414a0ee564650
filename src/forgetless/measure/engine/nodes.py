"""The tape's own nodes of the autograd graph: where gradients are taken as they pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.kernels import Call, Term


class Slot(torch.autograd.Function):
    """The node that every use of one parameter hangs on; it runs when the last of them has."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, settle: Callable[[], None]) -> Tensor:
        """The parameter as it is, on its own node."""
        ctx.set_materialize_grads(False)
        ctx.settle = settle
        return parameter.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:
        """Every use has run: settle."""
        with torch._C.DisableTorchFunction():
            ctx.settle()
        return None, None


class Use(torch.autograd.Function):
    """One operation on one or more parameters: terms to their ledgers, the ordinary gradient to the input."""

    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        ledgers: list[list[Term] | None],
        values: list[Tensor | None],
        x: Tensor,
        *slots: Tensor,
    ) -> Tensor:
        """The operation as it runs, on detached parameters."""
        ctx.set_materialize_grads(False)
        ctx.call, ctx.ledgers, ctx.values, ctx.slots = call, ledgers, values, len(slots)
        ctx.save_for_backward(x)
        y = call.forward(x, *values)
        # A view that is made in here may not be written to afterwards: the same memory, and no view.
        return y if y._base is None else torch.ops.aten._unsafe_view(y, y.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        """Hand the terms over; give the gradient of the input."""
        (d,) = gradients
        (x,) = ctx.saved_tensors
        dx = None
        if d is not None:
            with torch._C.DisableTorchFunction():
                for term, ledger in zip(ctx.call.terms, ctx.ledgers, strict=True):
                    if ledger is not None:
                        ledger.append(term(d, x))
                if ctx.needs_input_grad[3]:
                    dx = ctx.call.input_gradient(d, x, *ctx.values)
        return None, None, None, dx, *(None,) * ctx.slots


class Spread(torch.autograd.Function):
    """Virtual copies of a derived tensor, one a row; the gradients of the copies become its term."""

    @staticmethod
    def forward(ctx: Any, copies: Tensor, settle: Callable[[Tensor], None], *slots: Tensor) -> Tensor:
        """The copies as they are."""
        ctx.set_materialize_grads(False)
        ctx.settle, ctx.slots = settle, len(slots)
        return copies.view_as(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, ...]:
        """Hand the gradient of the copies over."""
        if gradients[0] is not None:
            with torch._C.DisableTorchFunction():
                ctx.settle(gradients[0])
        return None, None, *(None,) * ctx.slots

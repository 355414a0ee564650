"""What a rule is: how one torch operation leaves per-sample gradients of its parameters.

A rule looks at one call of its operation. If the call is one it knows (the sample axis first, no training mode, …) it
returns a `Call`; if not, `None`, and the parameters of that call are measured one sample at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from forgetless.kernels.terms import Term


@dataclass(frozen=True)
class Call:
    """One call of an operation, taken apart. Tensors are in the order (input, *parameters) throughout.

    Attributes:
        input: the activations x, sample axis first.
        parameters: weight, bias, …; `None` where the call has none.
        forward: (x, *parameters) → the operation's output.
        input_gradient: (d, x, *parameters) → ∂/∂x, d being the gradient of the output.
        terms: one per parameter, (d, x) → its `Term`.
    """

    input: Tensor
    parameters: tuple[Tensor | None, ...]
    forward: Callable[..., Tensor]
    input_gradient: Callable[..., Tensor | None]
    terms: tuple[Callable[[Tensor, Tensor], Term], ...]


Rule = Callable[..., Call | None]  # (samples, *the operation's own arguments) → Call | None
Operation = Callable[..., Any]

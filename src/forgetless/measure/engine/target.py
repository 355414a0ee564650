"""`Target`: what is differentiated by what. One object from the door down to the tape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.model.batches import tensors
from forgetless.model.restored import one_pass

Scalars = Callable[[nn.Module, Any], Tensor]  # (module, batch) → one scalar per sample, [N]


@dataclass(frozen=True)
class Quantity:
    """What is summed over samples: `Σ_n |g_n|^power`, g_n the gradient of sample n's scalar.

    Attributes:
        scalars: (module, batch) → `[N]`, the scalar of each sample whose gradient is measured.
        power: 1 for `|g|`, 2 for `g²`.
        several: the scalars are `[N, K]`, and the powers of each one's gradient add up: `Σ_n Σ_k |g_nk|^power`.
        root: the square root of each sample's sum is added instead: `Σ_n √(Σ_k |g_nk|^power)`.
    """

    scalars: Scalars
    power: int = 1
    several: bool = False
    root: bool = False


@dataclass(frozen=True)
class Target:
    """One scalar per sample of a module, and the parameters by which it is differentiated.

    Attributes:
        module: the network; in eval mode while it is measured.
        parameters: name → parameter, as the network's operations meet it.
        scalars: (module, batch) → one scalar per sample, `[N]`.
        power: of the modulus: 1 or 2.
    """

    module: nn.Module
    parameters: Mapping[str, Tensor]
    scalars: Scalars
    power: int = 1

    def only(self, names: Iterable[str]) -> Target:
        """The same by some of the parameters."""
        wanted = set(names)
        return replace(self, parameters={name: p for name, p in self.parameters.items() if name in wanted})

    def values(self, batch: Any) -> Tensor:
        """The scalars of a batch, `[N]`, with their graph.

        Raises:
            ForgetlessError: the model writes to the batch, which is measured more than once.
        """
        given = [(tensor, tensor._version) for tensor in tensors(batch) if not tensor.is_inference()]
        with one_pass(self.module):
            found = self.scalars(self.module, batch)
        if any(tensor._version != version for tensor, version in given):
            raise ForgetlessError(
                f"{type(self.module).__name__} writes to its inputs (x.mul_(…), x[…] = …, inplace=True on the first "
                "layer), so a second pass would see others; let it write to a copy, or clone them in forward=."
            )
        return found

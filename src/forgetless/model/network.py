"""`Network`: what a model is, resolved once at the door: unwrapped, its processes, its parameters by clean names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.model.parameters import canonical, trainable, unwrapped
from forgetless.model.ranks import Ranks, ranks_of
from forgetless.model.sharding import resharded


@dataclass(frozen=True)
class Network:
    """A model that can be measured.

    Attributes:
        module: the model without `torch.compile` and DDP around it.
        ranks: the processes that share it; None if this process has it alone.
        parameters: what is measured: the trainable parameters that are not excluded, by canonical name. Of a model that
            FSDP2 has sharded these are the shards, as its optimizer holds them.
        excluded: the patterns of the parameters that are left out.
    """

    module: nn.Module
    ranks: Ranks | None
    parameters: dict[str, nn.Parameter]
    excluded: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, exclude: str | Iterable[str] = ()) -> Network:
        """Resolve a model.

        Args:
            model: any module, perhaps compiled, in DDP or sharded by `fully_shard`.
            exclude: names, module names or patterns of parameters to leave out.

        Raises:
            ForgetlessError: not a module, tensors on several devices or without values, a pattern that matches nothing,
                nothing left to measure, or a kind of sharding that cannot be followed.
        """
        if not isinstance(model, nn.Module):
            raise ForgetlessError(f"a model is a torch.nn.Module, not {type(model).__name__}.")
        excluded = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        _refuse_devices(model)
        ranks = ranks_of(model)
        module = resharded(unwrapped(model))
        parameters = trainable(module, excluded)
        if not parameters:
            raise ForgetlessError(
                f"{type(module).__name__} has no trainable parameter to measure; "
                "unfreeze some (requires_grad_(True)) or exclude fewer."
            )
        return cls(module, ranks, parameters, excluded)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.parameters.values())).device

    @contextlib.contextmanager
    def followed(self) -> Iterator[dict[str, Tensor]]:
        """Inside, the parameters by name as operations meet them: FSDP2's as gathered from all shards."""
        if self.ranks is None or not self.ranks.sharded:
            yield dict(self.parameters)
            return
        with self.ranks.following(self.excluded) as gathered:
            yield gathered


def _refuse_devices(model: nn.Module) -> None:
    found: dict[torch.device, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.setdefault(tensor.device, canonical(name))
    if len(found) > 1:
        listed = ", ".join(f"{name!r} on {device}" for device, name in found.items())
        raise ForgetlessError(f"the model is on several devices: {listed}; move it to one (model.to(device)).")
    for device, name in found.items():
        if device.type == "meta":
            raise ForgetlessError(f"{name!r} is on the meta device and has no values; load the model's weights first.")

"""`Network`: what a model is, resolved once at the door: unwrapped, its processes, its parameters by clean names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.model.admission import (
    refuse_kinds,
    refuse_packed,
    refuse_places,
    unfreezing,
    warn_fresh,
    warn_merged,
    warn_quantized,
)
from forgetless.model.parameters import patterns_of, trainable, unwrapped
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
                nothing left to measure, a kind of sharding that cannot be followed, or weights of a kind that has no
                gradient per sample (`forgetless.model.admission`).
        """
        if not isinstance(model, nn.Module):
            called = " (give the network itself; forward= takes a function)" if callable(model) else ""
            raise ForgetlessError(f"a model is a torch.nn.Module, not {type(model).__name__}{called}.")
        excluded = tuple(patterns_of(exclude))
        refuse_places(model)
        ranks = ranks_of(model)
        module = resharded(unwrapped(model))
        parameters = trainable(module, excluded)
        if not parameters:
            fewer = ", or exclude fewer" if excluded else ""
            raise ForgetlessError(
                f"{type(module).__name__} has no trainable parameter to measure: {unfreezing(module)}{fewer}."
            )
        refuse_kinds(parameters)
        refuse_packed(module)
        warn_merged(module)
        warn_fresh(module)
        warn_quantized(module)
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

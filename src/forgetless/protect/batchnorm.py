"""Batch-norm statistics: knowledge that is no parameter, drifts while a network is trained, and is forgotten too.

In training mode a batch-norm layer normalizes by the batch at hand and moves its running mean and variance towards it.
No optimizer steps on them, so no anchor holds them: after fine-tuning, the old inputs meet the new data's statistics.
"""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError
from forgetless.model.parameters import canonical, listing, unwrapped


class FrozenBatchNorm:
    """Layers whose running statistics stand still until `release()`, or the end of a `with` block.

    Attributes:
        names: the layers held.
    """

    def __init__(self, model: nn.Module, layers: dict[str, _NormBase]) -> None:
        self.names = tuple(layers)
        self._model = model
        self._layers = list(layers.values())
        self._handles = [layer.register_forward_pre_hook(_in_eval_mode) for layer in self._layers]
        for layer in self._layers:
            layer.eval()

    def release(self) -> None:
        """Let the layers follow the network's mode again, beginning now; a second time changes nothing."""
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()
        for layer in self._layers if handles else ():
            layer.train(self._model.training)

    def __enter__(self) -> FrozenBatchNorm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def freeze_batchnorm(model: nn.Module) -> FrozenBatchNorm:
    """Keep the running statistics of every batch-norm layer as they are, whatever mode the network is put in.

    The layers normalize by their running mean and variance, as in eval mode, also after `model.train()`; their scale
    and shift still learn. Instance norm with running statistics is held as well; layers without any are left alone.

    Args:
        model: any module; also one wrapped by DDP or `torch.compile`.

    Returns:
        What holds them: `.names`, `.release()`, or a `with` block that ends it.

    Raises:
        ForgetlessError: the model has no layer with running statistics.
    """
    layers = with_statistics(model)
    if not layers:
        raise ForgetlessError(
            f"{type(unwrapped(model)).__name__} has no layer with running statistics, so there is nothing to hold."
        )
    return FrozenBatchNorm(model, layers)


def with_statistics(model: nn.Module) -> dict[str, _NormBase]:
    """The layers that keep a running mean and variance, by name."""
    return {
        canonical(name): module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }


def _in_eval_mode(layer: nn.Module, inputs: Any) -> None:
    if layer.training:
        layer.eval()


class Watch:
    """Warns once, after an optimizer's step, if running statistics are moving while weights are being held."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._layers = with_statistics(model)
        self._handle: RemovableHandle | None = optimizer.register_step_post_hook(self) if self._layers else None

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Called by the optimizer when its step is done."""
        moving = [name for name, layer in self._layers.items() if layer.training and layer.momentum != 0]
        if moving:
            self._layers = {}  # once; a hook may not remove itself while the optimizer calls its hooks
            warnings.warn(
                f"the running statistics of {listing(moving, most=2)} are moving, and an anchor does not hold them: "
                "what the network knew is forgotten through them too; call forgetless.freeze_batchnorm(model).",
                stacklevel=3,
            )

    def remove(self) -> None:
        """Watch no more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

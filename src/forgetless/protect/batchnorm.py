"""Batch-norm statistics: they are no parameters, drift while a network is trained, and cost accuracy on the old data.

In training mode a batch-norm layer normalizes by the batch at hand and moves its running mean and variance towards it.
No optimizer steps on them and no anchor protects them: after fine-tuning, old inputs meet the new data's statistics.
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
        names: the layers.
    """

    def __init__(self, model: nn.Module, layers: dict[str, _NormBase]) -> None:
        self.names = tuple(layers)
        self._model = model
        self._layers = list(layers.values())
        for layer in self._layers:
            _freeze(layer)

    def release(self) -> None:
        """Let the layers follow the network's mode again, beginning now; a second time changes nothing."""
        layers, self._layers = self._layers, []
        for layer in layers:
            if _unfreeze(layer):
                layer.train(self._model.training)

    def __enter__(self) -> FrozenBatchNorm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def freeze_batchnorm(model: nn.Module) -> FrozenBatchNorm:
    """Keep the running statistics of every batch-norm layer as they are, whatever mode the network is put in.

    The layers stay in eval mode, also after `model.train()`, and normalize by their running mean and variance; their
    scale and shift still learn. So do layers of instance norm with running statistics; those without any are left
    alone. It is the layers' own mode that is kept, so that it makes no difference whether the model is compiled,
    exported, wrapped or copied before or after. Setting a layer's `training` by hand undoes it.

    Args:
        model: any module; also one wrapped by DDP or `torch.compile`.

    Returns:
        The frozen layers: `.names`, `.release()`, or a `with` block that ends it.

    Raises:
        ForgetlessError: the model has no layer with running statistics.
    """
    layers = with_statistics(model)
    if not layers:
        raise ForgetlessError(
            f"{type(unwrapped(model)).__name__} has no layer with running statistics, so there is nothing to freeze."
        )
    return FrozenBatchNorm(model, layers)


def with_statistics(model: nn.Module) -> dict[str, _NormBase]:
    """The layers that keep a running mean and variance, by name."""
    return {
        canonical(name): module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }


class _StaysInEval:
    """A frozen layer's `train`: it does nothing. An attribute of the layer, so that it is copied and saved with it.

    Attributes:
        times: how often the layer is frozen; the last release lets it go.
    """

    def __init__(self, layer: _NormBase) -> None:
        self.layer, self.times = layer, 0

    def __call__(self, mode: bool = True) -> _NormBase:
        return self.layer


def _freeze(layer: _NormBase) -> None:
    if not isinstance(vars(layer).get("train"), _StaysInEval):
        layer.eval()
        layer.train = _StaysInEval(layer)  # type: ignore[method-assign]
    vars(layer)["train"].times += 1


def _unfreeze(layer: _NormBase) -> bool:
    """Undo one `_freeze`; whether it was the last."""
    stays = vars(layer).get("train")
    if not isinstance(stays, _StaysInEval):
        return False
    stays.times -= 1
    if stays.times <= 0:
        del layer.train
    return stays.times <= 0


class StatisticsWatch:
    """Warns once, after an optimizer's step, if running statistics move while weights are anchored."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._layers = with_statistics(model)
        self._handle: RemovableHandle | None = optimizer.register_step_post_hook(self) if self._layers else None

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Called by the optimizer when its step is done."""
        moving = [name for name, layer in self._layers.items() if layer.training and layer.momentum != 0]
        if moving:
            self._layers = {}  # once; a hook may not remove itself while the optimizer calls its hooks
            warnings.warn(
                f"the running statistics of {listing(moving, most=2)} are moving, and an anchor does not protect them: "
                "accuracy on the old data is lost through them too; call forgetless.freeze_batchnorm(model).",
                stacklevel=3,
            )

    def remove(self) -> None:
        """Watch no more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

"""A classifier as a `Network`: what it computes before its last layer, the old last layer, and a new one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError, brief
from forgetless.lab.finetuning.loaded import Kind, Loaded, logits
from forgetless.learn.network import Network

OLD, NEW = "old", "new"
_INSIDE = "backbone.network."


class Backbone(nn.Module):
    """Batches → the features that the last layer reads: the model with the identity in that layer's place."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__()
        self.network, self.normalize = loaded.network, loaded.normalize
        self._texts = loaded.kind.reads_texts

    def forward(self, inputs: Any) -> Tensor:
        """Features `[N, features]`."""
        if self._texts:
            return logits(self.network(**inputs))
        return logits(self.network(inputs if self.normalize is None else self.normalize(inputs)))


class Classifier(Network):
    """A person's model with its last layer, and room for another one beside it: `head(task)(backbone(x))`.

    Args:
        loaded: the model.
        same: whether the new labels are the old ones, so that one head serves both.

    Raises:
        ForgetlessError: the last layer with parameters is not linear.
    """

    def __init__(self, loaded: Loaded, *, same: bool) -> None:
        self.name, old = last_layer(loaded)
        super().__init__(Backbone(loaded), pretrained=True)
        self.same = same
        self._has_old = loaded.kind is not Kind.TEXT_ENCODER
        self.heads = nn.ModuleDict({OLD: old})
        self._grown = False

    def take_out(self) -> None:
        """Put the identity in the last layer's place: what is left computes features."""
        self._put(nn.Identity())

    def put_back(self) -> nn.Module:
        """The model with the head for the new labels, or the old one before there is a new one."""
        self._put(self.head(NEW if self._grown else OLD))
        return self._network

    def _put(self, layer: nn.Module) -> None:
        parent, _, own = self.name.rpartition(".")
        setattr(self._network.get_submodule(parent), own, layer)

    @property
    def _network(self) -> nn.Module:
        network = self.backbone.network
        assert isinstance(network, nn.Module)
        return network

    def check(self, inputs: Any, expected: Tensor) -> None:
        """Refuse a model in which something follows the last layer.

        Args:
            inputs: a batch.
            expected: the outputs of the model for it, while it was whole.

        Raises:
            ForgetlessError: the last layer on the features gives something else.
        """
        if not bool(torch.isfinite(expected).all()):
            raise ForgetlessError("the model answers the new data with NaN or Inf; look for them in its weights.")
        with torch.no_grad():
            try:
                features = self.backbone(inputs)
            except Exception as error:  # it looks at the layer, and does not only call it
                raise ForgetlessError(
                    f"the model cannot do without its last layer {self.name!r} ({brief(error)}), so a new head cannot "
                    "take its place; let it do nothing with that layer but call it."
                ) from error
            fits = features.shape == (len(expected), self._old.in_features)
            found = self._old(features) if fits else None
        if found is None or not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
            raise ForgetlessError(
                f"what follows the layer {self.name!r} of the model is part of its answer, so a new head cannot take "
                "its place; choose a model that ends in a linear layer."
            )

    @property
    def has_bias(self) -> bool:
        """Whether the last layer has a bias, which a warm start fits too."""
        return self._old.bias is not None

    @property
    def _old(self) -> nn.Linear:
        head = self.heads[OLD]
        assert isinstance(head, nn.Linear)
        return head

    def grow(self, task: str, outputs: int) -> bool:
        """Make a head for the new labels, unless the old one serves them."""
        self._grown = True
        if self.same:
            return False
        like = self._old.weight
        made = nn.Linear(self._old.in_features, outputs, self._old.bias is not None, like.device, like.dtype)
        self.heads[NEW] = made
        self._old.requires_grad_(False)
        return True

    def head(self, task: str) -> nn.Module:
        """The last layer for `task`, "old" or "new"."""
        return self.heads[OLD if self.same else task]

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it has made room for."""
        return (NEW,) if self._grown else ()

    def renamed(self, name: str) -> str | None:
        """The name here of a parameter of the model; None for one of a last layer that is not trained on."""
        if name.startswith(f"{self.name}."):
            return f"heads.{OLD}.{name.removeprefix(f'{self.name}.')}" if self.same else None
        return _INSIDE + name

    def old_head(self) -> dict[str, Tensor]:
        """The tensors of the old last layer by their names in the model; none where it still serves, or was none."""
        if self.same or not self._has_old:
            return {}
        return {f"{self.name}.{name}": tensor for name, tensor in self._old.state_dict().items()}


def last_layer(loaded: Loaded) -> tuple[str, nn.Linear]:
    """The last layer with parameters, by its name.

    Raises:
        ForgetlessError: it is not linear.
    """
    name, last = "", loaded.network
    for each, module in loaded.network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            name, last = each, module
    if not isinstance(last, nn.Linear) or not name:
        raise ForgetlessError(
            f"{loaded.name} ends in {type(last).__name__} ({name or 'the model itself'}), and not in a linear layer "
            "that could make room for new labels."
        )
    return name, last

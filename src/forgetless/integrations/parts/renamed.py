"""An importance under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from forgetless.measure.importance import Importance, refuse_another
from forgetless.model.parameters import named, within


def of_part(importance: Importance, model: nn.Module) -> Importance:
    """An importance of the model's part (`self.backbone` of a `LightningModule`) under the model's own names.

    As given where a name of it is the model's already, or no part stands out.

    Raises:
        ForgetlessError: it is that of the part with another head, by the names that it has itself; not said of shapes
            under adapters, where a base may be quantized.
    """
    names = named(model)
    if any(name in names for name in importance.sums) or not (prefix := within(importance.sums, names)):
        return importance
    if not any(hasattr(each, "peft_config") for each in model.modules()):
        refuse_another(importance, {name.removeprefix(prefix): each for name, each in names.items()})
    return renamed(importance, {name: prefix + name for name in importance.sums})


def renamed(importance: Importance, names: Mapping[str, str], *, only: bool = False) -> Importance:
    """The same importance with parameters renamed by `names`; of `only` those that are in it."""

    def new(found: Mapping[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): each for name, each in found.items() if name in names or not only}

    confidence = importance.confidence
    if confidence is not None:
        confidence = replace(confidence, squares=new(confidence.squares), half=new(confidence.half))
    unused = tuple(new(dict.fromkeys(importance.unused)))
    return replace(
        importance, sums=new(importance.sums), weights=new(importance.weights), unused=unused, confidence=confidence
    )

"""An importance under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from forgetless.measure.importance import Importance


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

"""A body gives what its function gives, and hands every call inside it to the mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from forgetless.measure.engine.bodies import body_of


class Seen(TorchFunctionMode):
    """Notes the names of what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_the_calls_inside_are_seen_and_the_numbers_are_the_same() -> None:
    x = torch.randn(3, 4)
    body = body_of(functional.normalize)
    assert body is not None
    with Seen() as seen:
        found = body(x, dim=1)
    assert "clamp_min" in seen.names
    assert "normalize" not in seen.names
    assert torch.equal(found, functional.normalize(x, dim=1))


def test_defaults_and_keywords_are_kept() -> None:
    x = torch.randn(3, 4)
    for given in ({}, {"dim": 0}, {"p": 1.0}):
        body = body_of(functional.normalize)
        assert body is not None
        assert torch.equal(body(x, **given), functional.normalize(x, **given))


def test_what_has_no_body_of_its_own_has_none() -> None:
    assert body_of(torch.add) is None
    assert body_of(Tensor.unflatten) is None  # which calls super(), and that is itself again
    assert body_of(lambda x: x) is None

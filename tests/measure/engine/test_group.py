"""One process alone; several are tested where they are started (`tests/model/test_ranks.py`)."""

from __future__ import annotations

import torch

from forgetless.measure.engine.group import Alone, group_of


def test_alone_nobody_is_asked() -> None:
    group = group_of(None)
    assert isinstance(group, Alone)
    assert group.first
    assert list(group.dealt([1, 2])) == [1, 2]
    assert (group.anyone(1), group.anyone(0)) == (True, False)
    assert group.most(1, 2, 3) == (1, 2, 3)
    assert (group.decided(True), group.decided(False)) == (True, False)
    assert group.finite(torch.ones(2))
    assert not group.finite(torch.tensor([1.0, float("nan")]))
    sums = {"a": torch.ones(2)}
    assert group.pooled({"a": torch.zeros(2)}, sums, 3, None) == (sums, 3, None)

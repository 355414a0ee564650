"""The comparison of sums goes through them piece by piece; where the pieces end changes nothing."""

from __future__ import annotations

import pytest
import torch

from forgetless.measure.engine import distance


@pytest.mark.parametrize("elements", [1, 7, 1 << 20])
@pytest.mark.parametrize("shape", [(), (5,), (5, 3), (4, 2, 3, 3)])
def test_distance(elements: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distance, "_COMPARED", elements)
    torch.manual_seed(0)
    expected = torch.randn(shape)
    found = expected + 0.1 * torch.randn(shape)
    if len(shape) == 4:
        found = found.to(memory_format=torch.channels_last)
    by_hand = float((found - expected).abs().max() / expected.abs().max())
    assert distance.distance(found, expected) == pytest.approx(by_hand)
    last = expected.clone()
    last.view(-1)[-1] += 9
    assert distance.distance(last, expected) == pytest.approx(9 / float(expected.abs().max()), rel=1e-5)
    assert distance.distance(torch.ones(shape), torch.zeros(shape)) == 1

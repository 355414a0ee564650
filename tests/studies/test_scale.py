"""The study of scales: λ½ by interpolation, and what each scale is a factor of."""

from __future__ import annotations

import math

import pytest
import torch

from forgetless import mas, normalized
from studies import scale


def test_half_strength_is_where_the_change_is_half_of_fine_tunings():
    changes = [1.0, *(1 / (1 + strength / 0.02) for strength in scale.STRENGTHS)]
    assert scale.half_strength(changes) == pytest.approx(0.02, rel=0.1)
    assert math.isnan(scale.half_strength([1.0] * len(changes)))


def test_the_scales_are_factors_of_omega(monkeypatch):
    torch.manual_seed(0)
    model = scale.Pair(6, 8, 0)
    inputs = torch.randn(20, 6)
    importance = mas(model, inputs, exclude=("old", "new"), progress=False)
    found = scale.scales(importance, model, inputs)
    ours = normalized(importance, model, inputs).mean()
    for name, omega in importance.mean().items():
        torch.testing.assert_close(ours[name], omega * found["× ΣΩ / (mean ‖F‖²)²"])
    whole = torch.cat([each.flatten() for each in importance.mean().values()])
    assert (whole * found["÷ mean Ω"]).mean() == pytest.approx(1, rel=1e-5)
    assert (whole * found["÷ max Ω"]).max() == pytest.approx(1, rel=1e-5)


def test_the_study_runs_on_little(monkeypatch):
    monkeypatch.setattr(scale, "STEPS", 30)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 6, generator=generator)
    tasks = [(inputs, inputs[:, :5].argmax(1)), (inputs, inputs[:, 1:].argmax(1))]
    found = scale.study(tasks, 16, 0)
    assert list(found) == ["0.1", "1", "10"]
    for name, factor in (("the paper's", 100.0), ("× ΣΩ / (mean ‖F‖²)²", 1.0), ("÷ mean Ω", 1.0)):
        assert found["0.1"][name] == pytest.approx(factor * found["1"][name], rel=1e-3, nan_ok=True)
    shares = scale.per_batch_share(tasks, (1, 40))
    assert shares["1"] == 1
    assert shares["40"] < 1

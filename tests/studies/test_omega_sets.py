"""The study of how alike Ω is: what it compares, and its tables."""

from __future__ import annotations

import pytest
import torch

from studies import omega_sets


def test_compared() -> None:
    one = torch.arange(100.0)
    same = omega_sets.compared(one, 2 * one + 1)
    assert same == pytest.approx({"pearson": 1.0, "spearman": 1.0, "top": 1.0})
    other = omega_sets.compared(one, one.flip(0))
    assert other == pytest.approx({"pearson": -1.0, "spearman": -1.0, "top": 0.0})
    curved = omega_sets.compared(one, one**3)
    assert curved["spearman"] == pytest.approx(1.0)
    assert curved["pearson"] < 0.99


def test_tables() -> None:
    cell = {"pearson": 0.5, "spearman": 0.25, "top": 0.125}
    results = {
        "sets": ["a", "b"],
        "samples": 9,
        "alike": [[cell, cell], [cell, cell]],
        "traffic": {"1": [[25.0, 0.5], [50.0, 0.6], [75.0, 0.7]], "0.9": [[25.0, 0.6], [50.0, 0.75], [75.0, 0.8]]},
    }
    assert omega_sets.table(results).splitlines()[2] == "| a | 0.50 / 0.25 / 12 % | 0.50 / 0.25 / 12 % |"
    lines = omega_sets.traffic(results).splitlines()
    assert lines[0].endswith("since the change | 25 | 50 |")
    assert lines[2:] == ["| nothing forgotten | 50 % | 60 % |", "| decay 0.9 a batch of 25 | 60 % | 75 % |"]

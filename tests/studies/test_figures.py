"""Rank correlations, tables and pictures of the studies of the strength."""

from __future__ import annotations

import math

import pytest

from studies import figures


def point(curve: str, strength: float | None, old: float, new: float, moved: float) -> dict:
    known = {"before": 0.9, "bound": moved, "drift": moved**2, "distance": moved, "kl": moved / 2, "agreement": old}
    return {"curve": curve, "strength": strength, "old": old, "new": new, **known}


POINTS = {
    "a → b": [
        point("MAS exact, pull", 1.0, 0.85, 0.6, 1.0),
        point("MAS exact, pull", 0.01, 0.7, 0.8, 10.0),
        point("fine-tuning", None, 0.4, 0.9, 30.0),
        point("frozen backbone", None, 0.9, 0.5, 0.0),
        {"curve": "MAS exact, gradient", "strength": 1.0, "diverged": "the loss became nan"},
        point("KeepAgreement(0.95)", 0.123, 0.8, 0.7, 4.0),
    ],
    "b → c": [point("fine-tuning", None, 0.5, 0.8, 20.0), point("MAS exact, pull", 1.0, 0.8, 0.7, 2.0)],
}


def test_rank_correlation_of_a_constant_is_not_a_number():
    assert figures.spearman([1.0, 2.0, 3.0], [2.0, 4.0, 9.0]) == pytest.approx(1)
    assert figures.spearman([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert math.isnan(figures.spearman([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]))


def test_correlations_leave_out_what_diverged_and_weigh_by_runs():
    assert figures.correlations(POINTS, "bound") == {"a → b": pytest.approx(1), "b → c": pytest.approx(1)}
    assert figures.overall(POINTS, "bound") == pytest.approx(1)


def test_the_table_has_every_point():
    assert figures.table(POINTS) == "\n".join(
        [
            "| old / new, % | a → b | b → c |",
            "|---|---|---|",
            "| fine-tuning | 40.0 / 90.0 | 50.0 / 80.0 |",
            "| frozen backbone | 90.0 / 50.0 | – |",
            "| MAS exact, pull, λ = 0.01 | 70.0 / 80.0 | – |",
            "| MAS exact, pull, λ = 1 | 85.0 / 60.0 | 80.0 / 70.0 |",
            "| MAS exact, gradient, λ = 1 | diverged | – |",
            "| KeepAgreement(0.95) | 80.0 / 70.0 (λ 0.12) | – |",
        ]
    )


def test_pictures_are_the_same_bytes_for_the_same_points(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("one", "two"):
        figures.frontier(POINTS, tmp_path / f"{name}.svg")
        figures.prediction(POINTS, tmp_path / f"{name}-prediction.svg")
    for kind in ("", "-prediction"):
        first, second = ((tmp_path / f"{name}{kind}.svg").read_bytes() for name in ("one", "two"))
        assert first == second
        assert b"<svg" in first

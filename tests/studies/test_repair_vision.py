"""The study of repair on a vision network: its rows, resuming, and its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from forgetless import files
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.recipe import Recipe
from studies import frontier, repair_vision
from studies.repair_frontier import METHODS


def scene() -> frontier.Scene:
    torch.manual_seed(0)
    inputs = torch.randn(60, 32)
    first, second = (
        classification(name, ("no", "yes"), (inputs, labels), (inputs, labels))
        for name, labels in (("a", (inputs[:, 0] > 0).long()), ("b", (inputs[:, 1] > 0).long()))
    )
    model = MultiHead(nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 40)), 40)
    model.grow("a", 2)
    omegas = {"exact": frontier.exact(model, first)}
    return frontier.Scene(first, second, model, omegas, 0.5)


def test_a_study_has_a_row_for_every_setting_and_edits_the_backbone_alone() -> None:
    found = scene()
    rows = repair_vision.study(found, 0, Recipe(0.05, 3, 10))
    assert [row["method"] for row in rows[:3]] == ["base", "fine-tuned", "WiSE-FT"]
    assert {row["method"] for row in rows[2:]} == set(METHODS)
    assert rows[0]["old"] == pytest.approx(frontier.evaluate(found.model, found.old, 50))  # a frozen backbone


def test_the_page_has_a_row_for_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(old: float) -> list[dict[str, Any]]:
        ends = [("base", 0, 0.9, 0.5), ("fine-tuned", 0, old, 0.8), ("WiSE-FT", 0.5, 0.8, 0.79)]
        return [{"method": method, "setting": at, "old": each, "new": new} for method, at, each, new in ends]

    monkeypatch.setattr(repair_vision, "SETTINGS", {"WiSE-FT": (0.5,)})
    monkeypatch.setattr(repair_vision, "METHODS", {"WiSE-FT": METHODS["WiSE-FT"]})
    runs = [{"pair": pair, "seed": 0, "rows": rows(0.4)} for pair in repair_vision.PAIRS]
    files.write_sealed(tmp_path / "vision.json", {"tunings": runs})
    page = tmp_path / "repair.md"
    page.write_text("<!-- vision -->\n<!-- end of vision -->\n", encoding="utf-8")
    files.write_sealed(
        tmp_path / "vision-efficientnet-lite0.json", {"tunings": [runs[0], {**runs[1], "rows": rows(0.95)}]}
    )
    repair_vision.write(tmp_path, page)
    written = page.read_text(encoding="utf-8")
    assert "| frozen backbone | 90.0 / 50.0 | 90.0 / 50.0 | 90.0 / 50.0 |" in written
    assert "| WiSE-FT, α 0.5 | 80.0 / 79.0 | 80.0 / 79.0 | 80.0 / 79.0 |" in written
    assert "| WiSE-FT | 80 | 80 | 80 |" in written
    assert "The same with efficientnet-lite0, 2 fine-tunings" in written
    assert "The second table leaves out 1, which forgot nothing." in " ".join(written.split())
    assert "| frozen backbone | 90.0 / 50.0 | 90.0 / 50.0 | – |" in written

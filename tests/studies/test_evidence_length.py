from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from forgetless import files
from studies.evidence import length
from studies.evidence.length import DIALS, OUT, Dial, Training, moved, run, table


def test_the_way_that_anchored_weights_went() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.0]]))
    assert moved(model, {"weight": torch.zeros(2, 2)}) == 3.5  # its bias is not anchored


def test_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    asked: list[Dial] = []

    def trained(dial: Dial) -> tuple[float, float, float]:
        asked.append(dial)
        return 2.0, 1.5, 10.0

    training = Training("a training", lambda: (1.0, 3.0), trained)
    first = run([training], DIALS, tmp_path)
    assert asked == list(DIALS.values())
    assert run([training], DIALS, tmp_path) == first
    assert asked == list(DIALS.values())
    assert {row["kind"]: row["old"] for row in first} == dict.fromkeys(DIALS, 2.0)


def test_shares_of_what_fine_tuning_loses_learns_and_moves() -> None:
    text = {"training": "text", "before old": 2.0, "before new": 3.0}
    pictures = {"training": "pictures", "before old": 0.6, "before new": 0.0}
    rows = [
        {**text, "kind": "fine-tuning", "old": 2.4, "new": 2.5, "moved": 8.0},
        {**text, "kind": "not told", "old": 2.1, "new": 2.55, "moved": 4.0},
        {**pictures, "kind": "fine-tuning", "old": 0.5, "new": 0.8, "moved": 10.0},
        {**pictures, "kind": "told the length", "old": 0.58, "new": 0.75, "moved": 6.0},
    ]
    _, _, *lines = table(rows).split("\n")
    assert lines == [
        "| text | not told | 50 % | 75 % won back | 90 % |",
        "| pictures | told the length | 60 % | 58.0 (before 60.0, fine-tuned 50.0) | 75.0 (fine-tuned 80.0) |",
    ]


def test_the_page_takes_the_committed_rows(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- length -->\nold\n<!-- end of length -->\nafter\n")
    length.write(OUT, page)
    rows = files.read_sealed(OUT)["rows"]
    assert page.read_text() == f"before\n<!-- length -->\n{table(rows)}\n<!-- end of length -->\nafter\n"
    assert {row["kind"] for row in rows} == set(DIALS)


@pytest.mark.parametrize("steps", [10.0, 47.5])
def test_the_dials(steps: float) -> None:
    told, not_told = DIALS["told the length"](steps), DIALS["not told"](steps)
    assert told is not None
    assert not_told is not None
    assert (told.steps, not_told.steps, told.share, not_told.share) == (steps, None, 0.5, 0.5)

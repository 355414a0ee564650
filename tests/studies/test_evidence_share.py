from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forgetless import HoldShare, files
from forgetless.errors import ForgetlessError
from studies.evidence import share
from studies.evidence.length import FREE
from studies.evidence.share import DIALS, FROZEN, OUT, SHARES, averages, chosen, gains, table


def picture(kind: str, old: float, new: float, training: str = "a → b, strong, seed 0") -> dict[str, Any]:
    return {"training": training, "kind": kind, "before old": 0.6, "before new": 0.0, "old": old, "new": new}


def text(kind: str, old: float, new: float) -> dict[str, Any]:
    return {"training": "a text", "kind": kind, "before old": 2.0, "before new": 3.0, "old": old, "new": new}


#: The averages fall by 0.2 points from one share to the next; 95 % of the new skill is kept by all but the last.
PICTURES = [picture(f"{each:g}", 0.5, 0.7 - 0.004 * number) for number, each in enumerate(SHARES)]
TEXTS = [text(FREE, 2.4, 2.5), *(text(f"{each:g}", 2.1, 2.52) for each in SHARES[:-1]), text("0.95", 2.0, 2.53)]


def test_averages_are_in_points_and_gains_in_percent_of_fine_tunings() -> None:
    rows = [picture("0.5", 0.5, 0.7), picture("0.5", 0.7, 0.6, "b → a, strong, seed 0")]
    found = averages(rows)["0.5"]
    assert found == {"forgotten": pytest.approx(0.0), "new": pytest.approx(65.0), "average": pytest.approx(62.5)}
    assert gains([text(FREE, 2.4, 2.5), text("0.5", 2.1, 2.55)])["0.5"] == [(pytest.approx(75.0), pytest.approx(90.0))]


def test_the_rule_takes_the_largest_share_that_is_near_the_best_and_keeps_enough() -> None:
    assert chosen(PICTURES, TEXTS) == SHARES[2]  # the next is 0.6 points behind the best
    alike = [picture(f"{each:g}", 0.5, 0.7) for each in SHARES]
    assert chosen(alike, TEXTS) == SHARES[-2]  # the last one keeps 94 % of a text's new skill
    with pytest.raises(ForgetlessError, match=r"^no share keeps 95 % of fine-tuning's gain on every text\.$"):
        chosen(alike, [text(FREE, 2.4, 2.5), *(text(f"{each:g}", 2.0, 2.6) for each in SHARES)])


def test_every_kind_has_a_row() -> None:
    kinds = [*DIALS, FROZEN]
    rows = [picture(kind, 0.5, 0.7, f"a → b, {regime}, seed 0") for kind in kinds for regime in ("strong", "gentle")]
    _, _, *lines = table(rows, TEXTS).split("\n")
    assert [line.split(" | ")[0] for line in lines] == [f"| {kind}" for kind in kinds]
    assert lines[1] == "| 0.5 | 10.0 / 70.0 / 60.0 | 10.0 / 70.0 / 60.0 | 60.0 | 75 | 96 |"


def test_the_default_is_the_share_that_the_rule_takes_of_the_committed_runs(tmp_path: Path) -> None:
    found = files.read_sealed(OUT)
    assert HoldShare().share == found["chosen"] == chosen(found["pictures"], found["texts"])
    page = tmp_path / "page.md"
    page.write_text("<!-- share -->\nold\n<!-- end of share -->\n")
    share.write(OUT, page)
    assert table(found["pictures"], found["texts"]) in page.read_text()

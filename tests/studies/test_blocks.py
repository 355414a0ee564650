"""Generated blocks of pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.report import markdown
from studies import blocks


def test_a_table_takes_its_place_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x -->\nold\n<!-- end of x -->\nafter\n")
    blocks.inserted(page, "x", "new")
    blocks.inserted(page, "x", "newer")
    assert page.read_text() == "before\n<!-- x -->\nnewer\n<!-- end of x -->\nafter\n"
    with pytest.raises(ForgetlessError, match="has no place for 'y'"):
        blocks.inserted(page, "y", "new")


def test_a_report_takes_its_place_in_a_page(tmp_path: Path) -> None:
    run = {"method": "mas", "seed": 0, "strength": 1.0, "accuracy": [[0.9, None], [0.8, 0.7]], "seconds": {}}
    found = {"experiment": "e", "tasks": ["a", "b"], "runs": [run], "environment": {"command": "forgetless run e"}}
    results.write(tmp_path / "results" / "e.json", found)
    page, mark = tmp_path / "page.md", "<!-- forgetless report results/e.json --markdown -->\n"
    page.write_text(f"before\n{mark}old\n<!-- end of report -->\nafter\n")
    for _ in range(2):
        blocks.reported(page, tmp_path)
        assert page.read_text() == f"before\n{mark}{markdown(found)}<!-- end of report -->\nafter\n"
    (tmp_path / "results" / "e.json").unlink()
    with pytest.raises(ForgetlessError, match=r"e\.json cannot be read"):
        blocks.reported(page, tmp_path)

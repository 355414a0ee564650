"""The page of language models, from results of any origin."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.page import page

ROOT = Path(__file__).parents[3]


def results(**run: Any) -> dict[str, Any]:
    made = [{"method": name, "seed": 0, "bits": {"test": bits}, **run} for name, bits in (("a", 2.5), ("b", 2.25))]
    return {"experiment": "long-text", "corpus": "own", "environment": {}, "runs": made}


def test_the_committed_run(tmp_path: Path) -> None:
    held = json.loads((ROOT / "results" / "long-text" / "english.json").read_text())
    page(held, tmp_path / "page.html")
    made = (tmp_path / "page.html").read_text()
    bits: dict[str, list[float]] = {}
    for run in held["runs"]:
        bits.setdefault(run["method"], []).append(run["bits"]["test"])
    best = min(bits, key=lambda name: statistics.fmean(bits[name]))
    assert f"<b>{best}</b>, <b>{statistics.fmean(bits[best]):.3f}</b>" in made
    assert f"{statistics.fmean(bits['mean']):.3f} ± {statistics.stdev(bits['mean']):.3f}" in made  # over its seeds
    assert held["environment"]["command"].split()[-1] in made
    assert len(made) < 200_000


def test_figures_that_are_missing_are_left_out(tmp_path: Path) -> None:
    page(results(), tmp_path / "page.html")
    made = (tmp_path / "page.html").read_text()
    assert "<b>b</b>, <b>2.250</b>" in made
    assert not any(title in made for title in ("Curves", "Where attention goes", "By how rare a word is"))
    page({**results(), "runs": []}, tmp_path / "page.html")


@pytest.mark.parametrize(
    "run",
    [{"curve": ["x"]}, {"curve": {}}, {"attention": [[2.0]]}, {"by rarity": {"a": 1}}, {"by place": [-1.0]}],
)
def test_figures_that_are_none_are_refused(run: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="a"):
        page(results(**run), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "run", [{"attention": [[0.5], [0.5, 0.5]]}, {"attention": [[]]}, {"curve": [1.0]}, {"by place": [1.0]}]
)
def test_odd_figures_make_a_page(run: dict[str, Any], tmp_path: Path) -> None:
    page(results(**run), tmp_path / "page.html")

"""The study of MANGO: rates are found once and shared by ablations, runs are kept and not repeated, rows are whole."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

import layouts
from forgetless import files
from studies import mango


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tasks of two kinds of picture; ER, its control and MANGO, with two seeds and two rates."""
    for part, count in (("train", 10), ("test", 4)):
        for label in range(4):
            for number in range(count):
                layouts.picture(tmp_path / "own" / part / f"kind {label}" / f"{number}.png", 60 * label, (32, 32))
    monkeypatch.setattr(mango, "OUT", tmp_path / "results")
    monkeypatch.setattr(mango, "RATES", (0.01, 0.02))
    monkeypatch.setattr(mango, "LEAST", 2)
    monkeypatch.setattr(mango, "STEPS", ((mango.DIGITS, ("er", "er-half", "mango"), 2),))
    return tmp_path


def test_runs_are_kept_and_not_repeated(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, cache = study / "own", study / "cache"
    mango.learn(data, cache, time.monotonic() - 1)
    assert not list((study / "results").glob("mnist10k-*.json"))
    mango.learn(data, cache, math.inf)
    first = capsys.readouterr().out.splitlines()
    mango.learn(data, cache, math.inf)
    assert capsys.readouterr().out == ""
    found = mango.runs(mango.DIGITS)
    assert len(first) == len(found) >= 6
    rates = files.read_sealed(study / "results" / "rates-mnist10k.json")["found"]
    assert rates.keys() == {"er", "mango"}  # the control has MANGO's rate
    wanted = {(name, rates[mango.VARIANTS[name].of or name]["rate"]) for name in ("er", "er-half", "mango")}
    wanted |= {(name, mango.SHARED) for name in ("er", "er-half", "mango")}
    assert {(run["variant"], run["online"]["lr"]) for run in found} == wanted
    text = mango.tables()
    assert text.count("**digits, 5 × 2, buffer 100") == 2
    assert "| ER, every gradient × ½ |" in text


def entry(variant: str, seed: int, accuracy: float) -> dict[str, Any]:
    online = {
        "lr": 0.02,
        "average_anytime_accuracy": 0.5,
        "worst_case_accuracy": 0.25,
        "passes": {"forward": 2000, "backward": 1000},
    }
    matrix = [[0.9, None], [accuracy - 0.1, accuracy + 0.1]]
    return {"variant": variant, "settings": {}, "seed": seed, "accuracy": matrix, "online": online}


def test_a_row_has_the_difference_from_er_of_the_same_seeds(tmp_path: Path) -> None:
    ours, theirs = (0.7, 0.8, 0.6), (0.6, 0.6, 0.6)
    found = [entry("mango", seed, each) for seed, each in enumerate(ours)]
    found += [entry("er", seed, each) for seed, each in enumerate(theirs)]
    found += [entry("er-ace", seed, 0.9) for seed in range(2)]  # too few seeds for a row
    rates = {name: {"rate": 0.02} for name in ("er", "mango", "er-ace")}
    files.write_sealed(tmp_path / "mnist10k-100.json", {"found": found})
    files.write_sealed(tmp_path / "rates-mnist10k.json", {"found": rates})
    rows = mango.table(mango.DIGITS, root=tmp_path).splitlines()[2:]
    assert rows == [
        "| ER | 0.02 | 60.0 ± 0.0 | 50.0 ± 0.0 | 25.0 ± 0.0 | -40.0 ± 0.0 | – | 2.0 / 1.0 | 3 |",
        # mean 10, standard deviation 10, t(2) = 4.303
        "| MANGO as printed | 0.02 | 70.0 ± 10.0 | 50.0 ± 0.0 | 25.0 ± 0.0 | -30.0 ± 10.0 | +10.0 [-14.8, +34.8] | "
        "2.0 / 1.0 | 3 |",
    ]

from __future__ import annotations

import math
import statistics
import sys
from typing import Any

import pytest

from forgetless.lab.report import comparison
from forgetless.lab.report.comparison import verdict

module = sys.modules["forgetless.lab.report.comparison"]  # the package has a function of that name


@pytest.mark.parametrize(("mean", "expected"), [(98.0, "within"), (99.6, "above"), (97.9, "**below**")])
def test_verdicts(mean: float, expected: str) -> None:
    assert verdict([mean - 1, mean + 1], (98.75, 0.8)) == expected


def run(method: str, seed: int, end: float, strength: float | None = None) -> dict[str, Any]:
    return {"method": method, "seed": seed, "strength": strength, "accuracy": [[1.0, None], [end, 1.0]]}


def test_the_table_has_published_and_ours_side_by_side() -> None:
    runs = [run("mas", 0, 0.9, 1.0), run("mas", 1, 0.8, 1.0), run("finetune", 0, 0.5), run("finetune", 1, 0.6)]
    text = comparison(
        {"task": {"runs": runs}, "class": {"runs": []}}, {"task": {"finetune": (80.0, 3.0), "joint": (99, 1)}}
    )
    lines = text.splitlines()
    assert lines[0].startswith("**task-incremental**")
    assert len(lines) == 6
    # the differences are 20 and 10 percent, of the means over two tasks
    half = 12.7062 * statistics.stdev([20.0, 10.0]) / math.sqrt(2)
    assert lines[4] == (
        "| finetune | – | 80.00 ± 3.00 | 77.50 ± 3.54 | 2 | within | 45.00 ± 7.07 "
        f"| +15.00 [{15 - half:+.2f}, {15 + half:+.2f}] | {15 / statistics.stdev([20.0, 10.0]):.1f} |"
    )
    assert lines[5].startswith("| mas | 1 | – | 92.50 ± 3.54 | 2 | – | 15.00 ± 7.07 | – | – |")


def test_without_scipy_differences_have_no_interval_and_a_line_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_intervals", lambda: False)
    runs = [run("mas", 0, 0.9), run("mas", 1, 0.8), run("finetune", 0, 0.5), run("finetune", 1, 0.6)]
    lines = comparison({"task": {"runs": runs}}, {}).splitlines()
    assert lines[5].endswith("| +15.00 | – |")
    assert lines[-1] == "Confidence intervals need scipy: pip install 'forgetless[vision]'."


def test_names_of_methods_are_escaped() -> None:
    text = comparison({"task": {"runs": [run("a|b<i>`c`", 0, 0.9)]}}, {})
    assert r"| a\|b\<i\>\`c\` | – |" in text


def test_another_form_of_a_published_method_has_its_figure_marked() -> None:
    results = {"task": {"runs": [run("mas", 0, 0.6), run("other", 0, 0.9)]}}
    lines = comparison(results, {"task": {"mas": (80.0, 3.0)}}, forms={"other": "mas"}).splitlines()
    assert lines[4].startswith("| mas | – | 80.00 ± 3.00 | 80.00 | 1 | within |")
    assert lines[5].startswith("| other | – | 80.00 ± 3.00 (mas) | 95.00 | 1 | above |")
    assert "| other | – | – | 95.00 | 1 | – |" in comparison(results, {}, forms={"other": "mas"})

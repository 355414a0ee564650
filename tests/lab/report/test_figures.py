"""What an experiment looks at beside R, and another score than the accuracy: in the table, the page and Markdown."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from forgetless import ForgetlessError
from forgetless.lab.report import markdown, page, table
from forgetless.lab.report.escape import escaped
from forgetless.lab.results import check, summarize


def results(**figures: Any) -> dict[str, Any]:
    runs = [
        {
            "method": "mas",
            "seed": seed,
            "strength": 1.0,
            "accuracy": [[0.5, None], [0.4, 0.6]],
            "seconds": {},
            "figures": figures or {"all <b>": [0.1, 0.2 + seed / 10]},
        }
        for seed in (0, 1)
    ]
    return {"experiment": "facts", "tasks": ["a", "b"], "score": "mean precision", "runs": runs, "environment": {}}


def test_the_last_value_over_seeds() -> None:
    (method,) = summarize(results()).methods
    assert method.figures["all <b>"].percent() == "25.0 ± 7.1"


def test_a_method_that_has_not_looked_has_none() -> None:
    found = results()
    found["runs"].append({**found["runs"][0], "method": "finetune", "figures": {}})
    assert summarize(found).figures == ["all <b>"]
    assert summarize(found).methods[1].figures == {}
    assert f"| {escaped('all <b>')} | 25.0 ± 7.1 | – |" in markdown(found)


def test_they_are_shown_everywhere(tmp_path: Path) -> None:
    drawn = Console(file=StringIO(), width=100)
    drawn.print(table(results()))
    assert isinstance(drawn.file, StringIO)
    text = drawn.file.getvalue()
    assert "all <b>" in text
    assert "25.0 ± 7.1" in text
    assert "mean precision on test data, in percent" in text
    page(results(), tmp_path / "p.html")
    html = (tmp_path / "p.html").read_text()
    assert "all &lt;b&gt;" in html
    assert "<b>all" not in html
    assert "Mean precision of each task" in html
    assert "accuracy" not in html.lower()


@pytest.mark.parametrize("wrong", [[0.1], [0.1, 1.2], [0.1, None], [0.1, True], 0.3, [0.1, float("nan")]])
def test_figures_that_are_no_shares_are_refused(wrong: Any) -> None:
    with pytest.raises(ForgetlessError, match="'figures' that are not a share after every task"):
        check(results(x=wrong))


def test_a_score_is_text() -> None:
    with pytest.raises(ForgetlessError, match="'score' is not text"):
        check({**results(), "score": 3})

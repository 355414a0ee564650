from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Command
from forgetless.lab import results

RESULTS = {
    "experiment": "demo",
    "tasks": ["a", "b"],
    "runs": [{"method": "mas", "seed": 0, "strength": 1.0, "accuracy": [[0.9, None], [0.8, 0.7]], "seconds": {}}],
    "environment": {},
}


def test_the_table_and_the_page_again(forgetless: Command) -> None:
    Path("r").mkdir()
    results.write("r/results.json", RESULTS)
    done = forgetless("report", "r")
    assert done.exit_code == 0, done.stderr
    assert "90.0 →  80.0" in done.stdout
    assert done.stdout.endswith("page: r/report.html\n")
    assert "mas" in Path("r/report.html").read_text()


def test_json(forgetless: Command) -> None:
    results.write("results.json", RESULTS)
    assert json.loads(forgetless("report", "results.json", "--json").stdout) == RESULTS


def test_no_results(refused: Callable[..., None]) -> None:
    Path("r").mkdir()
    refused("r/results.json cannot be read: it does not exist.", "report", "r")
    Path("r/results.json").write_text("{")
    refused(
        "r/results.json cannot be read as JSON: Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1).",
        "report",
        "r",
    )
    results.write("r/results.json", {**RESULTS, "runs": []})
    refused("these results hold no finished run yet; let `forgetless run` finish one.", "report", "r")


def test_markdown_is_only_printed(forgetless: Command) -> None:
    results.write("results.json", RESULTS)
    assert forgetless("report", "results.json", "--markdown").stdout.startswith("| task | mas, λ = 1 |\n")
    assert not Path("report.html").exists()

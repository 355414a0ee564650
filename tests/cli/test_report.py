from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from forgetless.lab import results
from idx_files import written

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
    found = json.loads(forgetless("report", "results.json", "--json").stdout)
    (method,) = found.pop("methods")
    assert found.pop("compared") is None
    assert found == RESULTS
    assert (method["method"], method["strengths"], method["seeds"]) == ("mas", [1.0], [0])
    assert method["average_accuracy"] == {"mean": pytest.approx(0.75), "sd": None}
    assert method["learning_accuracy"] == {"mean": pytest.approx(0.8), "sd": None}
    assert method["forgetting_mas"] == {"mean": pytest.approx(0.1), "sd": None}


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


def test_methods_are_compared_on_the_same_seeds(forgetless: Command, refused: Callable[..., None]) -> None:
    ends = {"mas": (0.8, 0.9, 0.7), "l2_sp": (0.7, 0.9, 0.5), "finetune": (0.1, 0.2)}
    runs = [
        {**RESULTS["runs"][0], "method": name, "seed": seed, "strength": None, "accuracy": [[0.9, None], [end, 0.7]]}  # type: ignore[dict-item]
        for name, each in ends.items()
        for seed, end in enumerate(each)
    ]
    results.write("results.json", {**RESULTS, "runs": runs})
    table = forgetless("report", "results.json").stdout
    rows = [" ".join(line.split()) for line in table.splitlines()]
    assert "l2_sp +5.0 [-7.4, +17.4] -10.0 [-34.8, +14.8] 3" in rows  # 5 ± t(2) · 5 / √3
    assert "finetune +35.0 [+35.0, +35.0] -70.0 [-70.0, -70.0] 2" in rows
    found = json.loads(forgetless("report", "results.json", "--json").stdout)["compared"]
    assert found["method"] == "mas"
    other, _ = found["minus"]
    assert other["average_accuracy"] == pytest.approx(
        {
            "mean": 0.05,
            "low": 0.05 - 4.30265 * 0.05 / 3**0.5,
            "high": 0.05 + 4.30265 * 0.05 / 3**0.5,
            "d_z": 1,
            "runs": 3,
        },
        rel=1e-5,
    )
    assert other["forgetting_mas"]["mean"] == pytest.approx(-0.1)
    assert "| finetune | +32.5 [" in forgetless("report", "results.json", "--markdown", "--compare", "l2_sp").stdout
    latex = forgetless("report", "results.json", "--latex", "--compare", "l2_sp").stdout
    assert r"finetune & 15.0 & 70.0 & 42.5 $\pm$ 3.5 & 75.0 $\pm$ 7.1 & +32.5 {[}" in latex
    sentence = "none of the methods are called 'ewc'; name one of 'mas', 'l2_sp', 'finetune'."
    refused(sentence, "report", "results.json", "--compare", "ewc")
    sentence = "--json, --markdown and --latex are three forms of the same; name one of them."
    refused(sentence, "report", "results.json", "--json", "--latex")


def test_several_runs_are_shown_as_one(forgetless: Command, refused: Callable[..., None]) -> None:
    for strength in (1.0, 2.0):
        run = {**RESULTS["runs"][0], "strength": strength}  # type: ignore[dict-item]
        results.write(f"{strength:g}.json", {**RESULTS, "runs": [run]})
    done = forgetless("report", "1.json", "2.json")
    assert done.exit_code == 0, done.stderr
    assert "mas, λ = 1" in done.stdout
    assert "mas, λ = 2" in done.stdout
    assert not Path("report.html").exists()
    assert forgetless("report", "1.json", "2.json", "--page", "both.html").stdout.endswith("page: both.html\n")
    assert "What a strength trades" in Path("both.html").read_text()
    results.write("3.json", {**RESULTS, "experiment": "other"})
    sentence = (
        "1.json and 3.json cannot be shown as one: they differ in 'experiment'; name runs of one experiment over "
    )
    refused(f"{sentence}the same tasks.", "report", "1.json", "3.json")


def test_a_run_of_several_parts_is_shown_as_it_ended(forgetless: Command, refused: Callable[..., None]) -> None:
    written(Path("data"))
    options = ("--data", "data", "--scenario", "domain", "--method", "finetune", "--out", "r")
    ended = forgetless("run", "split-mnist", *options)
    assert ended.exit_code == 0, ended.stderr
    again = forgetless("report", "r")
    table, _, where = ended.stdout.partition("\nresults: r/*/results.json\n")
    assert (again.exit_code, again.stdout) == (0, table)
    assert where.endswith("again:   forgetless report r\n")
    assert again.stdout.startswith("20 pictures to learn from and 10 to test on. Steps are matched, not epochs: 376 ")
    assert "| finetune | – | 55.16 ± 1.38 | " in again.stdout
    found = json.loads(forgetless("report", "r", "--json").stdout)
    assert [method["method"] for method in found["domain"]["methods"]] == ["finetune"]
    part = forgetless("report", "r/domain")
    assert part.stdout.endswith("any: forgetless report r\n")
    refused("a page is of one part of r; name one of 'r/domain'.", "report", "r", "--page", "x.html")
    refused("--latex and --compare are for one part of r: name its folder in there.", "report", "r", "--latex")


def test_a_folder_of_runs_is_no_run(refused: Callable[..., None]) -> None:
    for name in ("strong", "weak"):
        Path("runs", name).mkdir(parents=True)
        results.write(Path("runs", name, "results.json"), RESULTS)
    refused("runs holds several runs; name one or more of 'runs/strong', 'runs/weak'.", "report", "runs")

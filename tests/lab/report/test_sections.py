"""What a page shows of the traces of its runs, and of runs with several strengths."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab import results as held
from forgetless.lab.report import page, table
from forgetless.lab.results import joined, summarize
from pages import traces

Results = dict[str, Any]
SECTIONS = (
    "Answers before and after",
    "How far the weights moved",
    "What is protected and what is free",
    "What matters",
)


def html(found: Results, folder: Path, **more: Any) -> str:
    page(found, folder / "report.html", **more)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_results_without_traces_still_give_a_page(results: Callable[..., Results], tmp_path: Path) -> None:
    text = html(results(), tmp_path)
    assert not any(title in text for title in (*SECTIONS, "What a strength trades"))
    assert "Accuracy matrices" in text


def test_traces_are_shown(results: Callable[..., Results], tmp_path: Path) -> None:
    found = results()
    text = html(found, tmp_path, traces=traces(found["tasks"], ["finetune", "frozen", "mas"]))
    for title in SECTIONS:
        assert f"<h2>{title}</h2>" in text
    assert text.count("data:image/") == 6
    assert text.count('class="strip"><svg') == 4  # frozen and mas, two layers each; finetune has no importance
    assert "25.0 %<span" in text  # held
    said = re.findall(r'class="(right|wrong)">', text)
    # Two pictures of each of three tasks, by three methods: the first is right in the end and the second before,
    # but for the pictures of the last task, which were asked about once.
    assert (said.count("right"), said.count("wrong")) == (18, 18)


def test_a_single_task_has_nothing_to_protect(results: Callable[..., Results], tmp_path: Path) -> None:
    found = results(["a"])
    text = html(found, tmp_path, traces=traces(["a"], ["mas"]))
    assert "What is protected" not in text
    assert "How far the weights moved" in text


def test_a_large_run_fits_a_megabyte(results: Callable[..., Results], tmp_path: Path) -> None:
    tasks, methods = [f"task {n}" for n in range(20)], [f"method {n}" for n in range(10)]
    found = results(tasks, methods)
    for run in found["runs"]:
        run["accuracy"] = [[None if e is None else max(0.0, e) for e in row] for row in run["accuracy"]]
    layers = [f"backbone.block{n}.conv" for n in range(80)]
    text = html(found, tmp_path, traces=traces(tasks, methods, layers, side=64, each=1))
    assert len(text.encode()) <= 1 << 20
    assert "60 more are not shown" in text


def strengths(results: Callable[..., Results], values: list[float]) -> dict[str, Results]:
    """The same experiment with several strengths; fine-tuning ran each time."""
    made = {}
    for value in values:
        found = results(methods=["finetune", "mas"])
        found["runs"][1]["strength"] = value
        found["runs"][1]["accuracy"][-1][0] = min(1.0, 0.5 + value / 10)
        made[f"runs/{value:g}"] = found
    return made


def test_several_strengths_are_columns_and_a_frontier(results: Callable[..., Results], tmp_path: Path) -> None:
    made = strengths(results, [1.0, 0.1, 3.0])
    for value, each in zip((1, 0.1, 3), made.values(), strict=True):
        each["environment"]["command"] = f"forgetless run demo --strength {value} --out runs/demo"
    found = joined(made)
    assert found["environment"]["command"].endswith(" && forgetless run demo --strength 3 --out runs/3")
    held.check(found)
    assert [each.label for each in summarize(found).methods] == ["finetune", "mas, λ = 1", "mas, λ = 0.1", "mas, λ = 3"]
    assert table(found)
    text = html(found, tmp_path)
    frontier = text[text.index("What a strength trades") : text.index("Accuracy matrices")]
    assert frontier.count('class="point"') == 4
    assert frontier.count('class="line"') == 1
    where = [float(x) for x in re.findall(r"mas, λ = ([\d.]+):", frontier)]
    assert where == [0.1, 1.0, 3.0]


def test_a_strength_that_every_seed_finds_is_one_point(results: Callable[..., Results], tmp_path: Path) -> None:
    made = strengths(results, [0.1, 3.0])
    found = joined(made)
    (first, *_) = (run for run in found["runs"] if run["method"] == "mas")
    for seed, strength in ((0, 0.5), (1, 0.7)):
        more = {"seed": seed, "strength": strength, "settings": {"strength": "auto"}, "column": "0.5, 0.7"}
        found["runs"].append({**first, **more})
    text = html(found, tmp_path)
    frontier = text[text.index("What a strength trades") : text.index("Accuracy matrices")]
    assert re.findall(r"mas, λ = ([\w.]+):", frontier) == ["0.1", "auto", "3"]
    alone = {**found, "runs": [run for run in found["runs"] if run["method"] != "mas" or run["column"] == "0.5, 0.7"]}
    assert "What a strength trades" not in html(alone, tmp_path)  # two seeds are no two strengths


def test_every_run_of_several_gets_a_folder_of_its_own(results: Callable[..., Results]) -> None:
    """The same for files in one folder; and what is no command of a shell stays as it was recorded."""
    weak, strong = strengths(results, [0.1, 3.0]).values()
    for each in (weak, strong):
        each["environment"]["command"] = "forgetless run demo --out runs/demo"
    for names, outs in (
        (("kept/weak.json", "kept/strong.json"), ("weak", "strong")),
        (("runs/v1.0", "runs/v1.1/results.json"), ("v1.0", "v1.1")),
    ):
        command = joined(dict(zip(names, (weak, strong), strict=True)))["environment"]["command"]
        assert command == " && ".join(f"forgetless run demo --out runs/{out}" for out in outs)
    weak["environment"]["command"] = "forgetless run demo --out it's"
    found = joined({"a": weak, "b": strong})["environment"]["command"]
    assert found == "forgetless run demo --out it's && forgetless run demo --out runs/b"


def test_what_is_not_one_experiment_is_refused(results: Callable[..., Results]) -> None:
    made = strengths(results, [1.0, 2.0])
    made["runs/2"]["tasks"] = ["other", *made["runs/2"]["tasks"][1:]]
    with pytest.raises(ForgetlessError, match="runs/1 and runs/2 cannot be shown as one: they differ in 'tasks'"):
        joined(made)
    again = strengths(results, [1.0, 2.0])
    again["runs/2"]["runs"][0]["accuracy"][0][0] = 0.123
    with pytest.raises(ForgetlessError, match="runs/2 has another run of 'finetune' with seed 0"):
        joined(again)

from __future__ import annotations

import copy
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.results import Estimate

Content = dict[str, Any]


def run(method: str = "mas", seed: int = 0, left: float = 0.7, strength: float | None = 1.0) -> dict[str, Any]:
    accuracy = [[0.8, None], [left, 0.9]]
    return {
        "method": method,
        "seed": seed,
        "strength": strength,
        "accuracy": accuracy,
        "seconds": {"train": 1.0 + seed},
    }


@pytest.fixture
def content() -> Content:
    runs = [run("finetune", 0, 0.4, None), run("mas", 0, 0.70), run("mas", 1, 0.74)]
    return {"experiment": "demo", "tasks": ["a", "b"], "runs": runs, "environment": {"torch": "2.14"}}


def near(found: Estimate | None, mean: float, sd: float | None = None) -> bool:
    assert found is not None
    return found.mean == pytest.approx(mean) and found.sd == (None if sd is None else pytest.approx(sd, abs=1e-12))


def test_summary_by_method(content: Content) -> None:
    summary = results.summarize(content)
    assert (summary.experiment, summary.tasks, summary.environment) == ("demo", ("a", "b"), {"torch": "2.14"})
    finetune, mas = summary.methods
    assert (finetune.method, finetune.seeds, finetune.label) == ("finetune", (0,), "finetune")
    assert (mas.method, mas.seeds, mas.label) == ("mas", (0, 1), "mas, λ = 1")
    assert finetune.now == (Estimate(0.4), Estimate(0.9))
    assert near(finetune.forgetting, 0.4)
    assert finetune.matrix[0][1] is None


def test_means_and_deviations_are_over_seeds(content: Content) -> None:
    mas = results.summarize(content).methods[1]
    assert near(mas.now[0], 0.72, statistics.stdev([0.70, 0.74]))
    assert near(mas.learned[0], 0.8, 0.0)
    assert near(mas.average, 0.81, statistics.stdev([0.80, 0.82]))
    assert near(mas.forgetting, 0.08, statistics.stdev([0.1, 0.06]))
    assert mas.so_far == (mas.learned[0], mas.average)
    assert near(mas.average_learned, 0.85, 0.0)
    assert mas.seconds["train"].mean == 1.5


def test_unknown_for_one_seed_is_unknown(content: Content) -> None:
    content["runs"][2]["accuracy"][1][0] = None
    mas = results.summarize(content).methods[1]
    assert (mas.now[0], mas.average, mas.forgetting, mas.so_far[1]) == (None, None, None, None)
    assert mas.average_learned is not None


def test_one_task_forgets_nothing(content: Content) -> None:
    content.update(tasks=["a"], runs=[run() | {"accuracy": [[0.8]]}])
    (mas,) = results.summarize(content).methods
    assert (mas.average, mas.forgetting) == (Estimate(0.8), None)


def test_runs_of_several_orders_are_summed_up_task_by_task_and_place_by_place(content: Content) -> None:
    content["runs"][2].update(learned=["b", "a"], order=1)  # its first task, now at 74 %, is b
    summary = results.summarize(content)
    assert (summary.tasks, summary.places, summary.runs) == (("a", "b"), ("task 1", "task 2"), "1 to 2 runs")
    mas = summary.methods[1]
    assert near(mas.now[0], 0.80, statistics.stdev([0.70, 0.9]))
    assert near(mas.now[1], 0.82, statistics.stdev([0.9, 0.74]))
    assert near(mas.learned[0], 0.85, statistics.stdev([0.8, 0.9]))
    assert near(mas.matrix[1][0], 0.72, statistics.stdev([0.70, 0.74]))
    assert near(mas.average, 0.81, statistics.stdev([0.80, 0.82]))
    one = results.summarize({**content, "runs": content["runs"][:2]})
    assert (one.places, one.runs) == (one.tasks, "1 seed")


@given(st.permutations(["a", "b", "c", "d"]))
def test_a_task_keeps_its_figures_wherever_it_was_learned(learned: list[str]) -> None:
    left = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    rows = [[left[name] for name in learned]] * 4
    content = {"method": "mas", "seed": 0, "strength": 1.0, "accuracy": rows, "learned": learned}
    summary = results.summarize({"experiment": "x", "tasks": list(left), "runs": [content], "environment": {}})
    assert [each.mean for each in summary.methods[0].now if each] == list(left.values())
    assert summary.methods[0].learned == summary.methods[0].now


def test_strengths_that_differ_are_a_range(content: Content) -> None:
    content["runs"][2]["strength"] = 0.25
    assert results.summarize(content).methods[1].label == "mas, λ = 0.25 … 1"


def test_a_strength_that_was_found_by_itself_is_told_as_such(content: Content) -> None:
    for run, found in zip(content["runs"][1:], (0.0123456, 0.0202), strict=True):
        run |= {"settings": {"strength": "auto"}, "strength": found}
    (_, mas) = results.summarize(content).methods
    assert (mas.given, mas.label) == ("auto", "mas, auto λ = 0.0123 … 0.0202")
    content["runs"][2]["settings"] = ["no", "settings"]
    assert results.summarize(content).methods[1].given is None  # they differ
    content["runs"][1] |= {"settings": {"strength": 1.0}, "strengths": [None, 0.5]}
    assert results.given(content["runs"][1]) == "search"


def test_names_are_made_printable(content: Content) -> None:
    content.update(experiment="a\x1b[31m", tasks=["x\ny", "ü €"])
    summary = results.summarize(content)
    assert (summary.experiment, summary.tasks) == ("a\ufffd[31m", ("x\ufffdy", "ü €"))


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.6134), "61.3"),
        (Estimate(1.0), "100.0"),
        (Estimate(-0.0001), "0.0"),
        (Estimate(-0.012, 0.0046), "-1.2 ± 0.5"),
    ],
)
def test_percent(estimate: Estimate, text: str) -> None:
    assert estimate.percent() == text


def test_read_takes_the_file_or_its_folder(content: Content, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json", content)
    assert results.read(tmp_path) == results.read(tmp_path / "results.json") == content


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "NaN", '{"experiment": "x"}', "[" * 100_000])
def test_read_refuses_other_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ForgetlessError, match=r"results\.json"):
        results.read(tmp_path)


def test_read_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="cannot be read"):
        results.read(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (["experiment"], 3, "the field 'experiment' is missing or not a str."),
        (["tasks"], [], "'tasks' is not a list of one or more names."),
        (["tasks"], ["a", 1], "'tasks' is not a list of one or more names."),
        (["environment"], [], "the field 'environment' is missing or not a dict."),
        (["runs", 1], 5, "run 1 names no method."),
        (["runs", 0, "method"], None, "run 0 names no method."),
        (["runs", 0, "seed"], True, "run 0 has no integer seed."),
        (["runs", 0, "column"], ["a"], "run 0 has a 'column' that is not text."),
        (["runs", 0, "strength"], "1", "run 0 has a strength that is neither a number nor null."),
        (["runs", 0, "seconds"], {"train": math.nan}, "run 0 has 'seconds' that are not numbers by name."),
        (["runs", 0, "learned"], "ab", "run 0 has a 'learned' that is no order of the tasks."),
        (["runs", 0, "learned"], ["a", "a"], "run 0 has a 'learned' that is no order of the tasks."),
        (["runs", 0, "learned"], ["a", 1, {}], "run 0 has a 'learned' that is no order of the tasks."),
        (["runs", 0, "accuracy"], [[0.1, 0.2]], "run 0 has no accuracy matrix of 2 rows, one per task."),
        (["runs", 0, "accuracy", 1], [0.1], "run 0 has an accuracy row that is not 2 entries long."),
        (["runs", 0, "accuracy", 1, 0], 1.5, "run 0 has an accuracy that is neither null nor between 0 and 1."),
        (["runs", 0, "accuracy", 1, 0], math.nan, "run 0 has an accuracy that is neither null nor between 0 and 1."),
        (["runs", 0, "accuracy", 1, 0], "0.5", "run 0 has an accuracy that is neither null nor between 0 and 1."),
    ],
)
def test_refuses_other_content(content: Content, path: list[Any], value: Any, sentence: str) -> None:
    inner = content = copy.deepcopy(content)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ForgetlessError) as refusal:
        results.check(content)
    assert str(refusal.value) == sentence

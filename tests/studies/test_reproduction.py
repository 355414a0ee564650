from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from forgetless.lab import results
from forgetless.lab.experiments import split_mnist
from forgetless.lab.running.run import run_all
from idx_files import written
from studies import reproduction
from studies.collect import collect

RUN = {"method": "mas", "seed": 0, "strength": 1.0, "accuracy": [[0.9, None], [0.8, 0.7]], "seconds": {}}


def committed(path: Path, data: str) -> None:
    found = {"experiment": "split-mnist", "tasks": ["a", "b"], "runs": [RUN], "environment": {}}
    results.write(path, {**found, "data": data, "budget": {"epochs": 4, "steps": 376}})


def test_what_is_missing_is_said_to_be(tmp_path: Path) -> None:
    text = reproduction.page(tmp_path)
    assert text.count("Not run yet") == 10
    assert "forgetless run split-mnist" in text


def test_the_page_is_made_of_the_runs_there_are(tmp_path: Path) -> None:
    written(tmp_path / "data")
    suite = split_mnist.SplitMNIST(data=tmp_path / "data", scenario="task").build()
    (task,) = suite.experiments.values()
    short = {"task": dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, epochs=1))}
    found = run_all(short, ["finetune"], [0], tmp_path / "run")
    collect(tmp_path / "run", "split-mnist/published", tmp_path / "results", "Twenty pictures.")
    text = reproduction.page(tmp_path / "results")
    matrix = found["task"]["runs"][0]["accuracy"]
    mean = 100 * sum(matrix[-1]) / 5
    assert f"| finetune | – | 93.46 ± 2.01 | {mean:.2f} | 1 | **below** |" in text
    assert "Twenty pictures. Steps are matched, not epochs: 1 epochs are as many as 4 in" in text
    fresh = 100 * sum(matrix[i][i] for i in range(5)) / 5
    assert f"`finetune`: {mean - 93.46:+.2f} points. Accuracy when learned: {fresh:.2f} %." in text
    assert text.count("Not run yet") == 9


def test_another_set_is_shown_without_verdicts(tmp_path: Path) -> None:
    committed(tmp_path / "split-mnist" / "fashion-task.json", "Twenty shirts.")
    text = reproduction.page(tmp_path)
    assert "Twenty shirts. As many pictures and as many steps (376 a task) as in the" in text
    assert "| mas | 1 | – | 75.00 | 1 | – |" in text


def test_a_miss_is_compared_with_what_all_data_together_give() -> None:
    def run(method: str, seed: int, last: float) -> dict[str, Any]:
        return {"method": method, "seed": seed, "accuracy": [[0.9, None], [last, last]]}

    runs = [run("mas", 0, 0.96), run("mas", 1, 0.94), run("joint", 0, 0.98), run("joint", 1, 0.98)]
    lines = list(reproduction._misses({"task": {"runs": runs}}))
    assert lines[0] == (
        "- task-incremental, `mas`: -4.22 points. Accuracy when learned: 92.50 %. "
        "Difference to `joint`: -3.00 here, -0.30 published."
    )
    assert lines[1] == "- task-incremental, `joint`: -1.52 points. Accuracy when learned: 94.00 %."


def test_the_readme_takes_what_the_runs_say_or_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- split MNIST -->\nold\n<!-- end of split MNIST -->\nafter\n")
    root, docs = tmp_path / "results", tmp_path / "docs"
    words = ["--results", str(root), "--docs", str(docs), "--readme", str(readme)]
    for scenario in ("task", "domain"):
        committed(root / "split-mnist" / f"published-{scenario}.json", "Few.")
    with pytest.raises(SystemExit) as caught:
        reproduction.main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"forgetless: {root} holds no run of MAS on split MNIST, class-incremental.\n"
    assert not docs.exists()
    committed(root / "split-mnist" / "published-class.json", "Few.")
    reproduction.main(words)
    assert readme.read_text() == (
        "before\n<!-- split MNIST -->\n"
        "| MAS on split MNIST | here, % | published, % | runs |\n|---|---|---|---|\n"
        "| task-incremental | 75.00 | 99.22 ± 0.21 | 1 |\n| domain-incremental | 75.00 | 68.57 ± 6.85 | 1 |\n"
        "| class-incremental | 75.00 | 19.52 ± 0.29 | 1 |\n"
        "<!-- end of split MNIST -->\nafter\n"
    )
    assert (docs / "reproduction.md").read_text() == reproduction.page(root)

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments.test_digits import written
from forgetless.experiments import split_mnist
from forgetless.running.run import run_all
from forgetless.studies import reproduction


def test_what_is_missing_is_said_to_be(tmp_path: Path) -> None:
    text = reproduction.page(tmp_path)
    assert text.count("Not run yet") == 3
    assert "forgetless run split-mnist" in text


def test_the_page_is_made_of_the_runs_there_are(tmp_path: Path) -> None:
    written(tmp_path / "data")
    suite = split_mnist.experiment(data=str(tmp_path / "data"), scenario="task")
    (task,) = suite.experiments.values()
    short = {"task": dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, epochs=1))}
    found = run_all(short, ["finetune"], [0], tmp_path / "run")
    reproduction.collect(tmp_path / "run", tmp_path / "results" / "split-mnist" / "published", "Twenty pictures.")
    text = reproduction.page(tmp_path / "results")
    mean = 100 * sum(found["task"]["runs"][0]["accuracy"][-1]) / 5
    assert f"| finetune | – | 93.46 ± 2.01 | {mean:.2f} | 1 | **below** |" in text
    assert "Twenty pictures. Steps are matched, not epochs: 1 epochs here" in text
    assert f"task-incremental, `finetune`: {mean - 93.46:+.2f} points. Not explained yet." in text
    assert text.count("Not run yet") == 3  # λ by stability decay, and two more experiments

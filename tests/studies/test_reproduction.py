from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from forgetless.lab.experiments import split_mnist
from forgetless.lab.running.run import run_all
from idx_files import written
from studies import reproduction


def test_what_is_missing_is_said_to_be(tmp_path: Path) -> None:
    text = reproduction.page(tmp_path)
    assert text.count("Not run yet") == 7
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
    assert "Twenty pictures. Steps are matched, not epochs: 1 epochs are as many as 4 there" in text
    matrix = found["task"]["runs"][0]["accuracy"]
    fresh = 100 * sum(matrix[i][i] for i in range(5)) / 5
    assert f"`finetune`: {mean - 93.46:+.2f} points. When a task was new, it was right in {fresh:.2f} %." in text
    assert text.count("Not run yet") == 6  # four more columns, and two more experiments


def test_another_set_is_shown_without_verdicts(tmp_path: Path) -> None:
    run = {"method": "mas", "seed": 0, "strength": 1.0, "settings": {}, "accuracy": [[0.9, None], [0.8, 0.7]]}
    facts = {"data": "Twenty shirts.", "epochs": 4, "steps": 376}
    found = {"experiment": "split-mnist", "tasks": ["a", "b"], "runs": [{**run, "seconds": {}}], "environment": {}}
    path = tmp_path / "split-mnist" / "fashion" / "task.json"
    for each in (path, tmp_path / "split-mnist" / "published" / "task.json"):
        each.parent.mkdir(parents=True)
        each.write_text(json.dumps({**found, "reproduction": facts}))
    text = reproduction.page(tmp_path)
    assert "Twenty shirts. As many pictures and as many steps (376 a task) as in the" in text
    assert "| mas | 1 | – | 75.00 | 1 | – |" in text


def test_a_miss_is_held_against_what_all_data_together_give() -> None:
    def run(method: str, seed: int, last: float) -> dict:
        return {"method": method, "seed": seed, "accuracy": [[0.9, None], [last, last]]}

    runs = [run("mas", 0, 0.96), run("mas", 1, 0.94), run("joint", 0, 0.98), run("joint", 1, 0.98)]
    lines = list(reproduction._misses({"task": {"runs": runs}}))
    assert lines[0] == (
        "- task-incremental, `mas`: -4.22 points. When a task was new, it was right in 92.50 %. "
        "Against `joint` it has -3.00 here and -0.30 there."
    )
    assert lines[1] == "- task-incremental, `joint`: -1.52 points. When a task was new, it was right in 94.00 %."


def test_the_readme_takes_what_the_runs_say_or_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"method": "mas", "seed": 0, "strength": 1.0, "accuracy": [[0.9, None], [0.8, 0.7]], "seconds": {}}
    found = {"experiment": "split-mnist", "tasks": ["a", "b"], "runs": [run], "environment": {}}
    facts = {"data": "Few.", "epochs": 4, "steps": 376}
    folder, readme, out = tmp_path / "split-mnist" / "published", tmp_path / "README.md", tmp_path / "page.md"
    folder.mkdir(parents=True)
    readme.write_text("before\n<!-- split MNIST -->\nold\n<!-- end of split MNIST -->\nafter\n")
    words = ["page", str(tmp_path), "--out", str(out), "--readme", str(readme)]
    for scenario in ("task", "domain"):
        (folder / f"{scenario}.json").write_text(json.dumps({**found, "reproduction": facts}))
    with pytest.raises(SystemExit) as caught:
        reproduction.main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"forgetless: {tmp_path} holds no run of MAS on split MNIST, class-incremental.\n"
    )
    assert not out.exists()
    (folder / "class.json").write_text(json.dumps({**found, "reproduction": facts}))
    reproduction.main(words)
    assert readme.read_text() == (
        "before\n<!-- split MNIST -->\n"
        "| MAS on split MNIST | here, % | published, % | runs |\n|---|---|---|---|\n"
        "| task-incremental | 75.00 | 99.22 ± 0.21 | 1 |\n| domain-incremental | 75.00 | 68.57 ± 6.85 | 1 |\n"
        "| class-incremental | 75.00 | 19.52 ± 0.29 | 1 |\n"
        "<!-- end of split MNIST -->\nafter\n"
    )
    assert out.read_text() == reproduction.page(tmp_path)


def test_the_committed_page_and_readme_say_what_the_committed_runs_say() -> None:
    root = Path(__file__).parents[2]
    assert (root / "docs" / "reproduction.md").read_text(encoding="utf-8") == reproduction.page(
        root / "docs" / "results"
    )
    assert reproduction.claims(root / "docs" / "results") in (root / "README.md").read_text(encoding="utf-8")

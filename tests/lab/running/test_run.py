from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.running.environment import environment
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.run import run
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from streams import network, stream

RECIPE = Recipe(lr=0.1, epochs=2, batch_size=24)
EXPERIMENT = Experiment("small", stream(3), network, RECIPE, {"network": "small"}, ("--size", "8"))
NAMES = ["finetune", "frozen", "mas"]
MATRICES = [(name, seed) for seed in (1, 2) for name in NAMES]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupting(method: str, seed: int, task: int) -> Callable[[Job, Progress], None]:
    """Press Ctrl-C in the middle of a task."""

    def press(job: Job, progress: Progress) -> None:
        if (job.method, job.seed, progress.task, progress.step) == (method, seed, task, 2):
            raise KeyboardInterrupt

    return press


def accuracies(found: dict[str, Any]) -> dict[tuple[str, int], Any]:
    return {(each["method"], each["seed"]): each["accuracy"] for each in found["runs"]}


def test_every_method_and_seed_is_run_once_and_written(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "small"
    seen = []
    found = run(EXPERIMENT, NAMES, [1, 2], out, on_progress=lambda job, _: seen.append((job.method, job.seed)))
    assert list(accuracies(found)) == MATRICES == list(dict.fromkeys(seen))
    assert found == results.read(out)
    assert set(found) == {"experiment", "tasks", "runs", "environment"}
    assert found["experiment"] == "small"
    assert found["tasks"] == [task.name for task in EXPERIMENT.tasks]
    for each in found["runs"]:
        assert set(each) == {"method", "seed", "settings", "strength", "accuracy", "seconds"}
        assert each["strength"] == (1.0 if each["method"] == "mas" else None)
        assert each["accuracy"][0][1:] == [None, None]
        assert None not in each["accuracy"][2]
    checkpoints = {path.name for path in (out / "checkpoints").iterdir()}
    assert checkpoints == {f"{name}-{seed}.safetensors" for name, seed in MATRICES}
    assert "mas" in (out / "report.html").read_text()


def test_the_log_has_a_line_per_epoch_and_phase(tmp_path: Path) -> None:
    run(EXPERIMENT, ["mas"], [1], tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    task = ["train", "train", "measure", "evaluate"]
    assert [line["event"] for line in lines] == ["start", *task, *(["warm_start", *task] * 2), "done"]
    assert all(line["time"].endswith("Z") for line in lines)
    assert lines[1]["loss"] > 0


def test_one_method_does_not_change_another(tmp_path: Path) -> None:
    together = run(EXPERIMENT, NAMES, [1, 2], tmp_path / "together")
    alone = run(EXPERIMENT, ["mas"], [2], tmp_path / "alone")
    assert accuracies(alone)["mas", 2] == accuracies(together)["mas", 2]


@pytest.mark.parametrize(
    ("method", "seed", "task", "done"), [("finetune", 1, 1, 0), ("mas", 1, 2, 2), ("frozen", 2, 3, 4)]
)
def test_an_interrupted_run_continues_to_the_same_result(
    tmp_path: Path, method: str, seed: int, task: int, done: int
) -> None:
    whole = run(EXPERIMENT, NAMES, [1, 2], tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(EXPERIMENT, NAMES, [1, 2], out, on_progress=interrupting(method, seed, task))
    assert len(results.read(out)["runs"]) == done
    with pytest.raises(ForgetlessError, match=rf"is unfinished: {done} of 6 runs are done; add --resume to continue"):
        run(EXPERIMENT, NAMES, [1, 2], out)
    steps = []
    found = run(EXPERIMENT, NAMES, [1, 2], out, resume=True, on_progress=lambda *what: steps.append(what))
    assert accuracies(found) == accuracies(whole)
    assert list(accuracies(found)) == MATRICES
    first = next(progress for _, progress in steps if progress.phase == "train")
    assert (first.task, first.step) == (task, 3)


def test_a_finished_run_is_read_and_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run(EXPERIMENT, NAMES, [1], out)
    before = contents(out)
    for resume in (False, True):
        again = run(EXPERIMENT, NAMES, [1], out, resume=resume, on_progress=lambda *what: pytest.fail("ran again"))
        assert again == found
    assert contents(out) == before


def test_methods_and_seeds_can_be_added_later(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(EXPERIMENT, ["finetune"], [1], out)
    with pytest.raises(ForgetlessError, match="is unfinished: 1 of 2 runs are done"):
        run(EXPERIMENT, ["finetune", "mas"], [1], out)
    found = run(EXPERIMENT, ["finetune", "mas"], [1], out, resume=True)
    assert list(accuracies(found)) == [("finetune", 1), ("mas", 1)]


def test_resuming_what_was_never_started_starts_it(tmp_path: Path) -> None:
    assert len(run(EXPERIMENT, ["finetune"], [1], tmp_path / "out", resume=True)["runs"]) == 1


OTHERS = {
    "recipe.epochs is 2 there and 3 here": dataclasses.replace(
        EXPERIMENT, recipe=dataclasses.replace(RECIPE, epochs=3)
    ),
    'experiment is "small" there and "large" here': dataclasses.replace(EXPERIMENT, name="large"),
    'network is "small" there and absent here': dataclasses.replace(EXPERIMENT, config={}),
    'tasks.2.name is "task.2" there and absent here': dataclasses.replace(EXPERIMENT, tasks=stream(2)),
    "tasks.0.sha256 is": dataclasses.replace(EXPERIMENT, tasks=stream(3, noise=0.6)),
    "tasks.0.train is 48 there and 49 here": dataclasses.replace(EXPERIMENT, tasks=stream(3, samples=49)),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_the_directory_of_another_experiment_is_refused(tmp_path: Path, difference: str) -> None:
    out = tmp_path / "out"
    run(EXPERIMENT, ["finetune"], [1], out)
    before = contents(tmp_path)
    with pytest.raises(ForgetlessError, match="holds another experiment: ") as caught:
        run(OTHERS[difference], ["finetune"], [1], out, resume=True)
    assert difference in str(caught.value)
    assert contents(tmp_path) == before


def test_another_strength_is_another_experiment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run(EXPERIMENT, ["finetune", "mas"], [1], out, strength=0.5)
    assert [each["strength"] for each in found["runs"]] == [None, 0.5]
    with pytest.raises(ForgetlessError, match=r"strength is 0\.5 there and null here"):
        run(EXPERIMENT, ["finetune", "mas"], [1], out)


@pytest.mark.parametrize(
    ("names", "seeds", "options", "sentence"),
    [
        (["finetune", "mass"], [1], {}, "there is no method 'mass'"),
        (["mas", "mas"], [1], {}, "a run needs one method or more, each once, not 'mas', 'mas'."),
        ([], [1], {}, "a run needs one method or more, each once, not none."),
        (["mas"], [], {}, "a run needs one seed or more, each once, not none."),
        (["mas"], [3, 3], {}, "a run needs one seed or more, each once, not '3', '3'."),
        (["finetune", "frozen"], [1], {"strength": 1.0}, "none of the methods 'finetune', 'frozen' takes a strength."),
        (["mas"], [1], {"strength": -1.0}, "the strength must be zero or positive and finite, not -1.0."),
        (["mas"], [1], {"strength": float("nan")}, "the strength must be zero or positive and finite, not nan."),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    tmp_path: Path, names: list[str], seeds: list[int], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ForgetlessError) as caught:
        run(EXPERIMENT, names, seeds, tmp_path / "out", **options)
    assert sentence in str(caught.value)
    assert contents(tmp_path) == {}
    assert not (tmp_path / "out").exists()


def test_the_environment_names_versions_and_no_one(tmp_path: Path) -> None:
    found = environment()
    assert found["torch"] == torch.__version__
    assert found["threads"] == 1
    assert str(Path.home()) not in json.dumps(found)
    recorded = run(EXPERIMENT, ["mas"], [4, 5], tmp_path / "out", strength=0.12345678)["environment"]
    command = "forgetless run small --size 8 --method mas --strength 0.12345678 --seed 4 --seeds 2 --out runs/small"
    assert recorded == {**found, "command": command}


def test_the_command_gives_all_that_is_in_the_directory_not_the_last_part_alone(tmp_path: Path) -> None:
    run(EXPERIMENT, ["mas", "finetune"], [4, 5], tmp_path / "out", orders=2)
    recorded = run(EXPERIMENT, ["frozen"], [6], tmp_path / "out", resume=True)["environment"]["command"]
    names = "--method mas --method finetune --method frozen"
    assert recorded == f"forgetless run small --size 8 {names} --seed 4 --seeds 3 --out runs/small --orders 2"


def test_a_run_that_diverges_leaves_the_others(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, lr=1e30)
    with pytest.raises(ForgetlessError, match="lower lr"):
        run(dataclasses.replace(EXPERIMENT, recipe=recipe), ["finetune"], [1], tmp_path / "out")
    assert results.read(tmp_path / "out")["runs"] == []

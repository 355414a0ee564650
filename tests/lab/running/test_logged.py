"""A run's log, passed on to a logger while it grows and after it was continued."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.running.logged import Logged, logged
from run_log import RunLog

TWO = [[0.9, None], [0.7, 0.8]]


def rows(folder: Path) -> list[tuple[str, int, str, float]]:
    with (folder / "logs" / "csv" / "metrics.csv").open(newline="") as file:
        return [(row["run"], int(row["step"]), row["key"], float(row["value"])) for row in csv.DictReader(file)]


def test_a_run_from_its_first_epoch_to_its_accuracies(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    log = Logged(folder, "csv")
    log.update()
    assert not folder.exists()  # nothing yet
    run = RunLog(folder)
    run.log("start", runs=[["mas", 0, 0]])
    run.train("mas", "a", 1)
    log.update()
    run.train("mas", "b", 3)
    run.log("importance", method="mas", seed=0, order=0, task="b", epoch=0, loss=None)
    log.update()
    assert rows(folder) == [("mas-0", 0, "forgetless/loss", 0.5), ("mas-0", 6, "forgetless/loss", 0.5)]
    run.log("done", method="mas", seed=0, accuracy=TWO, strength=3)
    log.close()
    assert rows(folder)[2:] == [
        ("mas-0", 4, "forgetless/accuracy/a", 0.9),
        ("mas-0", 4, "forgetless/average_accuracy", 0.9),
        ("mas-0", 8, "forgetless/accuracy/a", 0.7),
        ("mas-0", 8, "forgetless/accuracy/b", 0.8),
        ("mas-0", 8, "forgetless/average_accuracy", 0.75),
        ("mas-0", 8, "forgetless/forgetting", pytest.approx(0.2)),
        ("mas-0", 8, "forgetless/strength", 3.0),
    ]


def test_nothing_is_passed_on_twice_and_a_logger_that_comes_later_gets_all(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    run.train("mas", "a", 1)
    with logged([run.folder], ["csv"]):
        pass
    run.train("mas", "a", 2)
    with logged([run.folder], ["csv", "csv"]):
        pass
    assert [step for _, step, _, _ in rows(run.folder)] == [0, 1]


def test_an_epoch_that_a_resumed_run_tells_of_again_counts_once(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    run.train("mas", "a", 2)
    run.train("mas", "a", 2)
    with logged([run.folder], ["csv"]):
        pass
    run.train("mas", "a", 2)
    run.train("mas", "a", 3)
    with logged([run.folder], ["csv"]):
        pass
    assert [step for _, step, _, _ in rows(run.folder)] == [1, 2]


@pytest.mark.parametrize(
    "strange",
    [
        {"method": "mas", "task": "nowhere", "epoch": 1, "loss": 0.5},
        {"method": "mas", "task": "a", "epoch": 0, "loss": 0.5},
        {"method": "mas", "task": "a", "epoch": -1, "loss": 0.5},
        {"method": "mas", "task": "a", "epoch": 1, "loss": "low"},
        {"method": "../../../elsewhere", "task": "a", "epoch": 1, "loss": 0.5},
        {"method": 7, "task": "a", "epoch": 1, "loss": 0.5},
        {"task": "a", "epoch": 1, "loss": 0.5},
    ],
)
def test_a_line_that_no_run_has_written_is_left_out(strange: dict[str, object], tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    run.log("train", **strange)
    run.train("mas", "a", 2)
    with logged([run.folder], ["csv"]):
        pass
    assert rows(run.folder) == [("mas-0", 1, "forgetless/loss", 0.5)]


def test_a_record_of_what_was_passed_on_that_is_none_is_said(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    run.train("mas", "a", 1)
    (run.folder / "logs").mkdir()
    (run.folder / "logs" / "csv.json").write_text('{"read": -1}')
    with pytest.raises(ForgetlessError, match=r"csv\.json is damaged: read"):
        Logged(run.folder, "csv").update()


def test_an_order_of_the_tasks_decides_the_steps_and_the_names(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    run.log("done", method="ewc", seed=1, order=3, learned=["b", "a"], accuracy=TWO, strength=None)
    with logged([run.folder], ["csv"]):
        pass
    from forgetless.lab.running.work import order_of

    first = "ab"[order_of(3, 2)[0]]
    assert rows(run.folder)[0] == ("ewc-1-3", 4, f"forgetless/accuracy/{first}", 0.9)


def test_losses_and_accuracies_that_are_not_there(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    run.log("train", method="mas", seed=0, order=0, task="a", epoch=1, loss=None)
    run.log("done", method="mas", seed=0, accuracy=[[None, None], [None, 0.8]])
    with logged([run.folder], ["csv"]):
        pass
    assert rows(run.folder) == [("mas-0", 8, "forgetless/accuracy/b", 0.8)]


def test_what_is_wrong_is_said_before_anything_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ForgetlessError, match="there is no logger 'mlflow'"):
        Logged(tmp_path, "mlflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ForgetlessError, match=r"pip install tensorboard\.$"):
        Logged(tmp_path, "tensorboard")

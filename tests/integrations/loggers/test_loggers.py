"""Every logger keeps what it is given, under the same keys; each with its own package, where that is installed."""

from __future__ import annotations

import csv
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import forgetless
from forgetless.errors import ForgetlessError
from forgetless.integrations import loggers

Found = dict[tuple[str, int, str], float]  # run, step and key → value
STEPS = ((0, {"loss": 2.0, "forgetless/drift": 0.0}), (10, {"loss": 1.5, "forgetless/drift": 0.25}))


def from_csv(folder: Path, runs: tuple[str, ...]) -> Found:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return {(row["run"], int(row["step"]), row["key"]): float(row["value"]) for row in csv.DictReader(file)}


def from_tensorboard(folder: Path, runs: tuple[str, ...]) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for run in runs:
        events = EventAccumulator(str(folder / run)).Reload()
        for key in events.Tags()["scalars"]:
            found |= {(run, each.step, key): each.value for each in events.Scalars(key)}
    return found


def from_wandb(folder: Path, runs: tuple[str, ...]) -> Found:
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # a process of its own writes the files; it ends when they are whole
    found = {}
    for run in runs:
        name = (folder / f"{run}.id").read_text()
        for path in sorted(folder.glob(f"wandb/offline-run-*-{name}/*.wandb")):
            for data in leveldb(path.read_bytes()[7:]):
                record = wandb_internal_pb2.Record.FromString(data)
                items = {"/".join(each.nested_key) or each.key: each.value_json for each in record.history.item}
                if "forgetless/step" in items:
                    step = int(items.pop("forgetless/step"))
                    found |= {(run, step, key): float(text) for key, text in items.items() if not key.startswith("_")}
    return found


def leveldb(log: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: crc, length and kind (whole, or a first, middle or last part)."""
    at, record = 0, b""
    while at + 7 <= len(log):
        if 32768 - (at + 7) % 32768 < 7:  # the header of seven bytes is part of the first block
            at += 32768 - (at + 7) % 32768
            continue
        length, kind = struct.unpack_from("<HB", log, at + 4)
        record += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def from_trackio(folder: Path, runs: tuple[str, ...]) -> Found:
    from trackio.sqlite_storage import SQLiteStorage

    return {
        (run, each["step"], key): value
        for run in runs
        for each in SQLiteStorage.get_logs("letters", run)
        for key, value in each.items()
        if key not in ("step", "timestamp")
    }


READERS: dict[str, Callable[[Path, tuple[str, ...]], Found]] = {
    "csv": from_csv,
    "tensorboard": from_tensorboard,
    "wandb": from_wandb,
    "trackio": from_trackio,
}


@pytest.fixture(autouse=True)
def _nothing_leaves(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", READERS)
def test_two_runs_at_a_time_and_one_that_is_continued(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if (package := loggers.LOGGERS[name]) is not None:
        pytest.importorskip(package)
    if name == "trackio":
        for module in ("trackio.sqlite_storage", "trackio.utils", "trackio"):
            monkeypatch.setattr(f"{module}.TRACKIO_DIR", tmp_path / "kept")
    made = {run: loggers.create(name, tmp_path / "logs", run, project="letters") for run in ("mas-0", "ewc-0")}
    for step, values in STEPS:
        for each in made.values():
            each.log(step, values)
    for each in made.values():
        each.close()
    again = loggers.create(name, tmp_path / "logs", "mas-0", project="letters")
    again.log(5, {"late": 0.5})  # earlier than what is there
    again.close()
    expected = {(run, step, key): value for run in made for step, more in STEPS for key, value in more.items()}
    assert READERS[name](tmp_path / "logs", tuple(made)) == {**expected, ("mas-0", 5, "late"): 0.5}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["csv", "tensorboard"])
def test_what_was_logged_is_in_the_file_at_once(name: str, tmp_path: Path) -> None:
    if (package := loggers.LOGGERS[name]) is not None:
        pytest.importorskip(package)
    made = loggers.create(name, tmp_path, "mas-0")
    made.log(1, {"loss": 0.5})
    assert READERS[name](tmp_path, ("mas-0",)) == {("mas-0", 1, "loss"): 0.5}
    made.close()


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ForgetlessError) as caught:
        loggers.create("wandb", tmp_path / "logs")
    sentence = "the logger 'wandb' needs the package wandb, which is not installed: pip install wandb."
    assert str(caught.value) == sentence
    assert not (tmp_path / "logs").exists()


def test_an_unknown_logger_and_a_folder_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError) as caught:
        loggers.create("mlflow", tmp_path)
    assert str(caught.value) == "there is no logger 'mlflow'; there are 'csv', 'tensorboard', 'wandb', 'trackio'."
    (tmp_path / "file").touch()
    with pytest.raises(ForgetlessError, match=r"file cannot be written: one of its folders is a file; choose another"):
        loggers.create("csv", tmp_path / "file")


def test_the_figures_of_an_anchor_and_a_meter() -> None:
    torch.manual_seed(0)
    model, samples = nn.Linear(3, 2), torch.randn(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    anchor = forgetless.Anchor(model, forgetless.mas(model, samples), strength=0.5)
    assert loggers.figures(anchor) == {"forgetless/drift": 0.0, "forgetless/strength": 0.5}
    anchor.attach(optimizer)
    with forgetless.ForgettingMeter(model, samples, every=1).attach(optimizer) as meter:
        model(samples).sum().backward()
        optimizer.step()
    found = loggers.figures(anchor, meter)
    assert found["forgetless/drift"] == float(anchor.drift()) > 0
    assert found["forgetless/frozen_fraction"] == float(anchor.frozen_fraction())
    assert found["forgetless/agreement"] == meter.history[-1].agreement

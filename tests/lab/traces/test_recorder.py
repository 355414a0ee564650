"""A trace of a run: it changes nothing, survives a kill, and whatever is in its file makes a page or is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgetless import files
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.run import run
from forgetless.lab.traces import Trace, albums, read
from forgetless.lab.traces.album import _KIND as KIND
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from streams import network, stream

SIDE = 8


class Pixels(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 255


def pictured(seed: int) -> MultiHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MultiHead(nn.Sequential(Pixels(), nn.Linear(SIDE * SIDE, 12), nn.ReLU()), 12, scenario="class")


def pictures(tasks: int = 2, samples: int = 24) -> list[Task]:
    """Pictures of the dark and of the light half."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for number in range(tasks):
        labels = torch.arange(samples) % 2
        pixels = torch.randint(100, (samples, SIDE * SIDE), generator=generator, dtype=torch.uint8)
        pixels[labels == 1, number * 16 :] += 120
        found.append(classification(f"task {number}", (f"a{number}", f"b{number}"), (pixels, labels), (pixels, labels)))
    return found


class Words(nn.Module):
    """The mean of what stands for every token."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 12)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens).mean(1)  # type: ignore[no-any-return]


def reading(seed: int) -> MultiHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MultiHead(nn.Sequential(Words(), nn.Linear(12, 12), nn.ReLU()), 12)


def texts(tasks: int = 2, samples: int = 24) -> list[Task]:
    """Rows of five tokens, low ones or high ones."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for number in range(tasks):
        labels = torch.arange(samples) % 2
        tokens = torch.randint(10, (samples, 5), generator=generator) + 10 * labels[:, None]
        found.append(classification(f"task {number}", ("low", "high"), (tokens, labels), (tokens, labels)))
    return found


def written(tokens: Tensor) -> list[str]:
    return [f"<b>{row[0]}</b>" + "z" * 500 for row in tokens.tolist()]


def experiment(**more: Any) -> Experiment:
    return Experiment("small", stream(3), network, Recipe(lr=0.1, epochs=4, batch_size=8), **more)


def traced(folder: Path, found: dict[str, Any]) -> dict[str, Trace]:
    return read(folder, found["runs"]).first()


def test_what_a_run_leaves(tmp_path: Path) -> None:
    found = run(experiment(), ["finetune", "frozen", "mas"], [0], tmp_path)
    held = traced(tmp_path, found)
    assert held.keys() == {"finetune", "frozen", "mas"}
    for trace in held.values():
        assert [each.at for each in trace.moved] == [number / 8 for number in range(1, 25)]
        assert [end.task for end in trace.ends] == [1, 2, 3]
        assert [layer.name for layer in trace.ends[-1].layers] == ["backbone.0", "backbone.2"]
        assert trace.ends[0].answers == []  # these inputs are no pictures
    last = {name: trace.ends[-1].layers for name, trace in held.items()}
    assert [layer.held for layer in last["frozen"]] == [1.0, 1.0]
    assert [layer.held for layer in last["finetune"]] == [0.0, 0.0]
    assert all(layer.importance is None for layer in last["finetune"])
    assert all(
        layer.importance and len(layer.channels) == size for layer, size in zip(last["mas"], (16, 12), strict=True)
    )
    assert held["mas"].ends[0].layers[0].held == 0.0  # nothing is protected before the first task
    after = {end.layers[0].drift for end in held["frozen"].ends}
    assert len(after) == 1  # learned in the first task, frozen from then on
    model = network(0)  # the figures themselves, from the checkpoint
    start = {name: weights.clone() for name, weights in model.backbone.named_parameters()}
    from forgetless.files import read_tensors

    tensors, _ = read_tensors(tmp_path / "checkpoints" / "mas-0.safetensors", "checkpoint")
    moved = sum(float((tensors[f"model/backbone.{name}"] - each).square().sum()) for name, each in start.items())
    whole = sum(float(each.square().sum()) for each in start.values())
    assert held["mas"].moved[-1].drift == pytest.approx((moved / whole) ** 0.5, rel=1e-3)
    omega = tensors["method/anchor/importance.backbone.0.weight"]
    assert last["mas"][0].channels == pytest.approx(omega.mean(1).tolist(), rel=1e-3)


def test_it_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(experiment(), ["mas", "mas+er"], [0], tmp_path / "with")
    monkeypatch.setattr("forgetless.lab.traces.recorder.Recorder.note", lambda *_: None)
    plain = run(experiment(), ["mas", "mas+er"], [0], tmp_path / "without")
    assert [each["accuracy"] for each in found["runs"]] == [each["accuracy"] for each in plain["runs"]]
    from forgetless.files import read_tensors

    for name in ("mas-0", "mas+er-0"):
        one, other = (
            read_tensors(tmp_path / where / "checkpoints" / f"{name}.safetensors", "checkpoint")[0]
            for where in ("with", "without")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_that_was_stopped_has_the_same_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(experiment(), ["mas"], [0], tmp_path / "whole")
    backward, steps = torch.autograd.backward, 0

    def interrupted(*given: Any, **more: Any) -> None:
        nonlocal steps
        steps += 1
        backward(*given, **more)
        if steps == 35:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("forgetless.learn.train.torch.autograd.backward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(experiment(), ["mas"], [0], tmp_path / "stopped")
    found = run(experiment(), ["mas"], [0], tmp_path / "stopped", resume=True)
    assert traced(tmp_path / "stopped", found) == traced(tmp_path / "whole", whole)


def test_a_run_that_was_stopped_between_its_last_step_and_the_measurement_has_the_same_trace(tmp_path: Path) -> None:
    """What is held depends on how many steps the task had, which the process that goes on has not seen."""
    whole = run(experiment(), ["mas"], [0], tmp_path / "whole")

    def stop(job: object, progress: Progress) -> None:
        if progress.phase == "measure" and progress.task == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment(), ["mas"], [0], tmp_path / "stopped", on_progress=stop)
    found = run(experiment(), ["mas"], [0], tmp_path / "stopped", resume=True)
    assert traced(tmp_path / "stopped", found) == traced(tmp_path / "whole", whole)


def test_pictures_are_asked_about_when_learned_and_in_the_end(tmp_path: Path) -> None:
    asked = Experiment("pictures", pictures(), pictured, Recipe(lr=0.2, epochs=6, batch_size=8))
    found = run(asked, ["finetune"], [0], tmp_path)
    held = read(tmp_path, found["runs"])
    assert [(album.task, len(album.labels)) for album in held.albums] == [("task 0", 4), ("task 1", 4)]
    assert held.albums[0].pictures.shape == (4, 1, SIDE, SIDE)
    first, last = held.runs[0].ends
    assert {answer.answer for answer in first.answers} <= {"a0", "b0"}
    assert [answer.task for answer in last.answers] == ["task 0"] * 4 + ["task 1"] * 4
    assert {answer.answer for answer in last.answers} <= {"a0", "b0", "a1", "b1"}  # one head tells all classes apart
    assert "Answers before and after" in (tmp_path / "report.html").read_text()


def test_texts_are_asked_about_when_learned_and_in_the_end(tmp_path: Path) -> None:
    asked = Experiment("texts", texts(), reading, Recipe(lr=0.2, epochs=6, batch_size=8), written=written)
    found = run(asked, ["finetune"], [0], tmp_path)
    held = read(tmp_path, found["runs"])
    rows = texts()[0].test[0][[3, 9, 15, 21]]
    assert held.albums[0].texts == tuple(f"<b>{row[0]}</b>{'z' * 279}"[:279] + "…" for row in rows.tolist())
    assert [len(end.answers) for end in held.runs[0].ends] == [4, 8]
    page = (tmp_path / "report.html").read_text()
    assert page.count("<blockquote>&lt;b&gt;") == 8
    assert "zzz…</blockquote>" in page


def test_tokens_that_nothing_writes_are_shown_as_numbers() -> None:
    first, second = albums(texts())
    tokens = texts()[0].test[0][3].tolist()
    assert (first.texts[0], first.pictures, first.labels) == (" ".join(map(str, tokens)), None, ("high",) * 4)
    assert len(second.texts) == 4


def test_a_damaged_trace_is_left_out(tmp_path: Path) -> None:
    found = run(experiment(), ["mas"], [0], tmp_path)
    path = tmp_path / "traces" / "mas-0.jsonl"
    lines = path.read_text().splitlines()
    wrong = [
        "{",
        "[]",
        "null",
        '{"at": NaN, "drift": 1}',
        '{"at": 1, "drift": -1}',
        '{"task": 0, "layers": []}',
        "\x00",
    ]
    path.write_text("\n".join([*wrong, *lines, '{"at": 0.5, "dri']))
    held = traced(tmp_path, found)["mas"]
    assert len(held.moved) == 24
    path.write_bytes(b"\xff" * 9)
    assert traced(tmp_path, found) == {}
    path.unlink()
    path.mkdir()
    assert traced(tmp_path, found) == {}


@pytest.mark.parametrize("shape", [(1, 1, 0, 5), (1, 3, 8, 0), (1, 2, 8, 8), (2, 1, 8, 8), (1, 1, 8, 4096)])
def test_pictures_that_cannot_be_shown_are_left_out(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "traces" / "samples.safetensors"
    path.parent.mkdir()
    header = {"albums": [{"task": "a", "labels": ["one"]}]}
    files.write_tensors(path, {"0": torch.zeros(shape, dtype=torch.uint8)}, KIND, header)
    assert read(tmp_path, []).albums == ()
    files.write_tensors(path, {"0": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, KIND, header)
    assert [album.task for album in read(tmp_path, []).albums] == ["a"]


def test_texts_that_are_not_as_many_as_their_labels_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "traces" / "samples.safetensors"
    path.parent.mkdir()
    named = [{"task": name, "labels": ["one"], "texts": held} for name, held in (("a", []), ("b", ["x"]), ("c", [""]))]
    files.write_tensors(path, {}, KIND, {"albums": named})
    assert [album.task for album in read(tmp_path, []).albums] == ["b", "c"]
    files.write_tensors(path, {}, KIND, {"albums": [{"task": "a", "labels": ["one"], "texts": [1]}]})
    assert read(tmp_path, []).albums == ()


@pytest.mark.parametrize("method", ["../../outside", "../../traces/outside", "a/b", "x" * 5000, "\x00", "\ud800", ""])
def test_a_name_leads_nowhere_else(method: str, tmp_path: Path) -> None:
    (tmp_path / "run" / "traces").mkdir(parents=True)
    (tmp_path / "traces").mkdir()
    for folder in (tmp_path, tmp_path / "traces"):
        (folder / "outside-0.jsonl").write_text(json.dumps({"at": 1.0, "drift": 1.0}))
    for name in (method, str(tmp_path / "traces" / "outside")):
        assert read(tmp_path / "run", [{"method": name, "seed": 0}]).runs == ()

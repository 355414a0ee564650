"""Folders of safetensors written tensor by tensor: cut, damaged, continued, on a full disk, read by safetensors."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.files import streamed as module

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).view(3, 4),
    "empty": torch.zeros(0, 3),
    "odd": torch.arange(5, dtype=torch.uint8),
    "b": torch.randn(7, 3).bfloat16(),
    "scalar": torch.tensor(3.5, dtype=torch.float64),
    "flag": torch.tensor([True, False]),
}


def layout(tensors: dict[str, Tensor]) -> dict[str, files.Layout]:
    return {name: files.Layout(each.dtype, tuple(each.shape)) for name, each in tensors.items()}


def begun(out: Path, resume: bool = False, shard: int = 1 << 30, **asked: str) -> files.Streamed:
    return files.Streamed(out, layout(TENSORS), asked, resume, shard)


def read(folder: Path) -> dict[str, Tensor]:
    return {name: each for path in folder.glob("*.safetensors") for name, each in load_file(path).items()}


@pytest.mark.parametrize("shard", [1, 60, 1 << 30])
def test_it_is_what_safetensors_reads(shard: int, tmp_path: Path) -> None:
    writing = begun(tmp_path / "out", shard=shard)
    for name in reversed(writing.missing()):
        writing.put(name, TENSORS[name])
        assert torch.equal(writing.get(name), TENSORS[name])
    writing.finish({"config.json": b"{}"})
    found = read(tmp_path / "out")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) and found[name].dtype == TENSORS[name].dtype for name in found)
    again = files.Foreign(tmp_path / "out")
    assert again.layout() == {name: layout(TENSORS)[name] for name in again.names}
    assert all(torch.equal(again.read(name), TENSORS[name]) for name in TENSORS)
    assert not list(tmp_path.glob("*partial*"))
    if shard == 1:
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(each.nbytes for each in TENSORS.values())
        assert index["weight_map"].keys() == TENSORS.keys()
        assert len(set(index["weight_map"].values())) > 3


@settings(max_examples=25)
@given(cut=st.integers(0, 400), flipped=st.integers(0, 200))
def test_whatever_happened_to_the_part_it_ends_right_or_says_so(
    cut: int, flipped: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("cut") / "out"
    writing = begun(out)
    for name in writing.missing()[:4]:
        writing.put(name, TENSORS[name], {"of": name})
    writing.close()
    part = out.with_name("out.partial")
    journal = part / "journal.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(content[: max(0, len(content) - cut)])
    weights = bytearray((part / "model.safetensors").read_bytes())
    if flipped and (at := len(weights) - flipped) > 0:
        weights[at] ^= 1
        (part / "model.safetensors").write_bytes(weights)
    try:
        again = begun(out, resume=True)
    except ForgetlessError:  # the first line is gone
        assert len(content) - cut <= content.index(b"\n")
        return
    for name in again.missing():
        again.put(name, TENSORS[name])
    again.finish({})
    found = read(out)
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = begun(tmp_path / "out")
    writing.put("a", TENSORS["a"])

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    said = "out cannot be written: the disk is full; .*; what is finished is kept for --resume"
    with monkeypatch.context() as patched:
        patched.setattr(module, "_line", full)
        with pytest.raises(ForgetlessError, match=said):
            writing.put("b", TENSORS["b"])
    writing.close()
    again = begun(tmp_path / "out", resume=True)
    assert "a" in again.noted
    assert "b" not in again.noted
    for name in again.missing():
        again.put(name, TENSORS[name])
    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", full)  # some systems say it no earlier
        with pytest.raises(ForgetlessError, match=said):
            again.finish({})
    again.close()
    assert not (tmp_path / "out").exists()
    begun(tmp_path / "out", resume=True).finish({})
    assert read(tmp_path / "out").keys() == TENSORS.keys()


def test_it_waits_for_the_disk_once_for_many_small_tensors_and_before_the_folder_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[int, bool]] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        waited.append((os.fstat(handle).st_ino, (tmp_path / "out").exists()))
        fsync(handle)

    monkeypatch.setattr(module.os, "fsync", noted)
    many = {f"t{number}": torch.full((2,), float(number)) for number in range(300)}
    writing = files.Streamed(tmp_path / "out", layout(many), {}, False, shard=800)  # 8 bytes each: three files
    for name, each in many.items():
        writing.put(name, each)
    assert not waited
    writing.finish({})
    shards = {path.stat().st_ino for path in (tmp_path / "out").glob("*.safetensors")}
    assert len(shards) == 3
    assert shards <= {inode for inode, appeared in waited if not appeared}
    assert len(waited) < 10
    monkeypatch.setattr(module, "_MOST_WAITING", 800)
    waited.clear()
    writing = files.Streamed(tmp_path / "more", layout(many), {}, False)
    for name, each in many.items():
        writing.put(name, each)
    assert len(waited) == 3 * 2  # the file and the journal, every 800 bytes


def test_it_is_not_written_over_or_mixed(tmp_path: Path) -> None:
    begun(tmp_path / "out", scale="1").close()
    with pytest.raises(ForgetlessError, match="was stopped before; continue it with --resume, or remove it"):
        begun(tmp_path / "out", scale="1")
    with pytest.raises(ForgetlessError, match=r"of another request \(scale differ\)"):
        begun(tmp_path / "out", resume=True, scale="2")
    with pytest.raises(ForgetlessError, match=r"'a' is torch.float64 \(2,\), not torch.float32 \(3, 4\)"):
        begun(tmp_path / "out", resume=True, scale="1").put("a", torch.zeros(2, dtype=torch.float64))
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ForgetlessError, match="exists already and is not empty"):
        begun(tmp_path / "taken")
    (tmp_path / "free").mkdir()
    writing = begun(tmp_path / "free")
    for name in writing.missing():
        writing.put(name, TENSORS[name])
    writing.finish({})
    assert (tmp_path / "free" / "model.safetensors").exists()


def test_what_a_crash_has_left_in_the_journal_is_dropped(tmp_path: Path) -> None:
    writing = begun(tmp_path / "out")
    for name in writing.missing()[:3]:
        writing.put(name, TENSORS[name])
    writing.close()
    journal = tmp_path / "out.partial" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + b"\0" * 40 + b"\n" + lines[3])
    again = begun(tmp_path / "out", resume=True)
    assert list(again.noted) == list(TENSORS)[:2]
    for name in again.missing():
        again.put(name, TENSORS[name])
    again.finish({"sub/more.json": b"{}"})
    assert all(torch.equal(each, TENSORS[name]) for name, each in read(tmp_path / "out").items())
    assert (tmp_path / "out" / "sub" / "more.json").read_bytes() == b"{}"


def test_places_that_cannot_be_a_folder_are_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ForgetlessError, match="link is a link; name the folder itself"):
        begun(tmp_path / "link")
    with pytest.raises(ForgetlessError, match="its name is too long; choose a shorter one"):
        begun(tmp_path / ("x" * 300))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ForgetlessError, match="here exists already and is not empty"):
        begun(Path("."))


def test_a_second_one_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with begun(tmp_path / "out") as writing:
        writing.put("a", TENSORS["a"])
        held = {path.name: path.read_bytes() for path in (tmp_path / "out.partial").iterdir()}
        for resume in (False, True):
            with pytest.raises(ForgetlessError) as caught:
                begun(tmp_path / "out", resume=resume)
            assert str(caught.value) == (
                f"{tmp_path / 'out.partial'} is in use by another process ({os.getpid()}); wait until it ends, or "
                "choose another --out."
            )
        assert {path.name: path.read_bytes() for path in (tmp_path / "out.partial").iterdir()} == held
    with begun(tmp_path / "out", resume=True) as writing:
        assert list(writing.noted) == ["a"]
        for name in writing.missing():
            writing.put(name, TENSORS[name])
        writing.finish({})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_what_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: files.Streamed, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.Streamed, "_shape", full)
        with pytest.raises(ForgetlessError, match=r"out\.partial cannot be written: the disk is full"):
            begun(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.partial").mkdir()  # what a process has left that was killed before its first line
    (tmp_path / "out.partial" / "lock").write_text("1")
    begun(tmp_path / "out").close()


def test_a_folder_of_somebody_else_with_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "model.safetensors").write_bytes(b"mine")
    for resume in (False, True):
        with pytest.raises(ForgetlessError):
            begun(tmp_path / "out", resume=resume)
    assert [path.read_bytes() for path in (tmp_path / "out.partial").iterdir()] == [b"mine"]

"""Named tensors on disk: written whole or not at all; cut, wrong and hostile files get one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from forgetless import files
from forgetless.errors import ForgetlessError

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(2.5, dtype=torch.float64)}


def written(path: Path, tensors: dict[str, torch.Tensor] = TENSORS, **header: Any) -> Path:
    files.write_tensors(path, tensors, "importance", header)
    return path


def refused(path: Path, sentence: str) -> None:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ForgetlessError) as raised:
        files.read_tensors(path, "importance")
    assert str(raised.value) == sentence
    assert (path.read_bytes() if path.is_file() else None) == before


_DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@given(
    dtype=st.sampled_from(_DTYPES),
    shape=st.lists(st.integers(0, 4), max_size=3),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8),
)
def test_what_was_written_is_read(
    dtype: torch.dtype, shape: list[int], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("files") / "t"
    tensor = torch.randint(0, 2, shape).to(dtype)
    files.write_tensors(path, {f"x.{name}": tensor}, "importance", {"name": name})
    found, header = files.read_tensors(path, "importance")
    assert found[f"x.{name}"].dtype == dtype
    assert torch.equal(found[f"x.{name}"], tensor)
    assert header == {"name": name}


def test_tied_sliced_and_permuted_tensors_keep_their_values(tmp_path: Path) -> None:
    whole = torch.randn(4, 6)
    given = {"whole": whole, "tied": whole, "slice": whole[1:, ::2], "turned": whole.T}
    found, _ = files.read_tensors(written(tmp_path / "t", given), "importance")
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "t"
    refused(path, f"{path} does not exist; name a file of that kind (importance) that was saved before.")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 20, -1, -40])
def test_a_cut_file(length: int, tmp_path: Path) -> None:
    path = written(tmp_path / "t")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ForgetlessError, match=r"t is damaged or no importance file: .+\.$"):
        files.read_tensors(path, "importance")


@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_flipped_byte_is_noticed(place: int, flip: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.mktemp("files") / "t", count=3)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= flip
    path.write_bytes(bytes(content))
    try:
        found, header = files.read_tensors(path, "importance")
    except ForgetlessError:
        return
    # What a flip may change unnoticed is white space in the header.
    assert header == {"count": 3}
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "t", TENSORS, "anchor", {})
    refused(tmp_path / "t", f"{tmp_path / 't'} is no importance file: it holds 'anchor'.")


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    save_file(TENSORS, str(tmp_path / "t"))
    refused(tmp_path / "t", f"{tmp_path / 't'} is no importance file: it was not written by forgetless.")


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


def test_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ForgetlessError, match="is damaged or no importance file"):
        files.read_tensors("t", "importance")
    torch.save({"a": Bomb()}, "u")
    with pytest.raises(ForgetlessError, match="is damaged or no importance file"):
        files.read_tensors("u", "importance")
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 99}, "has format version 99 and this release reads 1; "),
        ({"version": None}, "has format version None and this release reads 1; "),
        ({"sha256": {}}, "is damaged: its header does not match its tensors."),
        ({"sha256": []}, "is damaged: its header does not match its tensors."),
        ({"header": []}, "is damaged: its header does not match its tensors."),
        ({"header": {"count": 4}}, "is damaged: its header is not the one written."),
        ({"kind": 3}, "is no importance file: it was not written by forgetless."),
    ],
)
def test_a_header_that_was_tampered_with(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = written(tmp_path / "t", count=3)
    with safe_open(str(path), framework="pt") as file:
        meta = json.loads(file.metadata()["forgetless"])
    save_file(TENSORS, str(path), metadata={"forgetless": json.dumps({**meta, **change})})
    with pytest.raises(ForgetlessError) as raised:
        files.read_tensors(path, "importance")
    assert sentence in str(raised.value)


@pytest.mark.parametrize("meta", ["[" * 100_000, "{", "null", "3", '"x"', "[]"])
def test_a_header_that_is_no_object(meta: str, tmp_path: Path) -> None:
    save_file(TENSORS, str(tmp_path / "t"), metadata={"forgetless": meta})
    with pytest.raises(ForgetlessError, match=r"t is (damaged or )?no importance file: .+\.$"):
        files.read_tensors(tmp_path / "t", "importance")


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = written(tmp_path / "t")
    before = path.read_bytes()
    for odd in (float("nan"), 10**400, object(), {1: 1, "1": 2}, "\ud800"):
        with pytest.raises(ForgetlessError, match=r"t cannot be (read|written)"):
            files.write_tensors(path, TENSORS, "importance", {"count": odd})

    def fail_half_way() -> None:
        with files.replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_is_readable_as_the_user_wants_it(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        written(tmp_path / "t")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o640


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex128])
def test_types_that_no_file_holds_are_refused_at_the_door(dtype: torch.dtype, tmp_path: Path) -> None:
    named = str(dtype).removeprefix("torch.")
    with pytest.raises(ForgetlessError) as raised:
        files.write_tensors(tmp_path / "t", {"a": torch.zeros(2).to(dtype)}, "importance", {})
    assert str(raised.value) == f"{tmp_path / 't'} cannot hold 'a': no file of this kind has {named}."
    assert list(tmp_path.iterdir()) == []


def foreign(path: Path, tensors: dict[str, torch.Tensor], header: str = "{}") -> Path:
    """A well-sealed file, as somebody else might write it."""
    sums = {name: files.sha256(tensor) for name, tensor in tensors.items()}
    seal = hashlib.sha256(header.encode()).hexdigest()
    meta = json.dumps({"kind": "importance", "version": 1, "sha256": sums, "header_sha256": seal})
    save_file(tensors, str(path), metadata={"forgetless": f'{meta[:-1]}, "header": {header}}}'})
    return path


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (torch.ones(2).to(torch.float8_e4m3fn), "has the type 'F8_E4M3', and it may be "),
        (torch.ones(2, dtype=torch.int64), "has the type int64, and it may be bfloat16, float16, float32, float64."),
        (torch.ones(2, dtype=torch.complex64), "has the type complex64, and it may be bfloat16, float16, "),
    ],
)
def test_a_reader_names_the_types_it_takes(tensor: torch.Tensor, sentence: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "t", {"a": tensor})
    with pytest.raises(ForgetlessError) as raised:
        files.read_tensors(path, "importance", dtypes=files.FLOATS)
    assert f"{path} cannot be used: 'a' {sentence}" in str(raised.value)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ('{"count": NaN}', "it holds NaN, which is not a number"),
        ('{"count": -Infinity}', "it holds -Infinity, which is not a number"),
        ('{"count": 1e999}', "the number 1e999 is beyond the range of a float"),
        (f'{{"count": {10**400}}}', "has more than 64 bits"),
        ('{"count": 1, "count": 1}', "the key 'count' is there twice"),
        ("[" * 70 + "]" * 70, "nests deeper than 64 levels"),
        ('"\\ud800"', "is not Unicode"),
        ("[1]", "its header does not match its tensors"),
    ],
)
def test_a_well_sealed_file_with_a_hostile_header(header: str, sentence: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "t", TENSORS, header)
    with pytest.raises(ForgetlessError) as raised:
        files.read_tensors(path, "importance")
    assert sentence in str(raised.value)
    assert len(str(raised.value)) < 500


def test_what_is_read_is_in_memory_unless_it_is_mapped(tmp_path: Path) -> None:
    path = written(tmp_path / "t")
    found, _ = files.read_tensors(path, "importance")
    os.truncate(path, 0)  # reading a mapped tensor would now end the process
    assert torch.equal(found["a.weight"], TENSORS["a.weight"])
    mapped, _ = files.read_tensors(written(path), "importance", mmap=True)
    path.unlink()
    assert torch.equal(mapped["a.weight"], TENSORS["a.weight"])


def test_mapped_tensors_of_all_sizes_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tensors, "_PIECE", 7)
    given = {
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(True),
        "piece": torch.arange(7, dtype=torch.uint8),
        "pieces": torch.arange(51.0),
    }
    found, _ = files.read_tensors(written(tmp_path / "t", given), "importance", mmap=True)
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in given)
    whole = (tmp_path / "t").read_bytes()
    for back in range(1, 213):  # every byte of every tensor
        (tmp_path / "t").unlink()  # nothing mapped is changed in place
        (tmp_path / "t").write_bytes(whole[:-back] + bytes([whole[-back] ^ 64]) + whole[len(whole) - back + 1 :])
        with pytest.raises(ForgetlessError, match=r"t is damaged: the bytes of '\w+' are not the ones written\.$"):
            files.read_tensors(tmp_path / "t", "importance", mmap=True)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_that_is_replaced_while_it_is_read_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mmap: bool
) -> None:
    path = written(tmp_path / "t", {"a": torch.zeros(3)})
    left = iter(range(3))

    def late(*args: Any, **options: Any) -> Any:
        for turn in left:  # such as a rank that saves what this one loads
            written(path, {"a": torch.full((3,), float(turn))})
            break
        return safe_open(*args, **options)

    monkeypatch.setattr(files.tensors.safetensors, "safe_open", late)
    found, _ = files.read_tensors(path, "importance", mmap=mmap)
    assert found["a"].tolist() == [2.0, 2.0, 2.0]


def test_a_file_that_never_stays_the_same_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "t")

    def late(*args: Any, **options: Any) -> Any:
        written(path)
        return safe_open(*args, **options)

    monkeypatch.setattr(files.tensors.safetensors, "safe_open", late)
    with pytest.raises(ForgetlessError, match=r"t changed each time it was read; try again when nothing writes to it"):
        files.read_tensors(path, "importance")


def test_a_file_that_is_removed_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "t")

    def late(*args: Any, **options: Any) -> Any:
        path.unlink()
        return safe_open(*args, **options)

    monkeypatch.setattr(files.tensors.safetensors, "safe_open", late)
    with pytest.raises(ForgetlessError, match=r"t cannot be read: .*[Nn]o such file"):
        files.read_tensors(path, "importance")


def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("os.umask was called"))
    written(tmp_path / "t")
    files.write_json(tmp_path / "j", 1)


def test_a_failing_library_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files.tensors, "save_file", full)
    with pytest.raises(ForgetlessError) as raised:
        written(tmp_path / "new" / "t")
    assert str(raised.value) == (
        f"{tmp_path / 'new' / 't'} cannot be written: the disk is full; free some space and try again."
    )
    assert list(tmp_path.iterdir()) == []

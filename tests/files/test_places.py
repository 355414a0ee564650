"""Every error of a file system is one sentence, nothing is half-written, only regular files are read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetless import files
from forgetless.errors import ForgetlessError


def refusal(do: Callable[[], object]) -> str:
    with pytest.raises(ForgetlessError) as raised:
        do()
    return str(raised.value)


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


READERS: list[Callable[[Path], object]] = [
    files.read_bytes,
    files.read_json,
    files.read_sealed,
    lambda path: files.read_tensors(path, "importance"),
]
WRITERS: list[Callable[[Path], object]] = [
    lambda path: files.write_text(path, "a"),
    lambda path: files.write_json(path, {}),
    lambda path: files.write_sealed(path, {}),
    lambda path: files.write_tensors(path, {}, "importance", {}),
]


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("pipe", "link"):
        said = refusal(lambda name=name: read(tmp_path / name))
        assert said == f"{tmp_path / name} cannot be read: it is a pipe or a device, not a regular file."
    assert refusal(lambda: read(tmp_path)) == f"{tmp_path} cannot be read: it is a folder, not a regular file."
    assert refusal(lambda: read(tmp_path / "circle")).endswith("its links lead in a circle; remove them.")
    assert "does not exist" in refusal(lambda: read(tmp_path / "none"))
    assert "name is too long" in refusal(lambda: read(tmp_path / ("x" * 300)))
    assert "cannot hold a NUL" in refusal(lambda: read(tmp_path / "a\0b"))
    assert "no file name can have" in refusal(lambda: read(tmp_path / "\ud801"))


@pytest.mark.parametrize("write", WRITERS)
def test_places_that_cannot_be_written(write: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    before = everything(tmp_path)
    assert refusal(lambda: write(tmp_path / "folder")) == (
        f"{tmp_path / 'folder'} cannot be written: a folder is in its place; remove the folder or choose another name."
    )
    inside = tmp_path / "file" / "new" / "t"
    assert "one of its folders is a file; choose another place" in refusal(lambda: write(inside))
    assert "its name is too long; choose a shorter one" in refusal(lambda: write(tmp_path / "a" / ("x" * 300)))
    assert "cannot hold a NUL" in refusal(lambda: write(tmp_path / "a\0b"))
    assert everything(tmp_path) == before
    write(tmp_path / ("x" * 250))  # the temporary name is no longer than the name


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full; free some space and try again"),
        (errno.EROFS, "the file system is read-only; choose another place"),
        (errno.EACCES, "permission is denied; choose another place or change the permissions"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("step", ["open", "fsync", "replace", "chmod"])
@pytest.mark.parametrize("write", WRITERS)
def test_a_system_that_refuses_leaves_the_old_file_and_nothing_else(
    write: Callable[[Path], object],
    step: str,
    number: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "old").write_text("mine")
    with monkeypatch.context() as patched:
        patched.setattr(os, step, refused)
        for name in ("old", "new", "made/new"):
            said = refusal(lambda name=name: write(tmp_path / name))
            assert said == f"{tmp_path / name} cannot be written: {reason}."
    assert everything(tmp_path) == [tmp_path / "old"]
    assert (tmp_path / "old").read_text() == "mine"


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "a", 5) == b"12345"
    said = refusal(lambda: files.read_bytes(tmp_path / "a", 4))
    assert said == f"{tmp_path / 'a'} cannot be read: it has 5 bytes, and 4 are the most here."


def test_advice_and_whoever_else_raises(tmp_path: Path) -> None:
    said = pytest.raises(ForgetlessError, match=r"a cannot be unpacked: it does not exist; get it again\.$")
    with said, files.told("a", "unpacked", "get it again"):
        (tmp_path / "none").read_bytes()
    with pytest.raises(KeyError), files.told("a"):
        raise KeyError


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    kept = [".hidden", "deep/.a.safetensors.0123456789abcde", "deep/a.0123456789abcdef", ".a.0123456789ABCDEF"]
    left = [".results.json.0123456789abcdef", "deep/.a b.safetensors.ffffffffffffffff"]
    for name in [*kept, *left]:
        (tmp_path / name).write_text("x")
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "whole"):
        raise KeyboardInterrupt
    (tmp_path / ".link.0123456789abcdef").symlink_to(tmp_path / ".hidden")
    files.tidied(tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert found == {*kept, ".link.0123456789abcdef"}


def test_only_regular_files_inside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (folder / "a").write_text("a")
    for name, target in (("in", "a"), ("out", "../outside"), ("circle", "circle"), ("sub/up", ".."), ("far", "/etc")):
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe")
    (tmp_path / "named").symlink_to("real")
    (tmp_path / "real-too").mkdir()
    (tmp_path / "real-too" / "a").write_text("a")
    for root in (folder, tmp_path / "named"):
        inside = files.Inside(root)
        assert [inside.complaint(root / name) for name in ("a", "in", "sub/up/a", "sub/../a")] == [None] * 4
        for name in ("out", "../outside", "far/passwd", "/etc/passwd", "../real-too/a", ".."):
            assert inside.complaint(root / name) == f"it lies outside {root}", name
        assert inside.complaint(root / "pipe") == "it is not a regular file"
        assert inside.complaint(root / "sub") == "it is not a regular file"
        assert inside.complaint(root / "circle") == "its links lead in a circle"
        assert inside.complaint(root / "none") == "it does not exist"
        assert inside.complaint(root / "a" / "b") == "one of its folders is a file"
        assert "NUL" in str(inside.complaint(root / "a\0")) or "null" in str(inside.complaint(root / "a\0"))
        assert refusal(lambda root=root, inside=inside: inside.file(root / "out")).endswith(f"it lies outside {root}.")

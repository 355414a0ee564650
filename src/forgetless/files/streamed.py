"""A folder of safetensors files written tensor by tensor, whole or not at all, and continued when stopped.

What is written lies in `OUT.partial` until all of it is there, and is then renamed to `OUT`. A line in the journal has
the SHA-256 of every tensor that is written; who continues believes a line where the bytes have that sum, so that it
does not matter which of the two a power cut leaves. All of it is on the disk before the folder is renamed, and every
64 MB until then: waiting for the disk after each tensor would take most of the time where they are small. A lock in the
folder lets one process at a time write there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError, quoted
from forgetless.files.foreign import INDEX, ONE, Foreign, Layout
from forgetless.files.lock import NAME as LOCK
from forgetless.files.lock import Lock
from forgetless.files.places import opened, read_bytes, told
from forgetless.files.strict import parse_json, write_json
from forgetless.files.tensors import stored_name

_JOURNAL = "journal.jsonl"
_PIECE = 1 << 20  # bytes of a file that are read at once
_MOST_WAITING = 64 << 20  # bytes that are written and may not be on the disk yet
_KEPT = "what is finished is kept for --resume"
_SHARD = (
    5 << 30
)  # bytes of tensors in a file at most, as in Hugging Face's libraries: a larger one has a file of its own


class Streamed:
    """A folder with `model.safetensors`, or several files and their index, that grows in `OUT.partial`.

    It is locked until `finish`, or until the end of a `with`.

    Args:
        out: the folder to be; it must not exist, or be empty.
        layout: tensor → type and shape, in the order of the files.
        asked: what decides the tensors' values, by name: writing goes on only where all of it is the same.
        resume: whether to continue what was stopped.
        shard: the most bytes of tensors in a file.

    Attributes:
        noted: tensor → what `put` was told about it, for those that are written.

    Raises:
        ForgetlessError: `out` is there already, something stopped is there and is not to be continued, or it is of
            another request, or the system does not let it be written.
    """

    def __init__(
        self, out: Path, layout: Mapping[str, Layout], asked: Mapping[str, str], resume: bool, shard: int = _SHARD
    ) -> None:
        out = out if out.name else Path(os.path.abspath(out))  # of "."
        with told(out):
            if out.is_symlink():
                raise ForgetlessError(f"{out} is a link; name the folder itself.")
        self._out, self._layout = out, dict(layout)
        self._folder = out.with_name(out.name + ".partial")
        self._files = _distributed(layout, shard)
        self._places = _placed(self._files)
        self.noted: dict[str, Any] = {}
        self._waiting: dict[str, int] = {}  # file → bytes that may not be on the disk yet
        with told(out):
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise ForgetlessError(f"{out} exists already and is not empty; choose another --out.")
        self._lock = Lock(self._folder)
        try:
            self._open(dict(asked), resume)
        except BaseException:
            self._lock.release()
            with contextlib.suppress(OSError):
                self._folder.rmdir()  # where nothing is in it
            raise

    def __enter__(self) -> Streamed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write there."""
        self._lock.release()

    def _open(self, asked: dict[str, str], resume: bool) -> None:
        with told(self._folder):
            begun = any(each.name != LOCK for each in self._folder.iterdir())
        if begun and not resume:
            raise ForgetlessError(f"{self._folder} was stopped before; continue it with --resume, or remove it.")
        if begun:
            self._continue(asked)
            return
        try:
            with told(self._folder):
                (self._folder / _JOURNAL).write_bytes(_line(asked))
                self._shape(self._folder)
            self._waiting = dict.fromkeys(self._files, 0)
        except BaseException:
            for name in (*self._files, _JOURNAL):
                with contextlib.suppress(OSError):
                    (self._folder / name).unlink(missing_ok=True)
            raise

    def _shape(self, folder: Path) -> None:
        """Give every file its header and its length; tensors that are there stay."""
        for name, tensors in self._files.items():
            header = _header(tensors)
            with (folder / name).open("rb+" if (folder / name).exists() else "wb") as file:
                file.write(header)
                file.truncate(len(header) + sum(each.size for each in tensors.values()))

    def _continue(self, asked: dict[str, str]) -> None:
        journal = self._folder / _JOURNAL
        content = read_bytes(journal)
        read: list[Any] = []
        whole = 0  # bytes of lines that are as they were written; behind them is what a crash has left
        for line in content.splitlines(keepends=True):
            try:
                entry = parse_json(line.decode("utf-8"), journal) if line.endswith(b"\n") else None
            except (ForgetlessError, UnicodeDecodeError):
                entry = None
            if not isinstance(entry, dict):
                break
            read.append(entry)
            whole += len(line)
        held = read[0] if read else None
        if not isinstance(held, dict) or held != asked:
            changed = [name for name in asked if not isinstance(held, dict) or held.get(name) != asked[name]]
            raise ForgetlessError(
                f"{self._folder} is of another request ({', '.join(changed) or 'other settings'} differ); remove it, "
                "or choose another --out."
            )
        with told(journal):
            self._shape(self._folder)  # again: nothing tells whether its bytes are still the ones written
            os.truncate(journal, whole)
        for entry in read[1:]:
            name = entry.get("name")
            if name in self._places and self._sum(name) == entry.get("sha256"):
                self.noted[name] = entry.get("note")

    def missing(self) -> list[str]:
        """The tensors that are still to be put, in the order of the files."""
        return [name for name in self._layout if name not in self.noted]

    def put(self, name: str, tensor: Tensor, note: Any = None) -> None:
        """Write a tensor where it belongs, and `note` (what JSON can hold) to the journal.

        Raises:
            ForgetlessError: it has another type or shape than was said, or the system does not let it be written;
                what was put before stays.
        """
        layout = self._layout[name]
        if tensor.dtype != layout.dtype or tuple(tensor.shape) != layout.shape:
            raise ForgetlessError(
                f"{quoted(name)} is {tensor.dtype} {tuple(tensor.shape)}, not {layout.dtype} {layout.shape}."
            )
        content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
        file, start = self._places[name]
        with told(self._out, advice=_KEPT), (self._folder / file).open("rb+") as opened_file:
            opened_file.seek(start)
            opened_file.write(content)
        entry = {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "note": note}
        with told(self._out, advice=_KEPT), (self._folder / _JOURNAL).open("ab") as journal:
            journal.write(_line(entry))
        self.noted[name] = note
        self._waiting[file] = self._waiting.get(file, 0) + layout.size
        if sum(self._waiting.values()) >= _MOST_WAITING:
            self._settle()

    def _settle(self) -> None:
        """Wait until all that was written is on the disk."""
        for name in (*self._waiting, _JOURNAL):
            with told(self._out, advice=_KEPT), (self._folder / name).open("rb+") as file:
                os.fsync(file.fileno())
        self._waiting = {}

    def get(self, name: str) -> Tensor:
        """A tensor that was put.

        Raises:
            ForgetlessError: the system does not let it be read.
        """
        return Foreign(self._folder / self._places[name][0]).read(name)

    def finish(self, others: Mapping[str, Path | bytes]) -> None:
        """Add other files, and let the folder appear.

        Args:
            others: name → a file to copy, or its content.

        Raises:
            ForgetlessError: a tensor is missing, or the system does not let it be written; nothing is lost.
        """
        assert not self.missing()
        self._settle()
        with told(self._out):
            for name, content in others.items():
                target = self._folder / name
                target.parent.mkdir(exist_ok=True)
                if isinstance(content, Path):
                    shutil.copyfile(content, target)
                else:
                    target.write_bytes(content)
        if len(self._files) > 1:
            total = sum(each.size for each in self._layout.values())
            listed = {name: file for file, tensors in self._files.items() for name in tensors}
            write_json(self._folder / INDEX, {"metadata": {"total_size": total}, "weight_map": listed})
        with told(self._out):
            with contextlib.suppress(FileNotFoundError):
                self._out.rmdir()  # an empty one
            self._folder.rename(self._out)
            self._lock.folder = self._out
            (self._out / _JOURNAL).unlink()
        self.close()

    def _sum(self, name: str) -> str | None:
        file, start = self._places[name]
        digest, left = hashlib.sha256(), self._layout[name].size
        with opened(self._folder / file) as content:
            content.seek(start)
            while left and (piece := content.read(min(left, _PIECE))):
                digest.update(piece)
                left -= len(piece)
        return None if left else digest.hexdigest()


def _distributed(layout: Mapping[str, Layout], shard: int) -> dict[str, dict[str, Layout]]:
    """File → its tensors: one, or as many as are needed, named as Hugging Face's libraries name them."""
    parts: list[dict[str, Layout]] = [{}]
    filled = 0
    for name, each in layout.items():
        if parts[-1] and filled + each.size > shard:
            parts.append({})
            filled = 0
        parts[-1][name] = each
        filled += each.size
    if len(parts) == 1:
        return {ONE: parts[0]}
    return {f"model-{n:05d}-of-{len(parts):05d}.safetensors": part for n, part in enumerate(parts, 1)}


def _header(tensors: Mapping[str, Layout]) -> bytes:
    """The beginning of a safetensors file: the header's length, then JSON, padded so that tensors begin aligned."""
    listed: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, each in _aligned(tensors).items():
        listed[name] = {
            "dtype": stored_name(each.dtype),
            "shape": list(each.shape),
            "data_offsets": [at, at + each.size],
        }
        at += each.size
    text = json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _aligned(tensors: Mapping[str, Layout]) -> dict[str, Layout]:
    """Wider types first, so that each tensor begins at a multiple of its element's bytes."""
    return dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))


def _placed(files: Mapping[str, Mapping[str, Layout]]) -> dict[str, tuple[str, int]]:
    """Tensor → its file and first byte."""
    places = {}
    for file, tensors in files.items():
        at = len(_header(tensors))
        for name, each in _aligned(tensors).items():
            places[name] = (file, at)
            at += each.size
    return places


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"

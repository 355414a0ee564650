"""Named tensors on disk: safetensors, written whole or not at all, and verified when read.

A file carries a JSON header (in safetensors' own metadata) with its format, its version, whatever its writer adds, and
a SHA-256 of that and of every tensor's bytes. It is written to a temporary name in the same folder and renamed, so a
crash leaves the old file or the new one, never half of one. Nothing here knows what the tensors mean.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import weakref
from collections.abc import Collection, ItemsView, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.files import verified
from forgetless.files.places import opened, replacing
from forgetless.files.strict import parse_json
from forgetless.model import sharding

_PIECE = 1 << 20  # bytes of a file that are read at once

FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_INTEGERS = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
_DTYPES = FLOATS | _INTEGERS | {torch.complex64}
#: How safetensors calls them in a file.
_NAMES: dict[str, torch.dtype] = {stored: getattr(torch, name) for stored, name in verified.NAMES.items()}


def sha256(tensor: Tensor) -> str:
    """The SHA-256 of the tensor's bytes in memory order, as 64 hexadecimal digits."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.stride() != (1,):  # a single element may be contiguous with any stride
        flat = flat.clone(memory_format=torch.contiguous_format)
    flat = flat.view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], kind: str, header: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON-able `header` to `path` (safetensors), whole or not at all.

    Where some are sharded over processes, every one of these must call it: the first writes them all in one piece, and
    the others return when it has.

    Args:
        path: the file; an existing one is replaced.
        tensors: name → tensor, any shapes, dtypes and devices.
        kind: what the file is ("importance", "anchor", "checkpoint"): reading asks for the same word.
        header: anything JSON can hold; NaN and Infinity are refused.

    Raises:
        ForgetlessError: a tensor has a type that these files do not hold (such as float8 or complex128), the header
            holds what JSON cannot, or the system does not let the file be written.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ForgetlessError(
                f"{path} cannot hold {quoted(name)}: no file of this kind has {_called(tensor.dtype)}."
            )
    taken: set[int] = set()
    stored = {name: _stored(tensor, taken) for name, tensor in tensors.items()}
    with sharding.written_once(tensors) as mine:
        if mine:
            _write(Path(path), stored, kind, header)


def _stored(tensor: Tensor, taken: set[int]) -> Tensor:
    """The tensor, whole and on the CPU; copied where its memory is `taken`: safetensors refuses tensors that share."""
    found = sharding.whole(tensor.detach()).cpu().resolve_conj().resolve_neg().contiguous()
    place = found.untyped_storage().data_ptr()
    found = found.clone() if place in taken else found
    taken.add(place)
    return found


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _write(path: Path, stored: dict[str, Tensor], kind: str, header: Mapping[str, Any]) -> None:
    try:
        seal = verified.seal(header)
        meta = {
            "kind": kind,
            "version": verified.VERSION,
            "sha256": {name: sha256(tensor) for name, tensor in stored.items()},
            "header": dict(header),
            "header_sha256": seal,
        }
        text = json.dumps(meta, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ForgetlessError(f"{path} cannot be written: its header is not JSON: {brief(error)}.") from error
    parse_json(text, f"the header of {path}")  # what is written can be read
    with replacing(path) as temporary:
        try:
            save_file(stored, str(temporary), metadata={verified.KEY: text})
        except safetensors.SafetensorError as error:  # it tells the system's errors in its own words
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, brief(error)) from error


def read_tensors(
    path: str | Path, kind: str, *, dtypes: Collection[torch.dtype] = _DTYPES, mmap: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what `write_tensors` wrote, verified.

    Args:
        path: the file.
        kind: what it must be: the word that was written.
        dtypes: the types that its tensors may have, such as `FLOATS`.
        mmap: leave the tensors in the file, from where each use reads them, instead of in memory. The file must then
            not be changed in place as long as they are used: the system ends a process that reads from a mapped file
            behind a new, earlier end.

    Returns:
        The tensors (on the CPU) by name, and the header.

    Raises:
        ForgetlessError: the file is missing, no regular file, cut, damaged, of another kind or from a newer version, or
            holds tensors of other types.
    """

    def load(found: Any, file: BinaryIO) -> tuple[dict[str, Tensor], dict[str, str]]:
        sums = _sums(file, path) if mmap else {}
        tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 (no mapping)
        if not mmap:
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            sums = {name: sha256(tensor) for name, tensor in tensors.items()}
        return tensors, sums

    return verified.read(path, kind, "pt", set(map(_called, dtypes)), load)


class Mapped:
    """A file that tensors are read from where they lie; the system ends a process that reads behind a new, earlier end.

    Args:
        path: the file, which is open from now on: one that replaces it under its name is another.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        with opened(self._path) as file:
            self._file = os.dup(file.fileno())
        self._size = os.fstat(self._file).st_size
        weakref.finalize(self, os.close, self._file)

    def check(self) -> None:
        """Before the tensors are used.

        Raises:
            ForgetlessError: the file has been cut.
        """
        size = os.fstat(self._file).st_size
        if size < self._size:
            raise ForgetlessError(
                f"{self._path} was cut from {self._size} to {size} bytes while its tensors were in use (mmap=True); "
                "restore it and load it again, or load it without mmap=."
            )


class MappedTensors(dict[str, Tensor]):
    """Tensors of a file that is looked at before they are used; a copy is an ordinary dict.

    Args:
        tensors: by name, as `read_tensors(mmap=True)` gives them.
        path: the file.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: str | Path) -> None:
        super().__init__(tensors)
        self._file = Mapped(path)

    def __getitem__(self, name: str) -> Tensor:
        self._file.check()
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:  # by which dict(self), {**self} and self | other come to __getitem__
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict."""
        self._file.check()
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        """As of a dict."""
        self._file.check()
        return super().pop(name, *default)

    def items(self) -> ItemsView[str, Tensor]:  # type: ignore[override]
        """As of a dict."""
        self._file.check()
        return super().items()

    def values(self) -> ValuesView[Tensor]:  # type: ignore[override]
        """As of a dict."""
        self._file.check()
        return super().values()

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return dict, (dict(self.items()),)


def kind_of(path: str | Path) -> str | None:
    """The kind of the file that `write_tensors` wrote; None where it does not tell, which `read_tensors` explains."""
    try:
        with opened(path), safetensors.safe_open(str(path), framework="pt") as found:
            kind = parse_json((found.metadata() or {})[verified.KEY], "its header")["kind"]
    except Exception:  # whatever is wrong with the file
        return None
    return kind if isinstance(kind, str) else None


def dtype_called(stored: str) -> torch.dtype | None:
    """The dtype that safetensors calls so; None for one that is not known here."""
    return _NAMES.get(stored)


def stored_name(dtype: torch.dtype) -> str:
    """What safetensors calls a dtype that `dtype_called` knows."""
    return next(name for name, known in _NAMES.items() if known == dtype)


def _sums(file: BinaryIO, path: str | Path) -> dict[str, str]:
    """The SHA-256 of every tensor's bytes, read from the file in pieces: mapped pages, once read, count as memory."""
    length = int.from_bytes(file.read(8), "little")
    listed = parse_json(file.read(length).decode("utf-8"), f"the list of tensors in {path}")
    sums, piece = {}, memoryview(bytearray(_PIECE))
    for name in listed.keys() - {"__metadata__"}:
        start, stop = listed[name]["data_offsets"]
        file.seek(8 + length + start)
        digest, left = hashlib.sha256(), stop - start
        while left and (count := file.readinto(piece[: min(left, _PIECE)])):  # type: ignore[attr-defined]
            digest.update(piece[:count])
            left -= count
        sums[name] = digest.hexdigest()
    return sums

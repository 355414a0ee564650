"""Named tensors on disk, verified, whichever library takes them: nothing here needs PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import safetensors

from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.files.places import opened, told
from forgetless.files.strict import parse_json
from forgetless.files.typed import decoded

KEY = "forgetless"  # of safetensors' metadata
VERSION = 1
_TRIES = 10  # to read a file that others replace

#: How safetensors calls the types in a file, and how everybody else does.
NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}

T = TypeVar("T")
#: An open file of safetensors, and the same file's bytes → what is in it by name, and the SHA-256 of each.
Load = Callable[[Any, BinaryIO], tuple[dict[str, T], dict[str, str]]]


def read(
    path: str | Path, kind: str, framework: str, types: Collection[str], load: Load[T]
) -> tuple[dict[str, T], dict[str, Any]]:
    """What `write_tensors` wrote, verified.

    Args:
        path: the file.
        kind: what it must be: the word that was written.
        framework: what safetensors shall make of its tensors: "pt", "np".
        types: those that its tensors may have, such as "float32".
        load: takes them out of the file.

    Returns:
        What `load` gives by name, and the header.

    Raises:
        ForgetlessError: the file is missing, no regular file, cut, damaged, of another kind or from a newer version, or
            holds tensors of other types.
    """
    path = Path(path)
    with told(path, "read"):
        there = path.exists() or path.is_symlink()
    if not there:
        raise ForgetlessError(f"{path} does not exist; name a file of that kind ({kind}) that was saved before.")
    for _ in range(_TRIES):  # a file that takes its place meanwhile is a whole one, and is read instead
        if (found := _read(path, kind, framework, types, load)) is not None:
            return found
    raise ForgetlessError(f"{path} changed each time it was read; try again when nothing writes to it.")


def _read(
    path: Path, kind: str, framework: str, types: Collection[str], load: Load[T]
) -> tuple[dict[str, T], dict[str, Any]] | None:
    """What `read` gives; None if the file was replaced between the two times that it is opened."""
    with opened(path) as file:
        before = os.fstat(file.fileno())
        try:
            with safetensors.safe_open(str(path), framework=framework) as found:
                if not os.path.samestat(before, path.stat()):  # what is mapped would not be what `file` reads
                    return None
                meta = _meta(path, kind, found.metadata())
                for name in found.keys():  # noqa: SIM118 (no mapping)
                    _refuse_type(path, name, str(found.get_slice(name).get_dtype()), types)
                tensors, sums = load(found, file)
        except (ForgetlessError, OSError):
            raise
        except Exception as error:
            raise ForgetlessError(f"{path} is damaged or no {kind} file: {brief(error)}.") from error
        if os.fstat(file.fileno()).st_size != before.st_size:
            return None
    for name in tensors:
        if name in meta["sha256"] and sums.get(name) != meta["sha256"][name]:
            raise ForgetlessError(f"{path} is damaged: the bytes of {quoted(name)} are not the ones written.")
    if set(meta["sha256"]) != set(tensors):
        raise ForgetlessError(f"{path} is damaged: its header does not match its tensors.")
    return tensors, meta["header"]


def seal(header: Mapping[str, Any]) -> str:
    """The SHA-256 of a header, as 64 hexadecimal digits.

    Raises:
        ValueError: it holds NaN or Infinity.
        TypeError: it holds what JSON cannot.
    """
    return hashlib.sha256(json.dumps(dict(header), allow_nan=False).encode()).hexdigest()


def _meta(path: Path, kind: str, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What `_write` noted: of this kind and version, with the header that was written and a checksum per tensor."""
    raw = (metadata or {}).get(KEY)
    try:
        meta = None if raw is None else parse_json(raw, "its header")
    except ForgetlessError as error:
        raise ForgetlessError(f"{path} is damaged or no {kind} file: {brief(error)}.") from error
    if not isinstance(meta, dict) or meta.get("kind") != kind:
        named = meta.get("kind") if isinstance(meta, dict) else None
        what = f"holds {quoted(named)}" if isinstance(named, str) else "was not written by forgetless"
        raise ForgetlessError(f"{path} is no {kind} file: it {what}.")
    if type(meta.get("version")) is not int or meta["version"] != VERSION:
        raise ForgetlessError(
            f"{path} has format version {quoted(meta.get('version'))} and this release reads {VERSION}; "
            "read it with the release that wrote it, or a newer one."
        )
    sums, header = meta.get("sha256"), meta.get("header")
    if not isinstance(sums, dict) or not isinstance(header, dict):
        raise ForgetlessError(f"{path} is damaged: its header does not match its tensors.")
    decoded(sums, dict[str, str], path)
    if seal(header) != meta.get("header_sha256"):
        raise ForgetlessError(f"{path} is damaged: its header is not the one written.")
    return meta


def _refuse_type(path: Path, name: str, stored: str, types: Collection[str]) -> None:
    called = NAMES.get(stored, quoted(stored))
    if called not in types:
        raise ForgetlessError(
            f"{path} cannot be used: {quoted(name)} has the type {called}, and it may be {', '.join(sorted(types))}."
        )

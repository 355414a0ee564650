"""Named tensors on disk: safetensors, written whole or not at all, and verified when read.

A file carries a JSON header (in safetensors' own metadata) with its format, its version, whatever its writer adds, and
a SHA-256 of that and of every tensor's bytes. It is written to a temporary name in the same folder and renamed, so a
crash leaves the old file or the new one, never half of one. Nothing here knows what the tensors mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.model import sharding

_KEY = "forgetless"
_VERSION = 1


def sha256(tensor: Tensor) -> str:
    """The SHA-256 of the tensor's bytes in memory order, as 64 hexadecimal digits."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.stride() != (1,):  # a single element may be contiguous with any stride
        flat = flat.clone(memory_format=torch.contiguous_format)
    flat = flat.view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any failure.

    The bytes are on the disk before the rename, so not even a power cut leaves half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; NaN and Infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ForgetlessError: the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ForgetlessError(f"{path} cannot be read as JSON: {_brief(error)}.") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], kind: str, header: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON-able `header` to `path` (safetensors), whole or not at all.

    Where some are sharded over processes, every one of these must call it: the first writes them all in one piece, and
    the others return when it has.

    Args:
        path: the file; an existing one is replaced.
        tensors: name → tensor, any shapes, dtypes and devices.
        kind: what the file is ("importance", "anchor", "checkpoint"): reading asks for the same word.
        header: anything JSON can hold; NaN and Infinity are refused.
    """
    # Clones: safetensors refuses tensors that share memory, and tied or sliced ones do.
    stored = {name: _stored(tensor) for name, tensor in tensors.items()}
    with sharding.written_once(tensors) as mine:
        if mine:
            _write(Path(path), stored, kind, header)


def _stored(tensor: Tensor) -> Tensor:
    return sharding.whole(tensor.detach()).cpu().contiguous().clone()


def _write(path: Path, stored: dict[str, Tensor], kind: str, header: Mapping[str, Any]) -> None:
    meta = {
        "kind": kind,
        "version": _VERSION,
        "sha256": {name: sha256(tensor) for name, tensor in stored.items()},
        "header": dict(header),
        "header_sha256": _seal(header),
    }
    with replacing(path) as temporary:
        save_file(stored, str(temporary), metadata={_KEY: json.dumps(meta, allow_nan=False)})


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what `write_tensors` wrote, verified.

    Returns:
        The tensors (on the CPU) by name, and the header.

    Raises:
        ForgetlessError: the file is missing, cut, damaged, of another kind or from a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise ForgetlessError(f"{path} does not exist; name a file of that kind ({kind}) that was saved before.")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            raw = (file.metadata() or {}).get(_KEY)
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names} if raw is not None else {}
        meta = json.loads(raw) if raw is not None else None
    except Exception as error:
        raise ForgetlessError(f"{path} is damaged or no {kind} file: {_brief(error)}.") from error
    if not isinstance(meta, dict) or meta.get("kind") != kind:
        found = meta.get("kind") if isinstance(meta, dict) else None
        what = f"holds {found!r}" if isinstance(found, str) else "was not written by forgetless"
        raise ForgetlessError(f"{path} is no {kind} file: it {what}.")
    if meta.get("version") != _VERSION:
        raise ForgetlessError(
            f"{path} has format version {meta.get('version')!r} and this release reads {_VERSION}; "
            "read it with the release that wrote it, or a newer one."
        )
    sums, header = meta.get("sha256"), meta.get("header")
    if not isinstance(sums, dict) or not isinstance(header, dict) or set(sums) != set(tensors):
        raise ForgetlessError(f"{path} is damaged: its header does not match its tensors.")
    for name, tensor in tensors.items():
        if sha256(tensor) != sums[name]:
            raise ForgetlessError(f"{path} is damaged: the bytes of {name!r} are not the ones written.")
    if _seal(header) != meta.get("header_sha256"):
        raise ForgetlessError(f"{path} is damaged: its header is not the one written.")
    return tensors, header


def _seal(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(header), allow_nan=False).encode()).hexdigest()


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]

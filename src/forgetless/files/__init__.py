"""Files: written whole or not at all, and read strictly; whatever is wrong with one is told in a sentence.

`told` turns the operating system's errors into sentences, `opened` opens nothing but regular files, `replacing` writes
beside and renames. `read_json` and `parse_json` take JSON without NaN, huge numbers, duplicate keys and deep nesting;
`read_sealed` checks the SHA-256 that `write_sealed` adds; `decoded` gives JSON values the types and ranges that their
reader asks for. `read_tensors` verifies what `write_tensors` wrote; so does `read_arrays`, without PyTorch. `Foreign`
maps or reads what other libraries wrote; `Streamed` writes such a folder tensor by tensor. Nothing here knows what the
values mean.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from forgetless.files.places import MISSING, Inside, opened, read_bytes, replacing, tidied, told, write_text
from forgetless.files.sealed import read_sealed, sealed, unsealed, write_sealed
from forgetless.files.strict import parse_json, read_json, write_json, written
from forgetless.files.typed import Between, Shape, decoded

if TYPE_CHECKING:
    from forgetless.files.arrays import read_arrays
    from forgetless.files.foreign import INDEX, ONE, Foreign, Layout
    from forgetless.files.streamed import Streamed
    from forgetless.files.tensors import FLOATS, Mapped, MappedTensors, kind_of, read_tensors, sha256, write_tensors

# What needs NumPy or PyTorch is loaded at its first use.
_HOMES = {
    "arrays": ("read_arrays",),
    "foreign": ("INDEX", "ONE", "Foreign", "Layout"),
    "streamed": ("Streamed",),
    "tensors": ("FLOATS", "Mapped", "MappedTensors", "kind_of", "read_tensors", "sha256", "write_tensors"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "FLOATS",
    "INDEX",
    "MISSING",
    "ONE",
    "Between",
    "Foreign",
    "Inside",
    "Layout",
    "Mapped",
    "MappedTensors",
    "Shape",
    "Streamed",
    "decoded",
    "kind_of",
    "opened",
    "parse_json",
    "read_arrays",
    "read_bytes",
    "read_json",
    "read_sealed",
    "read_tensors",
    "replacing",
    "sealed",
    "sha256",
    "tidied",
    "told",
    "unsealed",
    "write_json",
    "write_sealed",
    "write_tensors",
    "write_text",
    "written",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)

"""Files: written whole or not at all, and read strictly; whatever is wrong with one is told in a sentence.

`told` turns the operating system's errors into sentences, `opened` opens nothing but regular files, `replacing` writes
beside and renames. `read_json` and `parse_json` take JSON without NaN, huge numbers, duplicate keys and deep nesting;
`read_sealed` checks the SHA-256 that `write_sealed` adds; `decoded` gives JSON values the types and ranges that their
reader asks for. `read_tensors` verifies what `write_tensors` wrote; `Foreign` maps or reads what other libraries wrote;
`Streamed` writes such a folder tensor by tensor. Nothing here knows what the values mean.
"""

from __future__ import annotations

from forgetless.files.foreign import INDEX, ONE, Foreign, Layout
from forgetless.files.places import MISSING, Inside, opened, read_bytes, replacing, tidied, told, write_text
from forgetless.files.sealed import read_sealed, sealed, unsealed, write_sealed
from forgetless.files.streamed import Streamed
from forgetless.files.strict import parse_json, read_json, write_json, written
from forgetless.files.tensors import FLOATS, Mapped, MappedTensors, kind_of, read_tensors, sha256, write_tensors
from forgetless.files.typed import Between, Shape, decoded

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

"""JSON files that notice their own damage: an object with the SHA-256 of its other fields."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.files.places import write_text
from forgetless.files.strict import parse_json, read_json, written

SEAL = "sha256"


def write_sealed(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write the object `value` as indented JSON with the field "sha256" over all its others, whole or not at all.

    The checksum is that of the values, not of their layout: white space and the order of keys may change.

    Raises:
        ForgetlessError: `value` holds a field "sha256", NaN, Infinity or what JSON cannot hold, or the system does not
            let the file be written.
    """
    write_text(path, written(sealed(value, path), path) + "\n")


def read_sealed(path: str | Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote, without its field "sha256".

    Raises:
        ForgetlessError: the file is missing, unreadable, not strictly JSON or no object, has no checksum, or holds
            other values than were written.
    """
    return unsealed(read_json(path), path)


def sealed(value: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
    """The object with its checksum, for writers with a layout of their own.

    Raises:
        ForgetlessError: as `write_sealed` does.
    """
    if SEAL in value:
        raise ForgetlessError(f"{where} cannot be sealed: its object has a field {SEAL!r} already.")
    plain = parse_json(written(dict(value), where), where)
    return {SEAL: _sum(plain), **plain}


def unsealed(value: Any, where: str | Path) -> dict[str, Any]:
    """The object without its checksum, which must be right.

    Raises:
        ForgetlessError: it is no object, has no checksum, or holds other values than were sealed.
    """
    if not isinstance(value, dict):
        raise ForgetlessError(f"{where} is damaged: it does not hold a JSON object.")
    if SEAL not in value:
        raise ForgetlessError(
            f"{where} has no checksum ({SEAL!r}), so it was not written by this release or is damaged."
        )
    rest = {key: each for key, each in value.items() if key != SEAL}
    if value[SEAL] != _sum(rest):
        raise ForgetlessError(f"{where} is damaged: its values are not the ones written; take a copy, or make it anew.")
    return rest


def _sum(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()

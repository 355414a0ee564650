"""JSON files with a checksum: any changed value is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless import files
from forgetless.errors import ForgetlessError

VALUE: dict[str, Any] = {"experiment": "split", "R": [[0.91, None], [0.9, 0.82]], "runs": 3, "λ": 0.1}


def refusal(path: Path) -> str:
    with pytest.raises(ForgetlessError) as raised:
        files.read_sealed(path)
    return str(raised.value)


def test_what_was_sealed_is_read(tmp_path: Path) -> None:
    files.write_sealed(tmp_path / "j", VALUE)
    assert files.read_sealed(tmp_path / "j") == VALUE
    stored = files.read_json(tmp_path / "j")
    assert next(iter(stored)) == "sha256"
    # Layout and order are free.
    (tmp_path / "j").write_text(json.dumps(dict(reversed(stored.items())), ensure_ascii=False))
    assert files.read_sealed(tmp_path / "j") == VALUE
    assert files.unsealed(files.sealed(VALUE, "x"), "x") == VALUE


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("sealed") / "j"
    files.write_sealed(path, VALUE)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        assert files.read_sealed(path) == VALUE  # a flip in white space
    except ForgetlessError:
        return


def test_files_without_or_with_another_checksum(tmp_path: Path) -> None:
    path = tmp_path / "j"
    files.write_json(path, VALUE)
    assert refusal(path) == (f"{path} has no checksum ('sha256'), so it was not written by this release or is damaged.")
    files.write_json(path, {**files.sealed(VALUE, path), "runs": 4})
    assert refusal(path).startswith(f"{path} is damaged: its values are not the ones written")
    files.write_json(path, {**files.sealed(VALUE, path), "more": 4})
    assert refusal(path).startswith(f"{path} is damaged: its values are not the ones written")
    for seal in (None, 0, [], "0" * 64):
        files.write_json(path, {**VALUE, "sha256": seal})
        assert refusal(path).startswith(f"{path} is damaged: its values are not the ones written")
    files.write_json(path, [1])
    assert refusal(path) == f"{path} is damaged: it does not hold a JSON object."


def test_what_cannot_be_sealed(tmp_path: Path) -> None:
    for value in ({"sha256": ""}, {"a": float("nan")}, {"a": object()}):
        with pytest.raises(ForgetlessError):
            files.write_sealed(tmp_path / "j", value)
    assert list(tmp_path.iterdir()) == []

"""JSON without what readers disagree about; every other text is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless import files
from forgetless.errors import ForgetlessError

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**64) + 1, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=9)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("strict") / "j"
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_a_row_of_numbers_takes_a_line(tmp_path: Path) -> None:
    files.write_json(tmp_path / "folder" / "j", {"R": [[1, 2], [3, None]], "a": {}, "b": [], "c": {"d": ["Ω"]}})
    assert (tmp_path / "folder" / "j").read_text() == (
        '{\n  "R": [\n    [1, 2],\n    [3, null]\n  ],\n'
        '  "a": {},\n  "b": [],\n  "c": {\n    "d": ["\\u03a9"]\n  }\n}\n'
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe", "'utf-8' codec can't decode byte 0xff"),
        (b"[" * 100_000, "it nests deeper than 64 levels"),
        (b"[" * 65 + b"]" * 65, "it nests deeper than 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "it nests deeper than 64 levels"),
        (b"[NaN]", "it holds NaN, which is not a number"),
        (b"[Infinity]", "it holds Infinity, which is not a number"),
        (b"[-1e400]", "the number -1e400 is beyond the range of a float"),
        (b"18446744073709551616", "the number 18446744073709551616 has more than 64 bits"),
        (b"1" * 10_000, "has more than 64 bits"),
        (b'{"a": 1, "a": 1}', "the key 'a' is there twice"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' is there twice"),
        (rb'["\ud800"]', "is not Unicode"),
        (rb'{"\udfff": 1}', "is not Unicode"),
        (b'{"a": 1} 2', "Extra data"),
    ],
)
def test_what_readers_disagree_about_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(ForgetlessError) as raised:
        files.read_json(tmp_path / "j")
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 'j'} cannot be read as JSON: ")
    assert sentence in said
    assert len(said) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("value", [float("inf"), [float("nan")], 2**64, {1: 1, "1": 2}, object(), "\ud800", {(): 1}])
def test_what_cannot_be_read_is_not_written(value: Any, tmp_path: Path) -> None:
    files.write_json(tmp_path / "j", [1])
    with pytest.raises(ForgetlessError):
        files.write_json(tmp_path / "j", value)
    deep: list[Any] = []
    for _ in range(65):
        deep = [deep]
    with pytest.raises(ForgetlessError, match="nests deeper"):
        files.write_json(tmp_path / "j", deep)
    assert files.read_json(tmp_path / "j") == [1]
    assert list(tmp_path.iterdir()) == [tmp_path / "j"]


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.strict, "MOST_BYTES", 3)
    (tmp_path / "j").write_text("1234")
    with pytest.raises(ForgetlessError, match="it has 4 bytes, and 3 are the most here"):
        files.read_json(tmp_path / "j")

"""Files with a checksum: whatever bit changes, reading refuses; a row of R stands on a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.results.sealed import layout, read_sealed, write_sealed

CONTENT: dict[str, Any] = {
    "experiment": "demo",
    "tasks": ["a", "λ"],
    "environment": {"torch": "2.14"},
    "runs": [{"method": "mas", "seed": 0, "strength": 1.0, "accuracy": [[0.9, None], [0.8125, 0.7]], "seconds": {}}],
}

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


@given(values)
def test_the_layout_is_json_of_the_same_value(value: Any) -> None:
    assert json.loads(layout(value)) == value


def test_a_row_of_the_accuracy_matrix_stands_on_a_line(tmp_path: Path) -> None:
    results.write(tmp_path / "results.json", CONTENT)
    lines = [line.strip().rstrip(",") for line in (tmp_path / "results.json").read_text().splitlines()]
    assert "[0.9, null]" in lines
    assert "[0.8125, 0.7]" in lines
    assert results.read(tmp_path) == CONTENT


def test_no_flipped_bit_is_accepted_as_something_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, CONTENT)
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            try:
                assert results.read(path) == CONTENT  # such as another blank
            except ForgetlessError:
                refused += 1
    assert refused > 7.5 * len(whole)


def test_an_edited_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, CONTENT)
    path.write_text(path.read_text().replace("0.8125", "0.9125"))
    with pytest.raises(ForgetlessError) as caught:
        results.read(path)
    assert str(caught.value) == (
        f"{path} does not match its checksum: it is damaged or was edited by hand; restore it from a copy, or "
        "remove it."
    )
    path.write_text(json.dumps(CONTENT))
    with pytest.raises(ForgetlessError, match=r"has no checksum 'sha256': it was not written by this version"):
        results.read(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_numbers_that_json_does_not_have_are_refused(number: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(f'{{"a": {number}, "sha256": ""}}')
    with pytest.raises(ForgetlessError, match="does not match its checksum"):
        read_sealed(tmp_path / "x.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_sealed(tmp_path / "y.json", {"a": float(number)})
    assert not (tmp_path / "y.json").exists()


def test_content_that_is_no_results_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="'tasks' is missing"):
        results.write(tmp_path / "results.json", {"experiment": "demo"})
    assert list(tmp_path.iterdir()) == []

"""Parquet files whose pictures are described by columns of text."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fact_sets import encoded, parquet, pyarrow
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading import tables
from layouts import picture


def table(path: Path, metadata: Any = None, **columns: Sequence[Any]) -> Path:
    found = pyarrow.table({name: list(each) for name, each in columns.items()})
    parquet.write_table(found.replace_schema_metadata(metadata), path)
    return path


def refusal(path: Path, *texts: str) -> str:
    with pytest.raises(ForgetlessError) as caught:
        tables.with_texts(path, path.parent, texts)
    return str(caught.value)


def test_pictures_names_and_a_list_for_each_column(tmp_path: Path) -> None:
    path = table(tmp_path / "t", image=[b"one", b"two"], a=["x", None], b=["", "ü y"], label=[7, 8])
    pictures, names, texts = tables.with_texts(path, tmp_path, ("b", "a"))
    assert pictures == [b"one", b"two"]
    assert names == [f"row 0 of {path}", f"row 1 of {path}"]
    assert texts == [["", "ü y"], ["x", ""]]
    assert tables.with_texts(path, tmp_path, ())[2] == []


def test_columns_of_any_kind_of_text(tmp_path: Path) -> None:
    texts = {
        "large": pyarrow.array(["x", "y"], pyarrow.large_string()),
        "numbered": pyarrow.array(["x", "x"]).dictionary_encode(),
        "nothing": pyarrow.nulls(2),
    }
    path = tmp_path / "t"
    parquet.write_table(pyarrow.table({"image": [b"one", b"two"], **texts}), path)
    assert tables.with_texts(path, tmp_path, tuple(texts))[2] == [["x", "y"], ["x", "x"], ["", ""]]


def test_the_column_of_pictures_may_be_named_in_the_metadata(tmp_path: Path) -> None:
    note = json.dumps({"info": {"features": {"photo": {"_type": "Image"}}}})
    path = table(tmp_path / "t", {"huggingface": note}, photo=[encoded(1)], a=["x"])
    assert tables.with_texts(path, tmp_path, ("a",))[0] == [encoded(1)]


def test_pictures_in_files_stay_inside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    inside = picture(folder / "images" / "in.png")
    picture(tmp_path / "out.png")
    os.mkfifo(folder / "pipe.png")

    def cell(name: str) -> Path:
        return table(folder / "t", image=[{"bytes": None, "path": name}], a=["x"])

    assert tables.with_texts(cell("images/in.png"), folder, ("a",))[0] == [inside]
    place = f"row 0 of {folder / 't'}"
    assert refusal(cell("../out.png"), "a") == f"{place} names the file '../out.png': it lies outside {folder}."
    assert refusal(cell("pipe.png"), "a") == f"{place} names the file 'pipe.png': it is not a regular file."
    assert refusal(cell("gone.png"), "a") == f"{place} names the file 'gone.png': it does not exist."
    assert refusal(cell(""), "a") == f"{place} holds no picture."


@pytest.mark.parametrize(
    ("cells", "shown"), [([1, 2], "1"), ([True, False], "True"), ([b"x", b"y"], "b'x'"), ([["x"], []], "['x']")]
)
def test_cells_that_are_no_text(cells: list[Any], shown: str, tmp_path: Path) -> None:
    path = table(tmp_path / "t", image=[b"x", b"y"], a=["x", "y"], b=cells)
    assert refusal(path, "a", "b") == f"{path} has {shown} for the b of row 0, which is no text."


def test_a_column_that_is_missing_or_there_twice(tmp_path: Path) -> None:
    path = table(tmp_path / "t", image=[b"x"], a=["x"])
    assert refusal(path, "a", "b", "c") == f"{path} is not a dataset: it has no column 'b', 'c'."
    assert refusal(table(tmp_path / "t", a=["x"]), "a") == f"{path} is not a dataset: it has no column 'image'."
    arrays = [pyarrow.array([b"x"]), pyarrow.array(["x"]), pyarrow.array(["y"])]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, ["image", "a", "a"]), path)
    assert "'a'" in refusal(path, "a")


def test_files_that_are_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t"
    assert refusal(path, "a") == f"{path} cannot be read: it does not exist."
    path.write_bytes(b"no table")
    assert refusal(path, "a").startswith(f"{path} cannot be read as Parquet: ")
    path.unlink()
    os.mkfifo(path)
    assert refusal(path, "a") == f"{path} cannot be read: it is a pipe or a device, not a regular file."
    path.unlink()
    monkeypatch.setattr(tables, "_SLACK", 1 << 10)
    parquet.write_table(pyarrow.table({"image": [b"x"] * 10, "a": ["a" * 100_000] * 10}), path, compression="zstd")
    assert refusal(path, "a").startswith(f"{path} is refused: its column 'a' unpacks to more than ")

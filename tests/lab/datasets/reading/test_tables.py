"""Parquet files from strangers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading import tables
from forgetless.lab.datasets.reading.folder import read
from layouts import picture

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


def table(path: Path, cells: list[Any], labels: list[Any], names: Any = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = pyarrow.table({"image": cells, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        found = found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(found, path, **options)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ForgetlessError) as caught:
        tables.read(path, path.parent)
    assert len(str(caught.value)) < 300 + 2 * len(str(path))
    return str(caught.value)


@pytest.mark.parametrize("label", [2**40, 2**62, 3, -1, -(2**63)])
def test_labels_are_below_the_number_of_rows(label: int, tmp_path: Path) -> None:
    path = table(tmp_path / "t", [b"x"] * 3, [0, 1, label])
    assert refusal(path) == f"{path} has the label {label} in row 2, outside its 3 rows."


def test_a_test_part_without_names_has_the_classes_of_the_training_part(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", [b"x"] * 6, [0, 1, 2, 0, 1, 2])
    table(tmp_path / "test.parquet", [b"x"] * 2, [2, 0])
    train, test = read(tmp_path)
    assert train.classes == test.classes == ("0", "1", "2")
    table(tmp_path / "test.parquet", [b"x"] * 2, [3, 0])
    with pytest.raises(ForgetlessError, match=r"has the label 3 in row 0, outside its 3 classes\."):
        read(tmp_path)


def test_a_path_stays_inside_the_folder(tmp_path: Path) -> None:
    secret = picture(tmp_path / "outside.png")
    folder = tmp_path / "set"
    picture(folder / "images" / "in.png")
    (folder / "link.png").symlink_to(secret)
    (folder / "away").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")

    def cells(name: str) -> list[Any]:
        return [{"bytes": None, "path": name}]

    assert tables.read(table(folder / "t", cells("images/in.png"), [0]), folder).pictures == [folder / "images/in.png"]
    for name in ("../outside.png", str(secret), "link.png", "away/outside.png", "images/../../outside.png"):
        said = refusal(table(folder / "t", cells(name), [0]))
        assert said.startswith(f"row 0 of {folder / 't'} names the file ")
        assert said.endswith(f": it lies outside {folder}.")
    assert refusal(table(folder / "t", cells("pipe.png"), [0])).endswith("it is not a regular file.")
    assert refusal(table(folder / "t", cells("none.png"), [0])).endswith("it does not exist.")
    assert "holds no picture" in refusal(table(folder / "t", [{"bytes": b"", "path": ""}], [0]))
    for odd in ("a\0b", "x" * 5000, "."):
        refusal(table(folder / "t", cells(odd), [0]))


def test_a_small_file_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_SLACK", 1 << 20)
    path = table(tmp_path / "t", [bytes(20_000)] * 1000, [0] * 1000, compression="zstd")
    assert path.stat().st_size < 20_000
    assert "is refused: its column 'image' unpacks to more than " in refusal(path)
    monkeypatch.setattr(tables, "_MOST_ROWS", 999)
    assert refusal(path) == f"{path} is not a dataset: it has more than 999 rows."


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a", "a"], "has several classes of the name 'a'."),
        (["k\u00e4", "ka\u0308"], "has several classes of the name 'kä'."),
        ("ab", "must be a list, not 'ab'."),
        (7, "must be a list, not 7."),
        ([1, 2], "must be text, not 1."),
        (["x" * 2000, "b"], "must be a length from 0 to 1000, not 'xxx"),
    ],
)
def test_names_of_classes_that_make_no_sense(names: Any, sentence: str, tmp_path: Path) -> None:
    assert sentence in refusal(table(tmp_path / "t", [b"x"] * 2, [0, 1], names))


@pytest.mark.parametrize("cells", [[1, 2], ["a", "b"], [[1], [2]], [None, None], [{"a": 1}, {"a": 2}]])
def test_columns_that_hold_no_pictures(cells: list[Any], tmp_path: Path) -> None:
    assert refusal(table(tmp_path / "t", cells, [0, 0])) == f"row 0 of {tmp_path / 't'} holds no picture."


@pytest.mark.parametrize("labels", [[0.0, 1.0], ["0", "1"], [True, False], [None, 0], [[0], [1]]])
def test_columns_that_hold_no_labels(labels: list[Any], tmp_path: Path) -> None:
    assert "in row 0, outside its 2 rows." in refusal(table(tmp_path / "t", [b"x", b"y"], labels))


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    found = pyarrow.Table.from_arrays(
        [pyarrow.array([b"x"]), pyarrow.array([b"y"]), pyarrow.array([0])], ["image", "image", "label"]
    )
    parquet.write_table(found, tmp_path / "t")
    refusal(tmp_path / "t")


def test_a_table_that_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(ForgetlessError, match="it is a pipe or a device, not a regular file"):
        read(tmp_path)


def test_columns_of_unequal_length_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and pictures would no longer belong together."""
    path, cells = table(tmp_path / "t", [b"x", b"y"], [0, 1]), tables._cells
    monkeypatch.setattr(tables, "_cells", lambda of, column, *rest: cells(of, column, *rest)[: 1 + (column == "label")])
    assert refusal(path) == f"{path} is damaged: it says that it has 2 rows, and has 1 in the column 'image'."


def test_damage_inside_a_page_with_a_checksum_is_noticed(tmp_path: Path) -> None:
    pictures = [bytes(range(100)), bytes(range(100, 200))]
    options = {"write_page_checksum": True, "compression": "none", "use_dictionary": False, "write_statistics": False}
    path = table(tmp_path / "t", pictures, [0, 1], **options)
    assert tables.read(path, tmp_path).pictures == pictures
    content = path.read_bytes()
    path.write_bytes(content.replace(bytes(range(100)), b"!" + bytes(range(1, 100)), 1))
    assert "cannot be read as Parquet" in refusal(path)

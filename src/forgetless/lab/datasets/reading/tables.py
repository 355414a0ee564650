"""A Parquet file as Hugging Face `datasets` writes it.

It has a column of pictures (bytes, or the path of a file beside it), a column of labels, and the names of the classes
in its metadata.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.model.parameters import listing

_MOST_ROWS = 20_000_000
_RATIO, _SLACK = 50, 64 << 20  # a column may unpack to so many times the file, and a little
_BATCH = 256

_Names = list[Annotated[str, files.Between(0, 1000)]]


def read(path: Path, folder: Path, known: tuple[str, ...] = ()) -> Pictures:
    """The pictures of the file `path`; those that it names by path are regular files inside `folder`.

    Args:
        path: the Parquet file.
        folder: where the dataset is.
        known: the classes where the file names none; without, there are as many as the highest label says, and no more
            than rows.

    Raises:
        ForgetlessError: it is not Parquet, damaged, unpacks to far more than it should, lacks a column, holds a label
            outside the classes or rows, names a file outside the folder, or pyarrow is not installed.
    """
    with _table(path) as (table, most):
        picture, label, named = _columns(table.schema_arrow.metadata or {}, path)
        encoded, found = _several(table, (picture, label), most, path)
        classes = _classes(found, named or known, len(found), path)
    names = _named(path, len(found))
    return Pictures(classes, _pictures(encoded, names, path, folder), names, torch.tensor(found, dtype=torch.int64))


def with_texts(path: Path, folder: Path, texts: Sequence[str]) -> tuple[list[bytes | Path], list[str], list[list[str]]]:
    """The pictures of a file whose samples are described by columns of text.

    Args:
        path: the Parquet file.
        folder: where the dataset is.
        texts: the columns of text.

    Returns:
        The pictures, what to call each, and the texts of each column; an absent text is "".

    Raises:
        ForgetlessError: as `read`, or a column holds something else than text.
    """
    with _table(path) as (table, most):
        picture, _, _ = _columns(table.schema_arrow.metadata or {}, path)
        encoded, *found = _several(table, (picture, *texts), most, path)
    names = _named(path, len(encoded))
    for column, cells in zip(texts, found, strict=True):
        for row, cell in enumerate(cells):
            if not isinstance(cell, str | None):
                raise ForgetlessError(f"{path} has {quoted(cell)} for the {column} of row {row}, which is no text.")
    return _pictures(encoded, names, path, folder), names, [[cell or "" for cell in cells] for cells in found]


def columns(
    path: Path, choose: Callable[[Sequence[str]], Sequence[str]]
) -> tuple[tuple[str, ...], tuple[str, ...], list[list[Any]], dict[str, tuple[str, ...]]]:
    """Columns of any kind.

    Args:
        path: the Parquet file.
        choose: the names of its columns → those to be read.

    Returns:
        The names of all columns; of those that were chosen; their cells; and the names of the classes of the column of
        labels, where the file names them.

    Raises:
        ForgetlessError: as `read`.
    """
    with _table(path) as (table, most):
        names = tuple(table.schema_arrow.names)
        chosen = tuple(choose(names))
        _, label, classes = _columns(table.schema_arrow.metadata or {}, path)
        return names, chosen, _several(table, chosen, most, path), {label: classes}


@contextlib.contextmanager
def _table(path: Path) -> Iterator[tuple[Any, int]]:
    """The Parquet file, opened, and the most bytes that a column may unpack to; what it raises becomes a sentence."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ForgetlessError(f"{path} needs pyarrow: pip install 'forgetless[vision]'.") from error
    with files.opened(path) as file:
        try:
            most = _RATIO * os.fstat(file.fileno()).st_size + _SLACK
            yield parquet.ParquetFile(file, page_checksum_verification=True), most
        except ForgetlessError:
            raise
        except Exception as error:
            raise ForgetlessError(f"{path} cannot be read as Parquet: {brief(error)}.") from error


def _several(table: Any, columns: Sequence[str], most: int, path: Path) -> list[list[Any]]:
    """Columns of as many cells as the file says that it has rows."""
    missing = [column for column in columns if table.schema_arrow.names.count(column) != 1]
    rows = table.metadata.num_rows
    if missing or rows > _MOST_ROWS:
        what = f"it has no column {listing(missing)}" if missing else f"it has more than {_MOST_ROWS} rows"
        raise ForgetlessError(f"{path} is not a dataset: {what}.")
    found = [_cells(table, column, most, path) for column in columns]
    for column, cells in zip(columns, found, strict=True):
        if len(cells) != rows:
            has = f"{len(cells)} in the column {quoted(column)}"
            raise ForgetlessError(f"{path} is damaged: it says that it has {rows} rows, and has {has}.")
    return found


def _named(path: Path, rows: int) -> list[str]:
    return [f"row {row} of {path}" for row in range(rows)]


def _pictures(encoded: list[Any], names: list[str], path: Path, folder: Path) -> list[bytes | Path]:
    inside = files.Inside(folder)
    return [_encoded(cell, name, path, inside) for cell, name in zip(encoded, names, strict=True)]


def _cells(table: Any, column: str, most: int, path: Path) -> list[Any]:
    """A column, a batch at a time, as long as it does not unpack to more than `most` bytes."""
    cells: list[Any] = []
    size = 0
    for batch in table.iter_batches(batch_size=_BATCH, columns=[column], use_threads=False):
        size += batch.nbytes
        if size > most or len(cells) + batch.num_rows > _MOST_ROWS:
            raise ForgetlessError(f"{path} is refused: its column {quoted(column)} unpacks to more than {most} bytes.")
        cells += batch.column(0).to_pylist()
    return cells


def _columns(metadata: dict[bytes, bytes], path: Path) -> tuple[str, str, tuple[str, ...]]:
    """The column of pictures, the column of labels and the names of the classes, as `datasets` notes them."""
    picture, label = "image", "label"
    classes: tuple[str, ...] = ()
    notes = metadata.get(b"huggingface")
    if notes is None:
        return picture, label, classes
    try:
        features = files.parse_json(notes.decode(), f"{path} (its metadata)")["info"]["features"]
        for column, feature in reversed(features.items()):
            if feature.get("_type") == "Image":
                picture = column
            elif feature.get("_type") == "ClassLabel":
                label, classes = column, tuple(files.decoded(feature["names"], _Names, path))
    except (AttributeError, KeyError, TypeError, UnicodeError) as error:
        raise ForgetlessError(f"{path} is damaged: its metadata for Hugging Face datasets cannot be read.") from error
    named = tuple(unicodedata.normalize("NFC", name) for name in classes)
    if len(set(named)) != len(named):
        twice = sorted({name for name in named if named.count(name) > 1})
        raise ForgetlessError(f"{path} has several classes of the name {listing(twice)}.")
    return picture, label, named


def _classes(labels: list[Any], known: tuple[str, ...], rows: int, path: Path) -> tuple[str, ...]:
    """The names of the classes, which all labels belong to."""
    most, what = (len(known), "classes") if known else (rows, "rows")
    for row, each in enumerate(labels):
        if not _is_number(each) or not 0 <= each < most:
            raise ForgetlessError(f"{path} has the label {quoted(each)} in row {row}, outside its {most} {what}.")
    return known or tuple(str(number) for number in range(1 + max(labels, default=-1)))


def _encoded(cell: Any, name: str, path: Path, inside: files.Inside) -> bytes | Path:
    """The picture in a cell: bytes, or a file beside the table."""
    content, place = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(content, bytes) and content:
        return content
    if not isinstance(place, str) or not place:
        raise ForgetlessError(f"{name} holds no picture.")
    if wrong := inside.complaint(path.parent / place):
        raise ForgetlessError(f"{name} names the file {quoted(place)}: {wrong}.")
    return path.parent / place


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

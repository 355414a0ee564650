"""Texts as people have them: plain text, JSON Lines, CSV or Parquet, with labels or as chats."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.lab.datasets.reading import tables
from forgetless.model.parameters import listing

SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")
#: A document: a text, or a chat as a list of messages with `role` and `content`.
Document = str | list[dict[str, Any]]
_DEFAULTS = ("text", "messages")
_MOST_BYTES = 1 << 30  # of a file of texts


@dataclass(frozen=True)
class Documents:
    """The documents of a file, in its order.

    Attributes:
        documents: a text or a chat each; none is empty.
        labels: the label of each as text; None where no label was asked for.
        fields: the fields of the file; none for plain text.
    """

    documents: list[Document]
    labels: list[str] | None
    fields: tuple[str, ...]


def read(path: Path, text: str | None = None, label: str | None = None) -> Documents:
    """The documents of a file.

    - `.txt`: a document is a paragraph, the lines between blank lines; where there are no blank lines, a line.
    - `.jsonl`: an object per line. `.csv`: a row under a header. `.parquet`: a row.

    Args:
        path: the file, in UTF-8.
        text: the field that holds the text, or a list of messages; by default "text", else "messages".
        label: the field that holds the label, a text or a whole number; None where no labels are needed.

    Raises:
        ForgetlessError: another kind of file, an empty one, a field that is missing (naming those there are), or a
            value that is no text, chat or label.
    """
    if path.is_dir():
        raise ForgetlessError(f"{path} is a folder; texts come in a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file.")
    if path.suffix not in SUFFIXES:
        raise ForgetlessError(f"{path} is no file of texts: {listing(SUFFIXES)} are read.")
    if path.suffix == ".txt":
        return _plain(path, label)
    rows = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}[path.suffix](path, _chosen(path, text, label))
    if not rows.texts:
        raise ForgetlessError(f"{path} is empty.")
    documents = [_document(value, rows.where(n), rows.text) for n, value in enumerate(rows.texts)]
    labels = None if label is None else [_label(v, rows.where(n), label) for n, v in enumerate(rows.labels)]
    if labels is not None and rows.names:
        labels = [_named(each, rows.names, rows.where(n)) for n, each in enumerate(labels)]
    return Documents(documents, labels, rows.fields)


@dataclass(frozen=True)
class _Rows:
    fields: tuple[str, ...]
    text: str
    texts: list[Any]
    labels: list[Any]
    where: Callable[[int], str]
    names: tuple[str, ...] = ()


_Choose = Callable[[Sequence[str]], tuple[str, ...]]


def _chosen(path: Path, text: str | None, label: str | None) -> _Choose:
    """A function from the fields that there are to the ones to read: the text's, and the label's if it is asked for."""

    def choose(fields: Sequence[str]) -> tuple[str, ...]:
        field = text or next((each for each in _DEFAULTS if each in fields), _DEFAULTS[0])
        for name, option in ((field, "--text-field"), (label, "--label-field")):
            if name is not None and name not in fields:
                there = f"it has {listing(fields)}" if fields else "it has none"
                raise ForgetlessError(f"{path} has no field {quoted(name)}: {there}; name one with {option}.")
        return (field,) if label is None else (field, label)

    return choose


def _plain(path: Path, label: str | None) -> Documents:
    if label is not None:
        raise ForgetlessError(f"{path} is plain text without labels; give a .csv, .jsonl or .parquet file.")
    text = _text(path).replace("\r\n", "\n")
    blank = re.compile(r"\n[ \t]*\n")
    parts = blank.split(text) if blank.search(text.strip()) else text.split("\n")
    documents: list[Document] = [part.strip() for part in parts if part.strip()]
    if not documents:
        raise ForgetlessError(f"{path} is empty.")
    return Documents(documents, None, ())


def _text(path: Path) -> str:
    try:
        return files.read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ForgetlessError(f"{path} is no text in UTF-8: {brief(error)}.") from error


def _json_lines(path: Path, choose: _Choose) -> _Rows:
    # Lines end in "\n" alone: JSON allows other separators of lines inside a text.
    lines = [(number, line) for number, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
    rows = [files.parse_json(line, f"line {number} of {path}") for number, line in lines]
    for (number, _), row in zip(lines, rows, strict=True):
        if not isinstance(row, dict):
            raise ForgetlessError(f"line {number} of {path} is no object with fields.")
    first = tuple(rows[0]) if rows else ()
    fields = choose(first) if rows else ("", "")
    for (number, _), row in zip(lines, rows, strict=True):
        if missing := [field for field in fields if field not in row]:
            raise ForgetlessError(f"line {number} of {path} has no field {listing(missing)}.")
    numbers = [number for number, _ in lines]
    texts, labels = [[row[field] for row in rows] for field in (fields[0], fields[-1])]
    return _Rows(first, fields[0], texts, labels, lambda n: f"line {numbers[n]} of {path}")


def _csv(path: Path, choose: _Choose) -> _Rows:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    limit = csv.field_size_limit(_MOST_BYTES)
    try:
        found = [row for row in reader if row]
    except csv.Error as error:
        raise ForgetlessError(f"{path} is no CSV: {brief(error)}, in line {reader.line_num}.") from error
    finally:
        csv.field_size_limit(limit)
    if not found:
        raise ForgetlessError(f"{path} is empty.")
    header, *rows = found
    if wrong := next((n for n, row in enumerate(rows, 1) if len(row) != len(header)), None):
        cells = len(rows[wrong - 1])
        raise ForgetlessError(f"row {wrong} of {path} has {cells} cells, and the header has {len(header)}.")
    chosen = choose(header)
    if twice := [field for field in dict.fromkeys(chosen) if header.count(field) > 1]:
        raise ForgetlessError(f"{path} has several columns of the name {listing(twice)}; rename all but one.")
    columns = [header.index(field) for field in chosen]
    texts, labels = [[row[column] for row in rows] for column in (columns[0], columns[-1])]
    return _Rows(tuple(header), header[columns[0]], texts, labels, lambda n: f"row {n + 1} of {path}")


def _parquet(path: Path, choose: _Choose) -> _Rows:
    fields, chosen, columns, classes = tables.columns(path, choose)
    names = classes.get(chosen[-1], ()) if len(chosen) > 1 else ()
    return _Rows(fields, chosen[0], columns[0], columns[-1], lambda n: f"row {n} of {path}", names)


def _document(value: Any, where: str, field: str) -> Document:
    if isinstance(value, str) and value.strip():
        return value
    messages = isinstance(value, list) and value
    if messages and all(
        isinstance(each, dict) and isinstance(each.get("role"), str) and "content" in each for each in value
    ):
        return list(value)
    raise ForgetlessError(f"{where} has {quoted(value)} for {field}, which is no text and no list of messages.")


def _label(value: Any, where: str, field: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int):
        return str(value)
    raise ForgetlessError(
        f"{where} has {quoted(value)} ({type(value).__name__}) for {field}; a label is a text or a whole number."
    )


def _named(label: str, names: tuple[str, ...], where: str) -> str:
    """The name of the class with this number, where the file names its classes."""
    if not label.isdecimal() or int(label) >= len(names):
        raise ForgetlessError(f"{where} has the label {quoted(label)}, outside the {len(names)} classes of the file.")
    return names[int(label)]

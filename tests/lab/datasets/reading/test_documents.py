from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgetless import ForgetlessError
from forgetless.lab.datasets.reading.documents import read

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_a_paragraph_of_plain_text_is_a_document(tmp_path: Path) -> None:
    path = written(tmp_path / "t.txt", "one\ntwo\n \nthree\r\n\r\n\r\nfour\n")
    assert read(path).documents == ["one\ntwo", "three", "four"]


def test_a_line_is_one_where_there_are_no_blank_lines(tmp_path: Path) -> None:
    assert read(written(tmp_path / "t.txt", "one\ntwo\n\n")).documents == ["one", "two"]


def test_json_lines_csv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = written(tmp_path / "t.jsonl", '{"text": "a, b", "label": "p"}\n\n{"text": "c", "label": "q"}\n')
    table = written(tmp_path / "t.csv", 'label,text\np,"a, b"\nq,c\n')
    parquet.write_table(pa.table({"text": ["a, b", "c"], "label": ["p", "q"]}), tmp_path / "t.parquet")
    for path in (lines, table, tmp_path / "t.parquet"):
        found = read(path, label="label")
        assert (found.documents, found.labels) == (["a, b", "c"], ["p", "q"]), path
        assert sorted(found.fields) == ["label", "text"]


def test_numbers_are_labels_and_a_parquet_file_names_its_classes(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = written(tmp_path / "t.jsonl", '{"text": "a", "label": 10}\n{"text": "b", "label": 2}\n')
    assert read(lines, label="label").labels == ["10", "2"]
    features = {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}
    notes = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"text": ["a", "b"], "label": [1, 0]}).replace_schema_metadata(notes)
    parquet.write_table(table, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", label="label").labels == ["yes", "no"]


def test_chats_are_lists_of_messages(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", json.dumps({"id": 1, "messages": CHAT}))
    assert read(path).documents == [CHAT]
    other = written(tmp_path / "o.jsonl", json.dumps({"talk": CHAT, "text": "x"}))
    assert read(other, text="talk").documents == [CHAT]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.txt", " \n\n", "t.txt is empty."),
        ("t.csv", "", "t.csv is empty."),
        ("t.csv", "text,label\n", "t.csv is empty."),
        ("t.jsonl", "\n", "t.jsonl is empty."),
        ("t.csv", "body,id\na,1\n", "t.csv has no field 'text': it has 'body', 'id'; name one with --text-field."),
        ("t.csv", "text,id\na,1\n", "t.csv has no field 'label': it has 'text', 'id'; name one with --label-field."),
        ("t.csv", "text,label\na,p\nb\n", "row 2 of t.csv has 1 cells, and the header has 2."),
        ("t.jsonl", "[1]", "line 1 of t.jsonl is no object with fields."),
        ("t.jsonl", '{"text": "a", "label": 1}\n{"label": 1}', "line 2 of t.jsonl has no field 'text'."),
        (
            "t.jsonl",
            '{"text": 3, "label": 1}',
            "line 1 of t.jsonl has 3 for text, which is no text and no list of messages.",
        ),
        (
            "t.jsonl",
            '{"text": [{"content": "a"}], "label": 1}',
            "line 1 of t.jsonl has [{'content': 'a'}] for text, which is no text and no list of messages.",
        ),
        (
            "t.jsonl",
            '{"text": "a", "label": 0.5}',
            "line 1 of t.jsonl has 0.5 (float) for label; a label is a text or a whole number.",
        ),
        ("t.md", "a", "t.md is no file of texts: '.txt', '.jsonl', '.csv', '.parquet' are read."),
    ],
)
def test_refused(name: str, content: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    label = None if name == "t.txt" else "label"
    with pytest.raises(ForgetlessError) as refusal:
        read(written(Path(name), content), label=label)
    assert str(refusal.value) == sentence


def test_plain_text_has_no_labels_and_a_folder_no_texts(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="plain text without labels"):
        read(written(tmp_path / "t.txt", "a"), label="label")
    with pytest.raises(ForgetlessError, match="is a folder; texts come in a"):
        read(tmp_path)


def test_a_label_outside_the_classes_that_a_file_names(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    features = {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}
    notes = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    parquet.write_table(pa.table({"text": ["a"], "label": [2]}).replace_schema_metadata(notes), tmp_path / "t.parquet")
    with pytest.raises(ForgetlessError, match="has the label '2', outside the 2 classes of the file"):
        read(tmp_path / "t.parquet", label="label")


def test_a_long_field_of_a_csv(tmp_path: Path) -> None:
    long = "w1 " * 100_000
    (tmp_path / "t.csv").write_text(f'text,label\nw1,p\n"{long}",q\n')
    assert read(tmp_path / "t.csv").documents == ["w1", long]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,text\nw1,p,w2\n")
    with pytest.raises(ForgetlessError, match=r"has several columns of the name 'text'; rename all but one\.$"):
        read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("text,other,other\nw1,p,w2\n")
    assert read(tmp_path / "t.csv").documents == ["w1"]

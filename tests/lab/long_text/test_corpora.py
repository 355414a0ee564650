from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.corpora import PARTS, Corpus, enwik8, own, pg19, wikitext103


def joined(corpus: Corpus) -> dict[str, bytes]:
    return {part: b"|".join(document.read() for document in corpus.parts[part]) for part in PARTS}


def test_own_texts_are_cut_in_three(tmp_path: Path) -> None:
    texts = [bytes(range(100)), bytes(range(100, 200))]
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text)
    found = joined(own(paths, 4))
    for part, cut in zip(PARTS, (slice(0, 90), slice(90, 95), slice(95, 100)), strict=True):
        assert found[part] == b"|".join(text[cut] for text in texts)
    with pytest.raises(
        ForgetlessError, match="a is too short: a twentieth of its 100 bytes is no more than a window of 5"
    ):
        own(paths, 5)
    with pytest.raises(ForgetlessError, match="each once"):
        own([paths[0], paths[0]], 4)
    with pytest.raises(ForgetlessError, match="one text file or more"):
        own([], 4)
    with pytest.raises(ForgetlessError, match="nowhere"):
        own([tmp_path / "nowhere"], 4)


def test_enwik8_as_a_file_and_as_the_published_zip(tmp_path: Path) -> None:
    text = bytes(range(200))
    (tmp_path / "enwik8").write_bytes(text)
    with zipfile.ZipFile(tmp_path / "enwik8.zip", "w") as archive:
        archive.writestr("enwik8", text)
    wanted = {"train": text[:180], "validation": text[180:190], "test": text[190:]}
    for path in (tmp_path, tmp_path / "enwik8", tmp_path / "enwik8.zip"):
        assert joined(enwik8(path, 200)) == wanted
    with pytest.raises(ForgetlessError, match="is not Enwik8: it holds 200 bytes, not 100000000"):
        enwik8(tmp_path)
    (tmp_path / "enwik8.zip").write_bytes((tmp_path / "enwik8.zip").read_bytes()[:-30])
    with pytest.raises(ForgetlessError, match="damaged or no zip"):
        enwik8(tmp_path / "enwik8.zip", 200)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ForgetlessError, match=r"has no enwik8 and no enwik8\.zip"):
        enwik8(tmp_path / "empty")


@pytest.mark.parametrize("ending", ["tokens", "raw"])
def test_wikitext_103_as_a_folder_and_as_a_zip(ending: str, tmp_path: Path) -> None:
    lines = {"train": " = A = \n b c <unk> \n", "valid": " d \n", "test": " e f \n \n"}
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for part, text in lines.items():
            (tmp_path / f"wiki.{part}.{ending}").write_text(text)
            archive.writestr(f"wikitext-103/wiki.{part}.{ending}", text)
    for path in (tmp_path, tmp_path / "w.zip"):
        found = wikitext103(path)
        assert joined(found) == {part: text.encode() for part, text in zip(PARTS, lines.values(), strict=True)}
        assert found.words == {"train": 8, "validation": 2, "test": 4}
    (tmp_path / f"wiki.test.{ending}").unlink()
    with pytest.raises(ForgetlessError, match=r"has no wiki\.test\.tokens and no wiki\.test\.raw"):
        wikitext103(tmp_path)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: content.replace(b"one two", b"one\xfftwo"), "Bad CRC-32 for file 'wiki.train.tokens'"),
        (lambda content: content[:47] + b"\x07" + content[48:], "Error -3 while decompressing data"),
        (
            lambda content: content.replace((1400).to_bytes(4, "little"), b"\xff" * 4),
            "a member would unpack to 4294967295",
        ),
        (lambda content: content[: len(content) // 2], "File is not a zip file"),
        (lambda content: b"", "File is not a zip file"),
    ],
)
def test_a_zip_that_is_damaged(damage: Callable[[bytes], bytes], why: str, tmp_path: Path) -> None:
    method = zipfile.ZIP_STORED if "CRC" in why else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(tmp_path / "w.zip", "w", method) as archive:
        archive.writestr("wiki.train.tokens", "one two\nthree\n" * 100)
    (tmp_path / "w.zip").write_bytes(damage((tmp_path / "w.zip").read_bytes()))
    with pytest.raises(ForgetlessError) as caught:
        wikitext103(tmp_path / "w.zip")
    assert str(caught.value).startswith(f"{tmp_path / 'w.zip'} is damaged or no zip: {why}")


def test_pg_19_as_folders_of_books(tmp_path: Path) -> None:
    for part in PARTS:
        (tmp_path / part).mkdir()
        for book in ("20", "100"):
            (tmp_path / part / f"{book}.txt").write_text(f"{part} book {book}\n")
    found = pg19(tmp_path)
    assert joined(found)["test"] == b"test book 100\n|test book 20\n"
    assert found.words == {"validation": 6, "test": 6}  # counted: these are not all books


def test_pg_19_has_its_official_counts_of_words_where_all_books_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, books in (("train", 1), ("validation", 50), ("test", 100)):
        (tmp_path / part).mkdir()
        for book in range(books):
            (tmp_path / part / f"{book}.txt").write_text("a b")
    assert pg19(tmp_path).words == {"validation": 3_007_061, "test": 6_966_499}
    for each in (tmp_path / "test").iterdir():
        each.unlink()
    with pytest.raises(ForgetlessError, match="its folder 'test' has no book"):
        pg19(tmp_path)

"""The study of long texts: what it reads from packages, and its tables."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from forgetless import files
from forgetless.errors import ForgetlessError
from studies import long_text, long_text_data


def entry(method: str, seed: int, test: float) -> dict[str, Any]:
    """A run of a results file."""
    rare = {name: {"bits": None if name == "never seen" else test, "characters": 5} for *_, name in long_text.CLASSES}
    return {
        "method": method,
        "seed": seed,
        "parameters": 1000 if method == "transformer-xl" else 1200,
        "of compressors": 0 if method == "transformer-xl" else 200,
        "bits": {"validation": test - 1, "test": test, "test, longer memory": test + 1, "test, recent only": test + 2},
        "by place": [test, test, test, test / 2],
        "by rarity": rare,
        "attention": [[0.125, 0.25, 0.625], [0.375, 0.25, 0.375]],
        "seconds": {"train": 120.0},
    }


RESULTS: dict[str, Any] = {
    "experiment": "long-text",
    "corpus": "own",
    "environment": {"cpu": "a CPU", "threads": 1, "torch": "2"},
    "data": "Some text.",
    "runs": [entry("transformer-xl", 0, 2.5), entry("transformer-xl", 1, 2.7), entry("mean", 0, 2.25)],
}


def test_the_tables(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    lines = long_text.table(RESULTS).splitlines()
    assert lines[2] == "| mean | 2.250 | 3.250 | 4.250 | 1.250 | -0.250; better in 1 of 1 | 0.982 | 1 |"
    assert lines[3].startswith(
        "| transformer-xl | 2.600 ± 0.141 | 3.600 ± 0.141 | 4.600 ± 0.141 | 1.600 ± 0.141 | – | 0.984 | 2 |"
    )
    details = long_text.details(RESULTS).splitlines()
    assert details[2] == "| mean | – | 2.250 | 2.250 | 2.250 | 2.250 | 2.250 | 1.125 |"
    assert "| mean | 25.0 | 25.0 | 50.0 |" in details
    page, path = tmp_path / "page.md", tmp_path / "results.json"
    names = ("long text", "long text details")
    page.write_text("".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in names))
    files.write_sealed(path, RESULTS)
    long_text.write(path, page)
    assert "conv+attention" not in (drawn := (tmp_path / "figures" / "long-text-attention.svg").read_text())
    assert all(word in drawn for word in ("transformer-xl", "mean", "layer 2", "compressed"))
    assert "the paper's order, over 2 variants: 1.00." in page.read_text()
    assert "Some text. 1,000 parameters; compressors have up to 200 more. 2.0 minutes" in " ".join(
        page.read_text().split()
    )


def test_the_texts_are_read_from_packages(tmp_path: Path) -> None:
    docs = tmp_path / long_text_data._DOCS
    for name in ("a.rst.txt", "deep/b.rst.txt", "translations/c.rst.txt"):
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(name)
    austen = tmp_path / long_text_data._AUSTEN
    austen.parent.mkdir(parents=True)
    austen.write_bytes(lazy_load([b"EMMA", b"", b"Emma Woodhouse"]) + lazy_load([b"PERSUASION"]))
    chapters = tmp_path / long_text_data._MOBY_DICK
    chapters.mkdir(parents=True)
    for number in (10, 2, 1):
        (chapters / f"chapter_{number}.txt").write_text(f"CHAPTER {number}.")
    long_text_data.main([str(tmp_path), str(tmp_path / "texts")])
    read = {path.name: path.read_text() for path in (tmp_path / "texts").iterdir()}
    assert sorted(read["docs.txt"].split("\n\n")) == ["a.rst.txt", "deep/b.rst.txt"]
    assert read["austen.txt"] == "EMMA\n\nEmma Woodhouse\n\n\nPERSUASION"
    assert read["moby-dick.txt"] == "CHAPTER 1.\n\nCHAPTER 2.\n\nCHAPTER 10."
    with pytest.raises(ForgetlessError, match=r"lacks the package of docs\.txt"):
        long_text_data.main([str(tmp_path / "texts"), str(tmp_path / "x")])


def lazy_load(lines: list[bytes]) -> bytes:
    """A vector of texts as R's lazy-load database has it."""
    vector = b"X\n\x00\x00\x00\x03\x00\x04\x02\x01\x00\x03\x05\x00\x00\x00\x00\x05UTF-8\x00\x00\x00\x10"
    vector += len(lines).to_bytes(4, "big")
    vector += b"".join(b"\x00\x04\x00\x09" + len(line).to_bytes(4, "big") + line for line in lines)
    return len(vector).to_bytes(4, "big") + zlib.compress(vector)


def test_at_equal_time_equal_seeds_are_compared() -> None:
    found = {**RESULTS, "runs": [entry(long_text.COMPARED, seed, 2.5 + seed) for seed in (0, 1, 2)]}
    runs = [entry("transformer-xl", 0, 2.75), entry("transformer-xl", 1, 3.25)]
    said = long_text.at_equal_time(found, {"config": {"recipe": {"steps": 1500}}, "runs": runs})
    assert "took 1.25 × one of Transformer-XL" in said
    assert "1,500 steps, which come to 3.000 ± 0.354 bits" in said
    assert "is 0.000 ± 0.354 away" in said
    assert "fewer bits in 1 of 2" in said


def test_a_new_run_directory_goes_on_after_the_committed_results(tmp_path: Path) -> None:
    committed, out = tmp_path / "english.json", tmp_path / "run"
    files.write_sealed(committed, {**RESULTS, "config": {"experiment": "long-text"}})
    long_text.restored(out, committed)
    assert files.read_json(out / "config.json") == {"experiment": "long-text"}
    assert long_text.read(out)["runs"] == RESULTS["runs"]
    files.write_sealed(committed, {**RESULTS, "runs": [], "config": {}})
    long_text.restored(out, committed)
    assert len(long_text.read(out)["runs"]) == 3  # a directory that has begun is left alone

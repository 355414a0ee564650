"""Ω of one model measured in other ways: in batches, on other windows, in other forms and on other scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from forgetless import Importance
from forgetless.learn.seeding import derive, permutation
from forgetless.measure.estimators.mas import mas
from forgetless.measure.estimators.output_curvature import output_curvature
from forgetless.model.parameters import fingerprints
from studies.evidence.language_bench import Bench
from studies.evidence.language_texts import general, learned, measured, windows
from studies.repair_texts import Rows

#: Windows of the reference, and of one batch of 512: as many of each of three sources.
COUNT, LARGE = 255, 513


def moduli(model: Any, rows: Rows, size: int = 1, power: float = 1, chunk: int = 8) -> Importance:
    """The modulus of a batch's gradient, to a power: `Ω = 1/N Σ_b |Σ_{n in b} ∂‖F(x_n; θ)‖² / ∂θ|^power`.

    A batch of 1 window and a power of 1 are MAS. It is `forgetless.learn.families.emulation.emulate` for batches
    that need not fit the memory.

    Args:
        model: a causal language model in eval mode.
        rows: N windows.
        size: windows of a batch.
        power: of the modulus.
        chunk: windows that pass at a time.
    """
    named = dict(model.named_parameters())
    sums = {name: torch.zeros_like(each) for name, each in named.items()}
    for batch in torch.split(rows.ids[:, :-1], size):
        whole = [torch.zeros_like(each) for each in named.values()]
        for part in torch.split(batch, chunk):
            norm = model(input_ids=part, use_cache=False).logits.float().square().sum()
            for total, gradient in zip(whole, torch.autograd.grad(norm, list(named.values())), strict=True):
                total += gradient
        for name, total in zip(named, whole, strict=True):
            sums[name] += total.abs() ** power
    return Importance(sums, len(rows), f"modulus ** {power:g} of batches of {size}", fingerprints(named))


def within_tensors(importance: Importance) -> Importance:
    """Ω ÷ its mean in each tensor; a tensor that is 0 everywhere stays so."""
    sums = {name: each / (each.mean() / importance.count).clamp(min=1e-30) for name, each in importance.sums.items()}
    return replace(importance, sums=sums, estimator=f"{importance.estimator}, normalized within tensors")


def mean(importance: Importance) -> float:
    """The mean of Ω over all weights."""
    total = sum(float(each.sum(dtype=torch.float64)) for each in importance.sums.values())
    return total / importance.count / sum(each.numel() for each in importance.sums.values())


def flat(importance: Importance) -> Tensor:
    """Ω of all weights in one row, in the order of their names: a file has another order than a model."""
    return torch.cat([each.flatten() for _, each in sorted(importance.mean().items())])


@dataclass(frozen=True)
class Source:
    """What Ω is measured with: the study's lab, and the domain that is learned afterwards."""

    lab: Any
    bench: Bench | None = None

    def old(self, count: int, only: str | None = None, part: Callable[[str], str] = measured) -> Rows:
        """So many windows of general text: as many of each source, or all of one."""
        texts = {name: text for name, text in self._texts().items() if only in (None, name)}
        made = [windows(self.lab.tokenizer, part(text), count // len(texts)) for text in texts.values()]
        return Rows(torch.cat([each.ids for each in made]), torch.cat([each.labels for each in made]))

    def shuffled(self, count: int) -> Rows:
        """The same in a random order, as they come in batches."""
        rows = self.old(count)
        return rows.taken(permutation(len(rows), derive(0, "batches")))

    def new(self) -> Rows:
        """Windows of the very text that is learned afterwards."""
        assert self.bench is not None
        rows = self.bench.domain.train
        return rows.taken(permutation(len(rows), derive(self.bench.seed, "measured"))[:COUNT])

    def nonsense(self) -> Rows:
        """Tokens drawn at random."""
        draw, length = torch.Generator().manual_seed(derive(0, "nonsense")), self.old(3).ids.shape[1]
        ids = torch.randint(len(self.lab.tokenizer), (COUNT, length), generator=draw)
        return Rows(ids, ids)

    def _texts(self) -> dict[str, str]:
        return general(self.lab.data, self.lab.texts)


def exact(model: Any, rows: Rows) -> Importance:
    """MAS as the library measures it."""
    return mas(model, {"input_ids": rows.ids[:, :-1]}, batch_size=8, progress=False)


def curvature(model: Any, rows: Rows) -> Importance:
    """E‖J‖² by one random projection a window."""
    return output_curvature(model, {"input_ids": rows.ids[:, :-1]}, batch_size=8, progress=False)


@dataclass(frozen=True)
class Variant:
    """A way to measure Ω.

    Attributes:
        rows: the windows that it is measured on.
        about: the question that it is part of.
        measure: gives Ω as it comes, on no common scale.
        own: whether each domain has its own.
    """

    rows: Callable[[Source], Rows]
    about: str
    measure: Callable[[Any, Rows], Importance] = exact
    own: bool = False


def _old(count: int = COUNT, only: str | None = None, part: Callable[[str], str] = measured) -> Callable[..., Rows]:
    return lambda source: source.old(count, only, part)


def _batches(size: int, count: int = COUNT) -> Variant:
    return Variant(lambda source: source.shuffled(count), "batches", partial(moduli, size=size))


REFERENCE = "reference"
#: All ways, by name; the names are those of files and of the page's tables.
VARIANTS: dict[str, Variant] = {
    REFERENCE: Variant(_old(), "reference"),
    "batches of 8": _batches(8),
    "batches of 32": _batches(32),
    "batches of 128": _batches(128),
    "a batch of 513": _batches(LARGE, LARGE),
    "3 windows": Variant(_old(3), "windows"),
    "9 windows": Variant(_old(9), "windows"),
    "30 windows": Variant(_old(30), "windows"),
    "99 windows": Variant(_old(99), "windows"),
    "999 windows": Variant(_old(999), "windows"),
    "255 windows it was trained on": Variant(_old(part=learned), "windows"),
    "the new domain": Variant(Source.new, "probes", own=True),
    "wikitext alone": Variant(_old(only="wikitext"), "probes"),
    "manuals alone": Variant(_old(only="manuals"), "probes"),
    "novels alone": Variant(_old(only="novels"), "probes"),
    "random tokens": Variant(Source.nonsense, "probes"),
    "E g²": Variant(_old(), "form", partial(moduli, power=2)),
    "E |g|^½": Variant(_old(), "form", partial(moduli, power=0.5)),
    "E‖J‖²": Variant(_old(), "form", curvature),
    "÷ its mean in each tensor": Variant(_old(), "form", lambda model, rows: within_tensors(exact(model, rows))),
    "3,000 windows it was trained on": Variant(_old(3000, part=learned), "windows"),
}


def names(about: str) -> list[str]:
    """The variants of a question."""
    return [name for name, variant in VARIANTS.items() if variant.about == about]

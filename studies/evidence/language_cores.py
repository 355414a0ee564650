"""Fine-tuning while the core of a language model stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from forgetless import Importance, freeze
from forgetless.learn.seeding import derive, permutation
from forgetless.measure.selection import Granularity, Scope
from studies.evidence.language_bench import Bench, modulus, weights
from studies.repair_tuning import tune

#: What stands still, and what of it is run for variants.
SHARES, VARIED = (0.3, 0.5, 0.7, 0.9), (0.5, 0.7)


def frozen(
    kind: str, granularity: Granularity = "element", scope: Scope = "global", *, against: bool = False
) -> Callable[[Bench, float], Any]:
    """AdamW steps on the weights outside the core, which are a share of the elements by a kind of importance.

    Args:
        kind: "magnitude", "random", or one of the kinds of Ω.
        granularity: of the core.
        scope: of the core.
        against: whether the importance is weighed against the domain's mean modulus of the loss gradient.
    """

    def run(bench: Bench, share: float) -> Any:
        model = bench.base.load()
        other = _domain(bench) if against else None
        core = freeze(model, _scores(bench, kind), share, granularity, scope=scope, against=other)
        tune(model, bench.domain, bench.seed, rate=bench.rate, core=core)
        return model

    return run


def _scores(bench: Bench, kind: str) -> Importance:
    if kind not in ("magnitude", "random"):
        return bench.base.omega(kind)
    draw = torch.Generator().manual_seed(derive(bench.seed, "core"))

    def score(values: Tensor) -> Tensor:
        return torch.rand(values.shape, generator=draw) if kind == "random" else values.abs()

    return Importance({name: score(each) for name, each in weights(bench.base.load()).items()}, 1, kind)


def _domain(bench: Bench) -> Importance:
    rows = bench.domain.train
    few = permutation(len(rows), derive(bench.seed, "measured"))[: len(bench.base.measured)]
    return modulus(bench.base.load(), rows.taken(few), bench.base.chunk)

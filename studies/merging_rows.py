"""The rows of the tables of merging, and how λ is chosen: by data that are no test data, of a grid fixed before."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from forgetless import edit
from forgetless.edit.merging import METHODS
from forgetless.lab.results.paired import paired
from forgetless.measure.importance import Importance

#: λ of a sum of task vectors, and of what is no longer than one of them.
_SUMMED, _AVERAGED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0), (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class Row:
    """A way to merge.

    Attributes:
        method: its name.
        settings: what it is told.
        scales: the λ to choose from; none: nothing is chosen.
        longer: whether λ lengthens the merged model's way from the base, `θ_base + λ (θ − θ_base)`.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    scales: Sequence[float] = ()
    longer: bool = False


ROWS: dict[str, Row] = {
    "mean": Row("mean"),
    "fisher": Row("fisher"),
    "fisher, as measured (IMM's mode)": Row("fisher", {"scale_importance": "none"}),
    "mas": Row("mas"),
    "mas, as measured": Row("mas", {"scale_importance": "none"}),
    "mean, step λ chosen": Row("mean", scales=_AVERAGED, longer=True),
    "fisher, step λ chosen": Row("fisher", scales=_AVERAGED, longer=True),
    "mas, step λ chosen": Row("mas", scales=_AVERAGED, longer=True),
    "task-arithmetic": Row("task-arithmetic"),
    "task-arithmetic, λ chosen": Row("task-arithmetic", scales=_SUMMED),
    "ties": Row("ties"),
    "ties, λ chosen": Row("ties", scales=_AVERAGED),
    "dare-linear": Row("dare-linear"),
    "dare-linear, λ chosen": Row("dare-linear", scales=_SUMMED),
    "dare-ties": Row("dare-ties"),
    "dare-ties, λ chosen": Row("dare-ties", scales=_SUMMED),
}

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Experts:
    """Models of one base.

    Attributes:
        base: its weights.
        models: theirs.
        omegas: method → the importance of each.
        seed: decides what DARE drops.
    """

    base: State
    models: Sequence[State]
    omegas: Mapping[str, Sequence[Importance]]
    seed: int

    def merged(self, row: Row, scales: Sequence[float | None]) -> Iterator[dict[str, Tensor]]:
        """The merged weights at each λ; None for the method's own."""
        own = METHODS[row.method]
        settings = {**({"seed": self.seed} if "seed" in own.defaults else {}), **row.settings}

        def made(scale: float | None) -> dict[str, Tensor]:
            return edit.merged(
                self.models,
                base=self.base if own.needs_base else None,
                method=row.method,
                importances=self.omegas[row.method] if own.estimators else None,
                scale=scale,
                **settings,
            )

        if not row.longer:
            yield from map(made, scales)
            return
        first = made(None)
        for scale in scales:
            yield edit.merged([first], base=self.base, method="task-arithmetic", scale=scale)


def chosen(experts: Experts, row: Row, held_out: Callable[[State], float]) -> tuple[State, dict[str, Any]]:
    """The merged weights at the λ that is best on held-out data, and what was tried.

    Args:
        experts: what is merged.
        row: how.
        held_out: weights → a figure on data that are no test data; more is better.
    """
    if not row.scales:
        return next(experts.merged(row, [None])), {}
    tried = {scale: held_out(state) for scale, state in zip(row.scales, experts.merged(row, row.scales), strict=True)}
    best = max(tried, key=lambda scale: tried[scale])
    found = {"λ": best, "held out": {f"{scale:g}": float(f"{figure:.6g}") for scale, figure in tried.items()}}
    return next(experts.merged(row, [best])), found


def beside_the_mean(figures: Mapping[str, Mapping[int, float]], unit: str, digits: int) -> Iterator[str]:
    """A Markdown table, paired by seed: how much more than the plain mean each row has, with 95 % intervals.

    Args:
        figures: row → seed → figure.
        unit: heads the table.
        digits: after the point.
    """
    seeds = sorted(figures["mean"])
    yield f"| {unit} | {' | '.join(f'seed {seed}' for seed in seeds)} | mean [95 % interval] |"
    yield "|---" * (len(seeds) + 2) + "|"
    for row, own in figures.items():
        if row != "mean":
            found = paired(own, figures["mean"])
            cells = [f"{own[seed] - figures['mean'][seed]:+.{digits}f}" for seed in seeds]
            low, high = (f"{end:+.{digits}f}" for end in (found.low, found.high))
            yield f"| {row} | {' | '.join(cells)} | {found.mean:+.{digits}f} [{low}, {high}] |"


def between(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"

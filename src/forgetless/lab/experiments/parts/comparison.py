"""Methods compared on the same seeds: paired differences, how sure they are and how large; and the tables they make."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.learn import metrics

Run = Mapping[str, Any]
Figure = tuple[float, float | None]  # a mean, and its standard deviation where that is known
Published = Mapping[str, Mapping[str, Figure]]


@dataclass(frozen=True)
class Paired:
    """A method less another, over runs of the same seed and order.

    Attributes:
        mean: of the differences.
        low: the lower end of its confidence interval (Student's t), −∞ for a single run.
        high: the upper end.
        effect: Cohen's d_z, the mean over the differences' standard deviation; NaN for a single run, ±∞ (or 0) where
            they do not differ.
        count: how many runs.
    """

    mean: float
    low: float
    high: float
    effect: float
    count: int


def paired(ours: Mapping[Any, float], theirs: Mapping[Any, float], level: float = 0.95) -> Paired:
    """Compare two methods over the runs that both have.

    Args:
        ours: run → figure.
        theirs: run → figure of the other method.
        level: of the confidence interval.

    Raises:
        ForgetlessError: no run in common, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ForgetlessError(f"the level of a confidence interval is between 0 and 1, not {level!r}.")
    differences = [ours[run] - theirs[run] for run in ours if run in theirs]
    count = len(differences)
    if not count:
        raise ForgetlessError("the two methods have no run in common to be compared by.")
    mean = statistics.fmean(differences)
    if count == 1:
        return Paired(mean, -math.inf, math.inf, math.nan, 1)
    sd = statistics.stdev(differences)
    margin = quantile((1 + level) / 2, count - 1) * sd / math.sqrt(count)
    effect = mean / sd if sd else math.copysign(math.inf, mean) if mean else 0.0
    return Paired(mean, mean - margin, mean + margin, effect, count)


def quantile(probability: float, freedom: int) -> float:
    """Where Student's t distribution of so many degrees of freedom reaches a probability of ½ or more."""
    low, high = 0.0, 1.0
    while _below(high, freedom) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _below(middle, freedom) < probability else (low, middle)
    return high


def _below(t: float, freedom: int) -> float:
    """P(T ≤ t), t ≥ 0: `1 − ½ I_x(ν/2, ½)` with `x = ν/(ν + t²)`, I the regularized incomplete beta function."""
    return 1 - _beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2


def _beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), by its continued fraction (Lentz), which converges fast below x = (a + 1)/(a + b + 2)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    d = 1 / (1 - (a + b) * x / (a + 1))
    c, fraction = 1.0, d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction / a


def accuracies(results: Mapping[str, Any]) -> dict[str, dict[tuple[int, int], float]]:
    """Method → (seed, order) → average accuracy in the end, in percent."""
    return _by_method(results, metrics.average_accuracy)


def _by_method(results: Mapping[str, Any], metric: Any) -> dict[str, dict[tuple[int, int], float]]:
    found: dict[str, dict[tuple[int, int], float]] = {}
    for run in results["runs"]:
        figures = found.setdefault(run["method"], {})
        figures[run["seed"], run.get("order", 0)] = 100 * metric(run["accuracy"])
    return found


def spread(figures: Sequence[float], digits: int = 2) -> str:
    """`"98.71 ± 0.20"`, or `"98.71"` of a single one."""
    mean = f"{statistics.fmean(figures):.{digits}f}"
    return mean if len(figures) < 2 else f"{mean} ± {statistics.stdev(figures):.{digits}f}"


def verdict(figures: Sequence[float], published: Figure | None) -> str:
    """Whether the mean is above, within or below the published mean ± its standard deviation, where that is known."""
    if published is None:
        return "–"
    mean, (their, sd) = statistics.fmean(figures), published
    if sd is None:
        return "–"
    return "within" if abs(mean - their) <= sd else "above" if mean > their else "**below**"


def table(results: Mapping[str, Mapping[str, Any]], published: Published, rival: str = "mas") -> str:
    """Published accuracies with ours beside them, as Markdown: a block for each scenario that has runs.

    Args:
        results: scenario → content of its `results.json`.
        published: scenario → method → mean and standard deviation (or None), in percent.
        rival: the method that the others are compared with, on the same seeds.
    """
    return "\n\n".join(
        _block(scenario, content, published.get(scenario, {}), rival)
        for scenario, content in results.items()
        if content["runs"]
    )


def _block(scenario: str, content: Mapping[str, Any], published: Mapping[str, Figure], rival: str) -> str:
    found, lost = accuracies(content), _by_method(content, metrics.forgetting_mas)
    strengths: dict[str, set[float]] = {}
    for run in content["runs"]:
        if run.get("strength") is not None:
            strengths.setdefault(run["method"], set()).add(float(run["strength"]))
    names = [*(name for name in published if name in found), *(name for name in found if name not in published)]
    lines = [
        f"**{scenario}-incremental**, average accuracy after the last task in %",
        "",
        f"| method | λ | published | ours | runs | verdict | forgetting | {rival} − it, 95 % interval | d_z |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        figures = list(found[name].values())
        theirs = published.get(name)
        λ = sorted(strengths.get(name, ()))
        cells = [
            name,
            "–" if not λ else f"{λ[0]:g}" if len(λ) == 1 else f"{λ[0]:g} … {λ[-1]:g}",
            _published(theirs),
            spread(figures),
            str(len(figures)),
            verdict(figures, theirs),
            spread(list(lost[name].values())),
            *_against(found, name, rival),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _published(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    mean, sd = figure
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"


def _against(found: Mapping[str, Mapping[tuple[int, int], float]], name: str, rival: str) -> tuple[str, str]:
    """The paired difference with its interval, and its effect size."""
    if name == rival or rival not in found or not found[rival].keys() & found[name].keys():
        return "–", "–"
    pair = paired(found[rival], found[name])
    if pair.count == 1:
        return f"{pair.mean:+.2f}", "–"
    return f"{pair.mean:+.2f} [{pair.low:+.2f}, {pair.high:+.2f}]", f"{pair.effect:.1f}"

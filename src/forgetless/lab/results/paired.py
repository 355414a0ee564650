"""Two methods compared on the same seeds: the mean difference, how certain it is, and how large."""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.learn import metrics

#: Said where an interval would stand, without scipy.
NEEDS_SCIPY = "confidence intervals need scipy: pip install 'forgetless[vision]'."


@dataclass(frozen=True)
class Paired:
    """A method minus another, over runs of the same seed and order.

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

    With differences d_1 … d_n of mean d̄ and standard deviation s, the interval is `d̄ ± t(n−1) · s / √n`.

    Args:
        ours: run → figure.
        theirs: run → figure of the other method.
        level: of the confidence interval.

    Raises:
        ForgetlessError: no run in common, a level outside (0, 1), or scipy is not installed.
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
    margin = _students_t((1 + level) / 2, count - 1) * sd / math.sqrt(count)
    effect = mean / sd if sd else math.copysign(math.inf, mean) if mean else 0.0
    return Paired(mean, mean - margin, mean + margin, effect, count)


@dataclass(frozen=True)
class Tested:
    """Whether a method is better than another: a one-sided test over runs of the same seed.

    Attributes:
        mean: of the differences.
        p: of Student's paired t-test, one-sided: how probable such a mean is where there is no difference.
        p_ranks: of Wilcoxon's signed-rank test, one-sided, which does not assume normal differences.
        effect: Cohen's d_z, the mean over the differences' standard deviation.
        count: how many runs.
    """

    mean: float
    p: float
    p_ranks: float
    effect: float
    count: int


def greater(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> Tested | None:
    """Test whether `ours` is greater over the runs that both have; None for fewer than two, or where none differs.

    Raises:
        ForgetlessError: scipy is not installed.
    """
    differences = [ours[run] - theirs[run] for run in ours if run in theirs]
    if len(differences) < 2 or not any(differences) or not (sd := statistics.stdev(differences)):
        return None
    try:
        from scipy.stats import ttest_1samp, wilcoxon
    except ImportError as error:
        raise ForgetlessError(NEEDS_SCIPY) from error
    mean = statistics.fmean(differences)
    t, ranks = (test(differences, alternative="greater") for test in (partial(ttest_1samp, popmean=0.0), wilcoxon))
    return Tested(mean, float(t.pvalue), float(ranks.pvalue), mean / sd, len(differences))


def has_intervals() -> bool:
    """Whether scipy, which intervals need, is installed."""
    return importlib.util.find_spec("scipy") is not None


def _students_t(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution with so many degrees of freedom."""
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise ForgetlessError(NEEDS_SCIPY) from error
    return float(stdtrit(freedom, probability))


def accuracies(results: Mapping[str, Any]) -> dict[str, dict[tuple[int, int], float]]:
    """Method → (seed, order) → average accuracy after the last task, in percent."""
    return by_method(results, metrics.average_accuracy)


def by_method(results: Mapping[str, Any], metric: Any) -> dict[str, dict[tuple[int, int], float]]:
    """Method → (seed, order) → a metric of R, in percent."""
    found: dict[str, dict[tuple[int, int], float]] = {}
    for run in results["runs"]:
        figures = found.setdefault(run["method"], {})
        figures[run["seed"], run.get("order", 0)] = 100 * metric(run["accuracy"])
    return found

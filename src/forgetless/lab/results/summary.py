"""Results summed up by method: means and standard deviations over seeds and orders."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.lab.results.content import check
from forgetless.learn import metrics

#: What every method does, for readers who meet them for the first time.
MEANING = {
    "finetune": "trains on without protection, so it forgets",
    "frozen": "freezes the backbone and trains heads only",
    "mas": "protects the weights that matter and trains the rest",
    "mas-remeasured": "MAS, measured again on samples of all tasks so far",
    "local-mas": "as MAS, each layer measured on its own",
    "mas-per-batch": "MAS by a batch's mean gradient, as other codes have it",
    "task-free-mas": "MAS, with borders between tasks found from the loss",
    "l2sp": "holds all weights equally to where the task began",
    "ewc": "protects weights by the Fisher information, a term a task",
    "online-ewc": "as EWC, one term for all tasks, at the last weights",
    "si": "protects weights whose path lowered the loss",
    "rwalk": "protects weights by Fisher information and path",
    "lwf": "keeps the old outputs on the new task's inputs",
    "ebll": "as LwF, and keeps the features that old tasks used",
    "imm-mean": "averages the weights of all tasks",
    "imm-mode": "merges the weights of all tasks by Fisher information",
    "er": "replays kept samples of earlier tasks",
    "der++": "replays kept samples and the old outputs for them",
    "a-gem": "takes no step that raises the loss on kept samples",
    "joint": "trains on the data of all tasks so far",
}


@dataclass(frozen=True)
class Estimate:
    """A mean over runs and its sample standard deviation (`None` for a single run)."""

    mean: float
    sd: float | None = None

    def percent(self) -> str:
        """The estimate as text, in percent: `"61.3"` or `"61.3 ± 2.1"`."""
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        text = f"{round(100 * self.mean, 1) + 0.0:.1f}"
        return text if self.sd is None else f"{text} ± {100 * self.sd:.1f}"


def percent(estimate: Estimate | None) -> str:
    """The estimate as text, in percent; a dash for an unknown one."""
    return "–" if estimate is None else estimate.percent()


@dataclass(frozen=True)
class MethodSummary:
    """One method over all its runs. A quantity that is unknown for a run is `None`.

    Attributes:
        method: its name.
        seeds: one per run, in the order of the runs.
        strengths: the different λ its runs used, `None` left out.
        given: what the runs were given: λ, "auto", or "search" or "rise" for one found for every task; None where
            that differs.
        matrix: R over runs, T × T; row and column i are the task that was learned i-th.
        learned: each task's accuracy when it was learned, in the order of `Summary.tasks`.
        now: each task's accuracy after the last one, in the same order.
        so_far: after each task, the mean accuracy over the tasks learned so far.
        average_learned: the mean of `learned` over the tasks.
        average: the mean of `now` over the tasks (ACC).
        forgetting: the mean of R[j,j] − R[T,j] over all tasks but the last.
        figures: what else was looked at → its value after the last task, a share.
        seconds: phase → how long it took.
    """

    method: str
    seeds: tuple[int, ...]
    strengths: tuple[float, ...]
    given: float | str | None
    matrix: tuple[tuple[Estimate | None, ...], ...]
    learned: tuple[Estimate | None, ...]
    now: tuple[Estimate | None, ...]
    so_far: tuple[Estimate | None, ...]
    average_learned: Estimate | None
    average: Estimate | None
    forgetting: Estimate | None
    figures: dict[str, Estimate]
    seconds: dict[str, Estimate]

    @property
    def label(self) -> str:
        """The method with its strength: `"mas, λ = 1"`, `"mas, λ = 0.5 … 2"` if it differs between runs.

        One that was found by itself is told with three digits: `"mas, auto λ = 0.0123 … 0.0202"`.
        """
        if not self.strengths:
            return self.method
        form, auto = (".3g", "auto ") if self.given == "auto" else ("g", "")
        low, high = (f"{found(self.strengths):{form}}" for found in (min, max))
        return f"{self.method}, {auto}λ = {low}" + ("" if low == high else f" … {high}")


@dataclass(frozen=True)
class Summary:
    """Everything a table or a page shows of an experiment; control characters in names are replaced.

    Attributes:
        experiment: its name.
        tasks: their names, in the experiment's own order.
        places: what a row and a column of a matrix is called: the task, or its place in the sequence if runs differ in
            their order.
        methods: in the order in which they first appear among the runs.
        environment: what the runs ran on; values that are not text as JSON.
        score: what R holds.
    """

    experiment: str
    tasks: tuple[str, ...]
    places: tuple[str, ...]
    methods: tuple[MethodSummary, ...]
    environment: dict[str, str]
    score: str = "accuracy"

    @property
    def figures(self) -> list[str]:
        """The names of what else was looked at, by any of the methods."""
        return list(dict.fromkeys(name for method in self.methods for name in method.figures))

    @property
    def runs(self) -> str:
        """How many runs the methods' means are over: `"3 seeds"`, `"3 to 6 runs"` if runs differ in their order too."""
        counts = sorted({len(method.seeds) for method in self.methods})
        number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        return f"{number} {'seed' if self.places == self.tasks else 'run'}{'s' * (counts != [1])}"


def summarize(results: Mapping[str, Any]) -> Summary:
    """Sum up the content of a `results.json` by method: means and standard deviations over seeds and orders.

    Raises:
        ForgetlessError: the content is not the results of an experiment, or holds no run yet.
    """
    check(results)
    if not results["runs"]:
        raise ForgetlessError("these results hold no finished run yet; let `forgetless run` finish one.")
    by_method: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in results["runs"]:
        by_method.setdefault(column(run), []).append(run)
    names = results["tasks"]
    tasks = tuple(map(_printable, names))
    same = all(run.get("learned", names) == names for run in results["runs"])
    return Summary(
        experiment=_printable(results["experiment"]),
        tasks=tasks,
        places=tasks if same else tuple(f"task {place + 1}" for place in range(len(tasks))),
        methods=tuple(_summarize_method(_printable(method), runs, names) for (method, _), runs in by_method.items()),
        environment={_printable(key): _printable(_text(value)) for key, value in results["environment"].items()},
        score=_printable(results.get("score", "accuracy")),
    )


def derived(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the table shows of each method, JSON-able: shares by the names of `forgetless.metrics`, as mean and sd.

    Raises:
        ForgetlessError: as `summarize`.
    """
    return [
        {
            "method": method.method,
            "strengths": list(method.strengths),
            "seeds": list(method.seeds),
            "learning_accuracy": _plain(method.average_learned),
            "average_accuracy": _plain(method.average),
            "forgetting_mas": _plain(method.forgetting),
        }
        for method in summarize(results).methods
    ]


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else {"mean": estimate.mean, "sd": estimate.sd}


def given(run: Mapping[str, Any]) -> float | str | None:
    """The λ that a run was given; "auto", "search" or "rise" where it was found, None for a method without one."""
    settings = run.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}  # nothing else reads it
    if any(str(name).rpartition(".")[2] == "strength" and value == "auto" for name, value in settings.items()):
        return "auto"
    if "strengths" in run:
        return "rise" if run.get("rise") is True else "search"
    return None if run.get("strength") is None else float(run["strength"])


def column(run: Mapping[str, Any]) -> tuple[str, str]:
    """What the runs of one column of a table have in common: the method, and in joined results its strength."""
    return run["method"], run.get("column", "")


def _printable(text: str) -> str:
    """`text` on one line without control characters: names come from folders and files of any origin."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _summarize_method(method: str, runs: list[Mapping[str, Any]], names: list[str]) -> MethodSummary:
    matrices = [run["accuracy"] for run in runs]
    tasks = range(len(names))
    places = [_places(run.get("learned", names), names) for run in runs]
    of_runs = list(zip(matrices, places, strict=True))
    matrix = tuple(tuple(_estimate(R[i][j] for R in matrices) for j in tasks) for i in tasks)
    strengths = (float(run["strength"]) for run in runs if run.get("strength") is not None)
    phases = dict.fromkeys(phase for run in runs for phase in run.get("seconds", {}))
    seconds = {phase: _estimate(run.get("seconds", {}).get(phase) for run in runs) for phase in phases}
    return MethodSummary(
        method=method,
        seeds=tuple(run["seed"] for run in runs),
        strengths=tuple(dict.fromkeys(strengths)),
        given=next(iter(every)) if len(every := {given(run) for run in runs}) == 1 else None,
        matrix=matrix,
        learned=tuple(_estimate(R[place[j]][place[j]] for R, place in of_runs) for j in tasks),
        now=tuple(_estimate(R[-1][place[j]] for R, place in of_runs) for j in tasks),
        so_far=tuple(_estimate(_mean(R[i][: i + 1]) for R in matrices) for i in tasks),
        average_learned=_estimate(known(metrics.learning_accuracy, R) for R in matrices),
        average=_estimate(known(metrics.average_accuracy, R) for R in matrices),
        forgetting=_estimate(known(metrics.forgetting_mas, R) for R in matrices),
        figures=_figures(runs),
        seconds={_printable(phase): estimate for phase, estimate in seconds.items() if estimate is not None},
    )


def _figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """What all runs have looked at, after the last task."""
    names = [name for name in runs[0].get("figures", {}) if all(name in run.get("figures", {}) for run in runs)]
    found = {_printable(name): _estimate(run["figures"][name][-1] for run in runs) for name in names}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _places(learned: Sequence[str], names: Sequence[str]) -> list[int]:
    """Of each of the names, where in the sequence it was learned."""
    return sorted(range(len(names)), key=lambda place: names.index(learned[place]))


def known(metric: Callable[[metrics.Rows], float], accuracy: metrics.Rows) -> float | None:
    """The metric, or `None` where R lacks an entry it needs or is of a single task."""
    try:
        return metric(accuracy)
    except ForgetlessError:
        return None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and sd; `None` if any of the values is unknown, for a mean over fewer runs would mislead."""
    all_values = list(values)
    mean = _mean(all_values)
    if mean is None:
        return None
    known = [value for value in all_values if value is not None]
    return Estimate(mean, statistics.stdev(known) if len(known) > 1 else None)

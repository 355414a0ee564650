"""What `results.json` holds, and the check that it does.

    {"experiment": name, "tasks": [names], "environment": {…},
     "runs": [{"method", "seed", "strength", "accuracy": [[R rows]], "seconds": {…}}]}

`accuracy` is the matrix R: row i holds the accuracy (0 … 1) on every task after learning task i, `null` where it is
unknown (a task that has no head yet). A run that learned the tasks in another order than `tasks` names it in `learned`;
its rows and columns follow that order. `figures`, where an experiment looks at more than R, holds lists of a share
after every task, by name; `online`, of streams that were learned in one pass, the accuracies in between (`looks`) and
what the learner found out; `score` says what R holds, where that is not the accuracy. A file that is kept for good
(`results/` in the repository) also has the run's `config`, and the `data` it was made with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from forgetless.errors import ForgetlessError


def check(results: Any) -> None:
    """Refuse anything that is not the content of a `results.json`.

    Raises:
        ForgetlessError: naming the field that is missing or wrong.
    """
    fields = {"experiment": str, "tasks": list, "runs": list, "environment": dict}
    if not isinstance(results, Mapping):
        raise ForgetlessError("the whole is not a JSON object.")
    for name, kind in fields.items():
        if not isinstance(results.get(name), kind):
            raise ForgetlessError(f"the field {name!r} is missing or not a {kind.__name__}.")
    if not isinstance(results.get("score", ""), str):
        raise ForgetlessError("the field 'score' is not text.")
    tasks = results["tasks"]
    if not tasks or not all(isinstance(task, str) for task in tasks):
        raise ForgetlessError("'tasks' is not a list of one or more names.")
    for number, run in enumerate(results["runs"]):
        _check_run(run, tasks, f"run {number}")


def _check_run(run: Any, names: list[str], where: str) -> None:
    if not isinstance(run, Mapping) or not isinstance(run.get("method"), str):
        raise ForgetlessError(f"{where} names no method.")
    if not _is_integer(run.get("seed")):
        raise ForgetlessError(f"{where} has no integer seed.")
    if not isinstance(run.get("column", ""), str):
        raise ForgetlessError(f"{where} has a 'column' that is not text.")
    if run.get("strength") is not None and not _is_number(run["strength"]):
        raise ForgetlessError(f"{where} has a strength that is neither a number nor null.")
    seconds = run.get("seconds", {})
    if not isinstance(seconds, Mapping) or not all(map(_is_number, seconds.values())):
        raise ForgetlessError(f"{where} has 'seconds' that are not numbers by name.")
    figures = run.get("figures", {})
    lists = figures.values() if isinstance(figures, Mapping) else [None]
    if not all(isinstance(each, list) and len(each) == len(names) and all(map(_is_share, each)) for each in lists):
        raise ForgetlessError(f"{where} has 'figures' that are not a share after every task, by name.")
    if not _is_streamed(run.get("online", {"looks": [[0, [0]]]})):
        raise ForgetlessError(f"{where} has an 'online' whose looks, lambdas or gates are not as they are written.")
    learned = run.get("learned", names)
    if not isinstance(learned, list) or sorted(learned, key=str) != sorted(names):
        raise ForgetlessError(f"{where} has a 'learned' that is no order of the tasks.")
    rows, tasks = run.get("accuracy"), len(names)
    if not isinstance(rows, list) or len(rows) != tasks:
        raise ForgetlessError(f"{where} has no accuracy matrix of {tasks} rows, one per task.")
    for row in rows:
        if not isinstance(row, list) or len(row) != tasks:
            raise ForgetlessError(f"{where} has an accuracy row that is not {tasks} entries long.")
        if not all(entry is None or _is_share(entry) for entry in row):
            raise ForgetlessError(f"{where} has an accuracy that is neither null nor between 0 and 1.")


def _is_streamed(online: Any) -> bool:
    """Whether it has looks, and for every group a λ at every time and a histogram at every border."""
    if not isinstance(online, Mapping):
        return False
    looks, groups, trace, gates = (online.get(name, []) for name in ("looks", "groups", "lambdas", "gates"))
    return (
        _is_list(looks, _is_look, 1)
        and _is_list(groups, lambda each: isinstance(each, str))
        and _is_list(trace, lambda row: _is_list(row, _is_number, len(groups) + 1, len(groups) + 1))
        and _is_list(gates, lambda each: _is_list(each, _is_histogram, len(groups), len(groups)))
    )


def _is_histogram(value: Any) -> bool:
    """Whether it counts something in one bin or more."""
    return _is_list(value, lambda count: _is_integer(count) and count >= 0, 1)


def _is_look(value: Any) -> bool:
    """Whether it is a number and the scores of one task or more."""
    return isinstance(value, list) and len(value) == 2 and _is_number(value[0]) and _is_list(value[1], _is_share, 1)


def _is_list(value: Any, holds: Callable[[Any], bool], least: int = 0, most: int | None = None) -> bool:
    """Whether it is a list of so many entries that all hold."""
    fits = isinstance(value, list) and len(value) >= least and (most is None or len(value) <= most)
    return fits and all(map(holds, value))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1

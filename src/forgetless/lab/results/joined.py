"""Results of several runs as one, such as of one method with several strengths."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless.errors import ForgetlessError


def joined(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One `results.json` content from several of the same experiment over the same tasks.

    A method with another strength is a column of its own. A run that is in several of them counts once.

    Args:
        found: where each is from, for a sentence → its content.

    Returns:
        The content; what differs between the environments is left out.

    Raises:
        ForgetlessError: experiments, tasks or scores that differ, or a run that is in two with other accuracies.
    """
    (first_name, first), *others = found.items()
    for name, each in others:
        for field in ("experiment", "tasks", "score"):
            if each.get(field) != first.get(field):
                raise ForgetlessError(
                    f"{first_name} and {name} cannot be shown as one: they differ in {field!r}; name runs of one "
                    "experiment over the same tasks."
                )
    runs: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, each in found.items():
        of_method = _strengths(each["runs"])
        for run in each["runs"]:
            key = (run["method"], of_method[run["method"]], run["seed"], run.get("order", 0))
            if key in runs and runs[key]["accuracy"] != run["accuracy"]:
                raise ForgetlessError(
                    f"{name} has another run of {run['method']!r} with seed {run['seed']} than those before it: they "
                    "differ in a setting that is no strength, so name only one of them."
                )
            runs.setdefault(key, {**run, "column": of_method[run["method"]]})
    environment = {key: value for key, value in first["environment"].items() if _same(key, value, others)}
    if all("command" in each["environment"] for each in found.values()):
        environment["command"] = " && ".join(
            _into(name, each["environment"]["command"]) for name, each in found.items()
        )
    return {**first, "environment": environment, "runs": list(runs.values())}


def _into(name: str, command: Any) -> str:
    """A recorded command with a folder of its own: those of several runs go into one another's otherwise."""
    try:
        words = shlex.split(str(command))
    except ValueError:  # no command of a shell, such as one with a quotation mark alone
        return str(command)
    if "--out" in words[:-1]:
        path = Path(name).resolve()
        path = path.parent if path.name == "results.json" else path
        words[words.index("--out") + 1] = f"runs/{path.stem if path.suffix == '.json' else path.name}"
    return shlex.join(words)


def _same(key: str, value: Any, others: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    return all(each["environment"].get(key) == value for _, each in others)


def _strengths(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Method → its strengths there, as text."""
    found: dict[str, set[float]] = {}
    for run in runs:
        strengths = found.setdefault(run["method"], set())
        if run.get("strength") is not None:
            strengths.add(float(run["strength"]))
    return {method: ", ".join(f"{each:.17g}" for each in sorted(strengths)) for method, strengths in found.items()}

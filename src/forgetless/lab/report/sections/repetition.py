"""What the words mean, the command that repeats the run, and what it ran on."""

from __future__ import annotations

import shlex
from typing import Any

from forgetless.lab.report.shown import Shown
from forgetless.lab.results import MEANING, Summary


def section(shown: Shown) -> dict[str, Any] | None:
    """The command, and the meaning of the methods."""
    return {"command": _command(shown.summary), "meaning": MEANING}


def _command(summary: Summary) -> str:
    """The command as the run recorded it, else one rebuilt from the results."""
    if "command" in summary.environment:
        return summary.environment["command"]
    seeds = sorted({seed for method in summary.methods for seed in method.seeds})
    words = ["forgetless", "run", summary.experiment, "--out", f"runs/{summary.experiment}"]
    words += [word for method in summary.methods for word in ("--method", method.method)]
    words += ["--seed", str(seeds[0]), "--seeds", str(len(seeds))]
    return shlex.join(words)

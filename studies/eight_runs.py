"""The committed runs of the eight tasks, told apart by their configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.published.mas_2018 import TITLES
from forgetless.lab.results import MethodSummary, Summary, summarize

MAIN = "squeezenet"


@dataclass(frozen=True)
class Found:
    """A committed run of the experiment.

    Attributes:
        config: what defines it.
        results: what it found, runs of the tasks' own order only.
        others: the runs of other orders.
    """

    config: Mapping[str, Any]
    results: Mapping[str, Any]
    others: Sequence[Mapping[str, Any]]

    @property
    def network(self) -> str:
        """The network."""
        return str(self.config["options"]["network"])

    @property
    def omega(self) -> str:
        """The samples that Ω was measured on."""
        return str(self.config["options"]["omega"])

    @property
    def pair(self) -> str | None:
        """The pair of tasks; None for all eight."""
        return self.config.get("pair")

    @property
    def plain(self) -> bool:
        """Whether nothing but the network was chosen: all eight tasks, Ω from training data, a falling search."""
        return self.eight and self.strength is None and not self.rising

    @property
    def eight(self) -> bool:
        """Whether it is of all eight tasks, with Ω from training data."""
        return self.pair is None and self.omega == "train"

    @property
    def rising(self) -> bool:
        """Whether the search for strengths could also go up."""
        return self.strength is None and bool(self.config["options"]["rise"])

    @property
    def strength(self) -> float | str | None:
        """The strength that was given; None where each method's was found, "search" where each task's was."""
        return self.config.get("strength")


def collect(folder: Path) -> list[Found]:
    """The finished runs in a folder of committed ones.

    Raises:
        ForgetlessError: `folder` is no folder, a file in it is damaged or has no config, or nothing has been run.
    """
    if not folder.is_dir():
        raise ForgetlessError(f"{folder} is no folder; name the one that holds the committed runs.")
    found = []
    for path in sorted(folder.glob("*.json")):
        content = results.read(path)
        if not isinstance(content.get("config"), dict) or "options" not in content["config"]:
            raise ForgetlessError(f"{path} has no config; `python -m studies.collect` makes such a file.")
        own = [run for run in content["runs"] if not run.get("order")]
        others = [run for run in content["runs"] if run.get("order")]
        if own or others:
            found.append(Found(content["config"], {**content, "runs": own}, others))
    if not found:
        raise ForgetlessError(f"{folder} holds no run of eight-tasks; `forgetless run eight-tasks` makes them.")
    return found


def strengths(found: Sequence[Found]) -> dict[str, dict[float, MethodSummary]]:
    """Method → λ → what it comes to on all eight tasks; methods that were run with more than one strength.

    Runs with a strength that was given, and the ones where it was found.
    """
    curves: dict[str, dict[float, MethodSummary]] = {}
    for each in found:
        if not each.eight or each.network != MAIN or isinstance(each.strength, str):
            continue  # strengths of their own for every task are no point of a curve
        for method in summarize(each.results).methods if each.results["runs"] else ():
            if method.strengths and method.method in TITLES:
                curve = curves.setdefault(method.method, {})
                strength = method.strengths[0]
                if strength not in curve or len(curve[strength].seeds) < len(method.seeds):
                    curve[strength] = method
    several = {name: dict(sorted(curve.items())) for name, curve in curves.items() if len(curve) > 1}
    return dict(sorted(several.items(), key=lambda each: each[0] != "mas"))


def other_orders(found: Sequence[Found]) -> dict[int, Summary]:
    """Order → its runs by the main network, summed up."""
    runs = [run for each in found if each.plain and each.network == MAIN for run in each.others]
    summaries = {}
    for order in sorted({run["order"] for run in runs}):
        mine = [run for run in runs if run["order"] == order]
        held = {"experiment": "eight-tasks", "tasks": mine[0]["learned"], "runs": mine, "environment": {}}
        summaries[order] = summarize(held)
    return summaries


def plain(found: Sequence[Found], network: str) -> Found | None:
    """The run of that network in which nothing but the network was chosen."""
    return next((each for each in found if each.plain and each.network == network), None)

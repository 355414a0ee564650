"""What variants of a language model came to: `results.json` read and checked, and its table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from forgetless import files

_Number = Annotated[float, files.Between(0, 1e12)]


@dataclass(frozen=True)
class Rare:
    """A class of words: bits per character (None where the test text has none), and how many characters."""

    bits: _Number | None
    characters: Annotated[int, files.Between(0)]


@dataclass(frozen=True)
class _Content:
    experiment: str
    corpus: str
    environment: dict[str, Any]
    runs: list[dict[str, Any]]
    config: dict[str, Any] = field(default_factory=dict)
    data: str = ""


def read(path: Path) -> dict[str, Any]:
    """The content of a `results.json` of language models; `path` is the file, or its run directory.

    Raises:
        ForgetlessError: the file is missing, damaged, or holds something else.
    """
    path = path / "results.json" if path.is_dir() else path
    found = files.read_sealed(path)
    files.decoded(found, _Content, path)
    for number, run in enumerate(found["runs"]):
        checked = {name: run.get(name) for name in ("method", "seed", "bits")}
        files.decoded(checked, _Run, f"{path}, run {number},")
    return found


def held_in(path: Path) -> bool:
    """Whether a file, or a run directory, has results of language models.

    Raises:
        ForgetlessError: the file is missing or damaged.
    """
    return "corpus" in files.read_sealed(path / "results.json" if path.is_dir() else path)


@dataclass(frozen=True)
class _Run:
    method: str
    seed: int
    bits: dict[str, _Number]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation over seeds: `2.345 ± 0.012`; the mean alone for one."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def grouped(results: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Variant → its runs."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in results["runs"]:
        found.setdefault(run["method"], []).append(run)
    return found


def table(results: Mapping[str, Any]) -> str:
    """Bits per character of every variant as a Markdown table, the best first."""
    columns = list(dict.fromkeys(name for run in results["runs"] for name in run["bits"]))
    lines = [
        f"| {results['corpus']}: bits per character | {' | '.join(columns)} | seeds | minutes |",
        "|---" * (len(columns) + 3) + "|",
    ]
    groups = grouped(results)
    for name in sorted(groups, key=lambda name: statistics.fmean(run["bits"]["test"] for run in groups[name])):
        runs = groups[name]
        cells = [spread([run["bits"][column] for run in runs]) for column in columns]
        minutes = statistics.fmean(run["seconds"]["train"] for run in runs) / 60
        lines.append(f"| {name} | {' | '.join(cells)} | {len(runs)} | {minutes:.1f} |")
    return "\n".join(lines)

"""What the benchmarks of streams share: their command, their file of results, and the block of the page."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from importance import PAGE, Clock

Results = dict[str, Any]  # network → what was measured


def footer(results: Results, names: Sequence[str]) -> list[str]:
    """The last lines of a table: what the numbers depend on."""
    place = results[names[0]]["environment"]
    loads = ", ".join(f"{results[name]['environment']['load']:.1f}" for name in names)
    return [
        "",
        f"{place['cpu']} ({place['vectors']}), {place['threads']} thread(s), clock: {place['clock']}, load {loads}; "
        f"torch {place['torch']}.",
    ]


def run(
    about: str | None,
    names: Iterable[str],
    measure: Callable[[str, Clock, int], dict[str, Any]],
    table: Callable[[Results], str],
    block: str,
    rounds: int,
) -> None:
    """The command of a benchmark: measure the networks, or rewrite the table.

    Args:
        about: what `--help` says.
        names: the networks.
        measure: (network, clock, rounds) → its rows, "ratio" among them.
        table: the results as Markdown.
        block: the name of the file in benchmarks/results and of the block of docs/performance.md.
        rounds: how many by default.
    """
    words = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--only", default=",".join(names), help="networks")
    words.add_argument("--rounds", type=int, default=rounds)
    words.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread, on a busy machine")
    words.add_argument("--file", type=Path, default=Path(__file__).parent / "results" / f"{block}.json")
    words.add_argument("--table", action="store_true")
    given = words.parse_args()
    results: Results = json.loads(given.file.read_text()) if given.file.exists() else {}
    if given.table:
        begin, end = f"<!-- {block}: begin -->\n", f"<!-- {block}: end -->"
        before, _, rest = PAGE.read_text().partition(begin)
        PAGE.write_text(before + begin + table(results) + "\n" + end + rest.partition(end)[2])
        return
    if given.clock == "cpu":
        torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.only.split(","):
        results[name] = measure(name, Clock(given.clock), given.rounds)
        given.file.parent.mkdir(parents=True, exist_ok=True)
        given.file.write_text(json.dumps(results, indent=1) + "\n")
        print(name, {row: round(each["ratio"], 3) for row, each in results[name]["rows"].items()}, flush=True)

"""How long `forgetless ask` takes, as a user waits for it: whole processes, one after the other, on one core.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/ask.py RUN PICTURE   writes benchmarks/results/ask.json
    PYTHONPATH=. python benchmarks/ask.py                                 rewrite the table in docs/facts.md

RUN is a run directory of `forgetless run facts`. Each command runs once before it is measured, so that its files are in
the system's cache. The table has the processor's seconds (user and system), which a core that does nothing else takes;
the file has those on the clock too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from importance import environment
from rounds import footer
from studies import blocks

RESULTS = Path(__file__).parent / "results" / "ask.json"
PAGE = Path(__file__).parents[1] / "docs" / "facts.md"
ROUNDS = 5


def commands(run: Path, picture: Path) -> dict[str, list[str]]:
    """What is measured: a title → a command."""
    ask = [sys.executable, "-m", "forgetless", "ask", str(run)]
    return {
        "`ask RUN --fact woman,row,boat`": [*ask, "--fact", "woman,row,boat"],
        "`ask RUN --image PICTURE`": [*ask, "--image", str(picture)],
        "`python -c 'import torch'` alone": [sys.executable, "-c", "import torch"],
        "`forgetless --help`": [sys.executable, "-m", "forgetless", "--help"],
    }


def seconds(command: list[str]) -> tuple[float, float]:
    """On the clock, and of the processor, for a process from its start to its end."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used


def table(found: dict[str, Any]) -> str:
    """The medians and the slowest as Markdown, and what they depend on."""
    lines = ["| command | seconds of one core: median, slowest |", "|---|---|"]
    for title, each in found["rows"].items():
        lines.append(f"| {title} | {statistics.median(each['processor']):.2f}, {max(each['processor']):.2f} |")
    return "\n".join([*lines, *footer({"ask": found}, ["ask"])])


def main() -> None:
    """See the top of this file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("run", type=Path, nargs="?")
    words.add_argument("picture", type=Path, nargs="?")
    given = words.parse_args()
    if given.run is not None and given.picture is not None:
        rows: dict[str, dict[str, list[float]]] = {}
        for title, command in commands(given.run, given.picture).items():
            seconds(command)
            wall, used = zip(*(seconds(command) for _ in range(ROUNDS)), strict=True)
            rows[title] = {"clock": list(wall), "processor": list(used)}
        RESULTS.write_text(json.dumps({"rows": rows, "environment": environment("cpu")}, indent=1) + "\n")
    text = table(json.loads(RESULTS.read_text()))
    blocks.inserted(PAGE, "asked", text)
    print(text)


if __name__ == "__main__":
    main()

"""Copy a finished run to where the pages look for it: one file with its config and its results.

    python -m studies.collect runs/squeezenet eight-tasks/squeezenet
    python -m studies.collect runs/split-mnist split-mnist/published --data "MNIST, all 60,000 digits."

It writes `results/NAME.json`; for a run of several experiments, `results/NAME-PART.json` each, or
`results/NAME/PART.json` if NAME ends with a slash. PART is the experiment's folder in the run directory.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import results

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)?/?")


def collect(run: Path, name: str, root: Path = Path("results"), data: str = "") -> list[Path]:
    """Copy the results of a run directory below `root`; gives the files that were written.

    Args:
        run: a run directory of `forgetless run`, of one experiment or of several.
        name: EXPERIMENT/NAME, in lower-case letters, digits, dots and hyphens.
        root: the folder of all results.
        data: which data it was, in a sentence.

    Raises:
        ForgetlessError: another name, no run, or a damaged one.
    """
    if not _NAME.fullmatch(name):
        raise ForgetlessError(f"{name!r} is no name of results; write EXPERIMENT/NAME in a-z, 0-9, dots and hyphens.")
    written = []
    for path in sorted([*run.glob("results.json"), *run.glob("*/results.json")]):
        found, config = results.read(path), files.read_json(path.parent / "config.json")
        part = "" if path.parent == run else path.parent.name
        target = root / ((f"{name}{part}" if name.endswith("/") else f"{name}-{part}" if part else name) + ".json")
        about = {"data": data} if data else {}
        order = {"experiment": found.pop("experiment"), "tasks": found.pop("tasks"), **about}
        results.write(target, {**order, "config": config, "budget": budget(config), **found})
        written.append(target)
    if not written:
        raise ForgetlessError(f"{run} holds no results; name a run directory of `forgetless run`.")
    return written


def budget(config: dict[str, object]) -> dict[str, int]:
    """The epochs, and the steps of a task of mean size."""
    recipe, tasks = config["recipe"], config["tasks"]
    assert isinstance(recipe, dict)
    assert isinstance(tasks, list)
    samples = sum(task["train"] for task in tasks)
    steps = -(-samples // len(tasks) // recipe["batch_size"])
    return {"epochs": recipe["epochs"], "steps": recipe["epochs"] * steps}


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.collect", description=__doc__)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("name", help="EXPERIMENT/NAME")
    parser.add_argument("--data", default="", help="which data it was, in a sentence")
    options = parser.parse_args(words)
    try:
        for path in collect(options.run, options.name, data=options.data):
            print(path)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

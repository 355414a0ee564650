"""A run directory: opened, checked and kept up to date.

config.json     what defines the experiment; a directory with another one is refused
results.json    what was found so far, with a checksum; read and written whole after every run
checkpoints/    a file per run: where it is, and in the end what was learned
strengths/      where strengths are tuned: the trials for each method, and what was found
searches/       with `--strength search`: the trials for each run and task
traces/         of each run how the weights moved, what was protected and what it answered, for the page
kept/           what the experiment asks to be kept of each run
log.jsonl       what happened when, a JSON object per line
report.html     the results as a page
lock            while a process writes to it
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.files.lock import NAME as LOCK
from forgetless.lab import report, results, traces

_ABSENT = "absent"


class RunDirectory:
    """The directory `path` of the experiment that `config` defines. Opening it writes nothing.

    Args:
        path: a run directory of the same experiment, an empty directory, or one that does not exist yet.
        config: everything that defines the experiment, JSON-able.
        empty: the content of `results.json` before the first run.

    Attributes:
        path: as given.
        results: the content of `results.json`.
        started: whether there was a run directory already.

    Raises:
        ForgetlessError: `path` is a file, holds something else or another experiment (naming what differs), or
            its files are damaged.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], empty: Mapping[str, Any]) -> None:
        self.path = path
        self.config = json.loads(json.dumps(config))  # as it will be read back: lists, not tuples
        self.results: dict[str, Any] = dict(empty)
        self.started = (path / "config.json").is_file()
        if self.started:
            self._refuse_other(files.read_json(path / "config.json"))
            if (path / "results.json").exists():
                self.results = self._read()
        elif path.is_dir() and any(map(_is_more, path.iterdir())):
            raise ForgetlessError(f"{path} is neither empty nor a run directory; choose another --out.")
        elif path.exists() and not path.is_dir():
            raise ForgetlessError(f"{path} is a file; choose another --out.")

    def _refuse_other(self, found: Any) -> None:
        there, here = dict(_flat(found)), dict(_flat(self.config))
        differing = [key for key in {**there, **here} if there.get(key, _ABSENT) != here.get(key, _ABSENT)]
        if differing:
            shown = [f"{key} is {there.get(key, _ABSENT)} there and {here.get(key, _ABSENT)} here" for key in differing]
            more = f" (and {len(shown) - 4} more)" if len(shown) > 4 else ""
            raise ForgetlessError(
                f"{self.path} holds another experiment: {'; '.join(shown[:4])}{more}; choose another --out."
            )

    def start(self, environment: Mapping[str, Any]) -> None:
        """Make the directory and what it holds before the first run.

        Args:
            environment: what the runs run on.

        Raises:
            ForgetlessError: it cannot be written.
        """
        with files.told(self.path):
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            files.write_json(self.path / "config.json", self.config)
            self._write({**self._on_disk(), "environment": dict(environment)})

    def add(self, run: Mapping[str, Any]) -> None:
        """Add a finished run to the results on the disk, and write the page anew. What is there is kept.

        Raises:
            ForgetlessError: the results on the disk are damaged.
        """
        held = self._on_disk()
        if key(run) not in map(key, held["runs"]):
            held["runs"] = [*held["runs"], dict(run)]
        self._write(held)
        self._show()

    def _on_disk(self) -> dict[str, Any]:
        return self._read() if (self.path / "results.json").exists() else self.results

    def _write(self, held: dict[str, Any]) -> None:
        self.results = held
        self._store(held)

    # What results are, for directories whose runs learn no stream of tasks to replace.

    def _read(self) -> dict[str, Any]:
        return results.read(self.path)

    def _store(self, held: dict[str, Any]) -> None:
        results.write(self.path / "results.json", held)

    def _show(self) -> None:
        report.page(self.results, self.path / "report.html", traces.read(self.path, self.results["runs"]))

    def log(self, event: str, **facts: Any) -> None:
        """Append a line to the log.

        Raises:
            ForgetlessError: it cannot be written.
        """
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **facts})
        path = self.path / "log.jsonl"
        with files.told(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _is_more(path: Path) -> bool:
    """Whether it is more than what a process leaves that was killed before it began."""
    empty = path.name == "checkpoints" and path.is_dir() and not any(path.iterdir())
    return not (empty or path.name == LOCK or path.name.startswith(".config.json."))


def key(run: Mapping[str, Any]) -> tuple[str, int, int]:
    """What tells one run of an experiment from another: method, seed and order."""
    return run["method"], run["seed"], run.get("order", 0)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as `("recipe.lr", "0.002")` pairs, for comparing and for messages."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not entries:
        yield prefix, json.dumps(value, ensure_ascii=False)
        return
    for key, inner in entries:
        yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))

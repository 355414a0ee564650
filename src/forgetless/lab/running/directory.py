"""A run directory: opened, checked and kept up to date.

config.json     what defines the experiment; a directory with another one is refused
results.json    what was found so far, rewritten whole after every run
checkpoints/    a file per run: where it is, and in the end what was learned
log.jsonl       what happened when, a JSON object per line
report.html     the results as a page, where the `report` extra is installed
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import report, results

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
                self.results = results.read(path)
        elif path.is_dir() and any(path.iterdir()):
            raise ForgetlessError(f"{path} is not empty and no run directory; choose another --out.")
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

    def start(self) -> None:
        """Make the directory and what it holds before the first run.

        Raises:
            ForgetlessError: it cannot be written.
        """
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            files.write_json(self.path / "config.json", self.config)
            files.write_json(self.path / "results.json", self.results)
        except OSError as error:
            raise ForgetlessError(f"{self.path} cannot be written: {error.strerror}.") from error

    def add(self, run: Mapping[str, Any]) -> None:
        """Add a finished run to the results and the page."""
        self.results["runs"].append(dict(run))
        files.write_json(self.path / "results.json", self.results)
        if importlib.util.find_spec("jinja2") is not None:
            report.page(self.results, self.path / "report.html")

    def log(self, event: str, **facts: Any) -> None:
        """Append a line to the log."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **facts})
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as `("recipe.lr", "0.002")` pairs, for comparing and telling."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not entries:
        yield prefix, json.dumps(value, ensure_ascii=False)
        return
    for key, inner in entries:
        yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))

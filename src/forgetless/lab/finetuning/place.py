"""The folder that `forgetless learn` writes.

asked.json                what was asked; a folder that another command has begun is refused
importance.safetensors    Ω of the old data
model files               in the model's own format, once it is learned
learned.json              what was found, written last
logs/                     what was passed on to loggers
work/                     checkpoints; removed in the end
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError

SUMMARY = "learned.json"


class Place:
    """The folder `path`. Nothing is written before `begin`.

    Args:
        path: a folder that does not exist, or one that was begun and is to go on.
        resume: whether it is to go on.

    Raises:
        ForgetlessError: it exists and is not to go on, or is to go on and was never begun.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path, self.work, self.importance = path, path / "work", path / "importance.safetensors"
        begun = (path / "asked.json").is_file()
        with files.told(path):
            there = path.exists() and (not path.is_dir() or any(path.iterdir()))
        if there and not resume:
            advice = "continue it with --resume, or choose another --out" if begun else "choose another --out"
            raise ForgetlessError(f"{path} exists already; {advice}.")
        if there and not begun:
            raise ForgetlessError(f"{path} was not begun by forgetless learn, so there is nothing to resume.")

    @property
    def summary(self) -> dict[str, Any] | None:
        """What was found, if all is done."""
        path = self.path / SUMMARY
        return dict(files.read_json(path)) if path.is_file() else None

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Make the folder, or check that the same was asked of it.

        Raises:
            ForgetlessError: something else was asked (naming what), or it cannot be written.
        """
        path = self.path / "asked.json"
        if not path.is_file():
            with files.told(self.path):
                self.work.mkdir(parents=True, exist_ok=True)
            files.write_json(path, dict(asked))
            return
        held = files.read_json(path)
        changed = [name for name in {**held, **asked} if held.get(name) != asked.get(name)]
        if changed:
            there = "; ".join(f"{name}: {held.get(name)} there, {asked.get(name)} here" for name in changed)
            raise ForgetlessError(f"{self.path} was begun with something else ({there}); choose another --out.")
        files.tidied(self.path)
        if self.summary is None:
            self.work.mkdir(exist_ok=True)

    def done(self, method: str) -> dict[str, Any] | None:
        """What a method came to, if it is done."""
        path = self.work / f"{method}.json"
        return dict(files.read_json(path)) if path.is_file() else None

    def note(self, method: str, found: Mapping[str, Any]) -> None:
        """Keep what a method came to."""
        files.write_json(self.work / f"{method}.json", dict(found))

    def folder(self, method: str) -> Path:
        """Where a method's checkpoints are."""
        path = self.work / method
        path.mkdir(parents=True, exist_ok=True)
        return path

    def save(self, write: Callable[[Path], None]) -> None:
        """Let the model be written elsewhere first, then move its files here, so that none of them is half written."""
        final = self.work / "final"
        shutil.rmtree(final, ignore_errors=True)
        final.mkdir()
        write(final)
        for each in sorted(final.iterdir()):
            os.replace(each, self.path / each.name)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, and remove what is needed no more."""
        files.write_json(self.path / SUMMARY, dict(summary))
        shutil.rmtree(self.work, ignore_errors=True)

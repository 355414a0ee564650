"""The folder that `forgetless learn` writes.

asked.json                what was asked; a folder that another command has begun is refused
importance.safetensors    Ω of the old data
model files               in the model's own format, once it is learned
learned.json              what was found, written last
logs/                     what was passed on to loggers
work/                     checkpoints; removed in the end
lock                      while a process writes here
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.files import lock

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
        self._resume = resume
        self._refuse_there()

    def _refuse_there(self) -> None:
        path, resume = self.path, self._resume
        with files.told(path):
            begun = (path / "asked.json").is_file()
            there = path.exists() and (not path.is_dir() or any(map(_is_more, path.iterdir())))
        if there and not resume:
            advice = "continue it with --resume, or choose another --out" if begun else "choose another --out"
            raise ForgetlessError(f"{path} exists already; {advice}.")
        if there and not begun:
            raise ForgetlessError(f"{path} was not begun by forgetless learn, so there is nothing to resume.")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out; a folder in which nothing was begun is removed again.

        Raises:
            ForgetlessError: another process writes there, or has written there meanwhile.
        """
        new = not self.path.exists()
        try:
            with lock.locked(self.path):
                self._refuse_there()
                yield
        finally:
            if new:
                with contextlib.suppress(OSError):
                    self.path.rmdir()

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
        files.tidied(self.path)
        if not path.is_file():
            files.write_json(path, dict(asked))
            self._make(self.work)
            return
        held = files.read_json(path)
        changed = [name for name in {**held, **asked} if held.get(name) != asked.get(name)]
        if changed:
            there = "; ".join(f"{name}: {held.get(name)} there, {asked.get(name)} here" for name in changed)
            raise ForgetlessError(f"{self.path} was begun with something else ({there}); choose another --out.")
        if self.summary is None:
            self._make(self.work)
        else:
            shutil.rmtree(self.work, ignore_errors=True)

    def done(self, method: str) -> dict[str, Any] | None:
        """What a method came to, if it is done."""
        path = self.work / f"{method}.json"
        return dict(files.read_json(path)) if path.is_file() else None

    def note(self, method: str, found: Mapping[str, Any]) -> None:
        """Keep what a method came to."""
        files.write_json(self.work / f"{method}.json", dict(found))

    def folder(self, method: str) -> Path:
        """Where a method's checkpoints are."""
        return self._make(self.work / method)

    @staticmethod
    def _make(folder: Path) -> Path:
        with files.told(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save(self, write: Callable[[Path], None]) -> None:
        """Let the model be written elsewhere first, then move its files here, so that none of them is half written."""
        final = self.work / "final"
        shutil.rmtree(final, ignore_errors=True)
        write(self._make(final))
        for each in sorted(final.iterdir()):
            there = self.path / each.name
            if there.is_dir():  # of a process that was killed here
                shutil.rmtree(there)
            with files.told(there):
                os.replace(each, there)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, and remove what is needed no more."""
        files.write_json(self.path / SUMMARY, dict(summary))
        shutil.rmtree(self.work, ignore_errors=True)


def _is_more(path: Path) -> bool:
    """Whether something is more than what a process leaves that was killed before it began, or holds while it runs."""
    return not (path.name == lock.NAME or path.name.startswith(".asked.json."))

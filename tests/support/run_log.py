"""A run directory that is written line by line, for what watches runs from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG = {"experiment": "letters", "tasks": [{"name": "a"}, {"name": "b"}], "recipe": {"epochs": 4}}


class RunLog:
    """A run directory that is written line by line, a minute between lines."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.minute = folder, 0
        (folder / "config.json").write_text(json.dumps(CONFIG))

    def log(self, event: str, **facts: Any) -> None:
        line = {"time": f"2026-01-01T10:{self.minute:02}:00Z", "event": event, **facts}
        self.minute += 1
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def train(self, method: str, task: str, epoch: int, **more: Any) -> None:
        self.log("train", method=method, seed=0, order=0, task=task, epoch=epoch, loss=0.5, **more)

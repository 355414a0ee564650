"""Loggers: a file each, which imports its package when it is used. All take the same figures under the same keys."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.figures import figures as figures
from forgetless.model.parameters import listing

#: Logger → the package that it needs, by the name that pip and Python know; None where Python itself is enough.
LOGGERS: dict[str, str | None] = {"csv": None, "tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


@runtime_checkable
class Logger(Protocol):
    """Where the figures of one run go."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add figures, each under its key, to a step."""

    def close(self) -> None:
        """Write what is not written yet. The run can be opened again and goes on."""


def check(name: str) -> None:
    """Raise where a logger cannot be used.

    Raises:
        ForgetlessError: there is no such logger, or its package is not installed.
    """
    if name not in LOGGERS:
        raise ForgetlessError(f"there is no logger {name!r}; there are {listing(LOGGERS)}.")
    package = LOGGERS[name]
    if package is not None and importlib.util.find_spec(package) is None:
        raise ForgetlessError(
            f"the logger {name!r} needs the package {package}, which is not installed: pip install {package}."
        )


def create(name: str, folder: str | Path, run: str = "run", *, project: str = "forgetless") -> Logger:
    """A logger for one run.

        logger = loggers.create("tensorboard", "logs", "letters")
        for step, batch in enumerate(loader):
            …
            if step % 50 == 0:
                logger.log(step, {"loss": float(loss), **loggers.figures(anchor)})
        logger.close()

    | name | writes |
    |---|---|
    | `csv` | `FOLDER/metrics.csv`, a line for each figure: run, step, key, value |
    | `tensorboard` | `FOLDER/RUN/events…`, for `tensorboard --logdir FOLDER` |
    | `wandb` | `FOLDER/wandb/offline-run-…`, for `wandb sync`; nothing is sent unless `WANDB_MODE=online` is set |
    | `trackio` | where Trackio keeps its projects, for `trackio show --project PROJECT` |

    Args:
        name: which of them.
        folder: made if it does not exist. A run that is already there is continued.
        run: the run's name.
        project: the project's name, in those loggers that have projects.

    Raises:
        ForgetlessError: there is no such logger, its package is not installed, or the folder cannot be written.
    """
    check(name)
    folder = Path(folder)
    with files.told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        made: Logger = importlib.import_module(f"{__name__}.{name}").Logger(folder, run, project)
    return made

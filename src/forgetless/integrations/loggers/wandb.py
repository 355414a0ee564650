"""Figures for Weights & Biases, on this disk: nothing is sent unless the environment says `WANDB_MODE=online`."""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STEP = "forgetless/step"


class Logger:
    """Writes an offline run to `FOLDER/wandb`, which `wandb sync` sends when the user wants that.

    Args:
        folder: exists.
        run: the run's name; a run that was opened here before is continued, under the same id.
        project: the project's name.
    """

    def __init__(self, folder: Path, run: str, project: str) -> None:
        kept = folder / f"{run}.id"
        if not kept.exists():
            kept.write_text(uuid.uuid4().hex[:12], encoding="ascii")
        wandb: Any = importlib.import_module("wandb")  # which checks of types need not find
        self._run = wandb.init(
            project=project,
            name=run,
            id=kept.read_text(encoding="ascii"),
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",  # other runs of this process go on
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        # Steps of its own have to rise; ours may not, as accuracies of a whole stream come at its end.
        self._run.define_metric("*", step_metric=_STEP)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add the figures, with the step beside them."""
        self._run.log({**values, _STEP: step})

    def close(self) -> None:
        """Write the rest."""
        self._run.finish()

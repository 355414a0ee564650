"""What `forgetless learn --log` passes on: losses and protection while it learns, and what was kept and learned."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from forgetless import files
from forgetless.integrations import loggers
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.protect.anchor import Anchor
from forgetless.protect.distillation import Distillation

_POINTS = 100  # of a training, at most: drift looks at every weight
_APPENDED = {"csv": "metrics.csv", "tensorboard": "*/events.*"}  # files that grow, of loggers that write at once
_Count = Annotated[int, files.Between(0, 2**53)]


@dataclass
class _Passed:
    """What was passed on: each method's last step, the methods whose end figures were, the bytes of files."""

    steps: dict[str, _Count] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    sizes: dict[str, _Count] = field(default_factory=dict)


class Log:
    """Passes figures on to loggers, whose files are in `logs/NAME` of a folder; a run for each method.

    | key | step |
    |---|---|
    | `forgetless/loss`, and of an anchor `loggers.figures` | at most 100 of a training, evenly spaced |
    | `forgetless/agreement`, `forgetless/accuracy/old`, `…/new`, … | 0 and the last: of what was held out |
    | `forgetless/strength` | the last: λ |

    What was passed on is remembered beside the files, and is not passed on again.

    Args:
        folder: what `forgetless learn` writes.
        names: of the loggers.

    Raises:
        ForgetlessError: there is no such logger, or its package is not installed.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder / "logs", tuple(dict.fromkeys(names))
        for name in self._names:
            loggers.check(name)
        self._project = re.sub(r"[^\w.-]+", "-", folder.resolve().name) or "forgetless"
        self._passed: dict[str, _Passed] = {}
        self._open: dict[tuple[str, str], loggers.Logger] = {}

    def step(
        self,
        method: str,
        steps: int,
        step: int,
        loss: float | Tensor,
        anchor: Anchor | DeltaAnchor | Distillation | None,
    ) -> None:
        """Pass on the loss of a step, and how the anchor stands after it, where it is one of those that count.

        Raises:
            ForgetlessError: a logger's files cannot be read or written.
        """
        if step % -(-steps // _POINTS) and step != steps:
            return
        wanted = [name for name in self._names if step > self._known(name).steps.get(method, 0)]
        if not wanted:
            return
        values = {"forgetless/loss": float(loss), **({} if anchor is None else loggers.figures(anchor))}
        for name in wanted:
            self._pass(name, method, step, values)
            self._known(name).steps[method] = step
            self._keep(name)

    def found(self, summary: Mapping[str, Any]) -> None:
        """Pass on what the held-out samples were answered before and after, by each method.

        Raises:
            ForgetlessError: a logger's files cannot be read or written.
        """
        for name in self._names:
            for method, after in summary["after"].items():
                if method in self._known(name).done:
                    continue
                values = _keys(after)
                if after["strength"] is not None and self._known(name).steps.get(method, 0) < after["steps"]:
                    values["forgetless/strength"] = after["strength"]  # else it came with the last step
                self._pass(name, method, 0, _keys(summary["before"]))
                self._pass(name, method, after["steps"], values)
                self._known(name).done.append(method)
                self._keep(name)

    def close(self) -> None:
        """Close the loggers' files."""
        for each in self._open.values():
            each.close()
        self._open.clear()

    def _known(self, name: str) -> _Passed:
        if name not in self._passed:
            path = self._path(name)
            self._passed[name] = files.decoded(files.read_json(path) if path.exists() else {}, _Passed, path)
            self._cut(name, self._passed[name].sizes)
        return self._passed[name]

    def _cut(self, name: str, sizes: Mapping[str, int]) -> None:
        """Remove what was written, but not remembered, when the process was killed: it is written again."""
        for each, path in self._appended(name).items():
            with files.told(path):
                if each not in sizes:
                    path.unlink()
                elif path.stat().st_size > sizes[each]:
                    os.truncate(path, sizes[each])

    def _appended(self, name: str) -> dict[str, Path]:
        """The files that a logger only adds to; of "wandb" and "trackio" there is none."""
        folder = self._folder / name
        found = sorted(folder.glob(_APPENDED[name])) if name in _APPENDED else []
        return {path.relative_to(folder).as_posix(): path for path in found}

    def _keep(self, name: str) -> None:
        self._known(name).sizes = {each: path.stat().st_size for each, path in self._appended(name).items()}
        files.write_json(self._path(name), asdict(self._known(name)))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _pass(self, name: str, method: str, step: int, values: Mapping[str, float]) -> None:
        if (name, method) not in self._open:
            self._open[name, method] = loggers.create(name, self._folder / name, method, project=self._project)
        with files.told(self._folder / name):
            self._open[name, method].log(step, {key: value for key, value in values.items() if math.isfinite(value)})


def _keys(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures by the keys of all loggers: `old_accuracy` is `forgetless/accuracy/old`."""
    found = {}
    for name, value in figures.items():
        part, _, kind = name.partition("_")
        if value is not None and part in ("old", "new"):
            found["forgetless/agreement" if kind == "agreement" else f"forgetless/{kind}/{part}"] = float(value)
    return found

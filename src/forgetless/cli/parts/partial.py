"""A measurement that is not finished, in a file beside its result, tied to what was asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from forgetless import files
from forgetless.errors import ForgetlessError, quoted
from forgetless.measure.importance import Importance
from forgetless.measure.measurement import Measurement

_KIND = "part of an importance"


@dataclass(frozen=True)
class _Header:
    """What the file says of itself: what was asked, how many samples were read; the rest as in `Importance`."""

    asked: dict[str, str]
    at: Annotated[int, files.Between(1)]
    count: float
    estimator: str
    weights: dict[str, str]
    unused: tuple[str, ...]


class Partial:
    """How far a measurement is.

    Args:
        path: the file; it need not exist.
        asked: what decides the numbers, by name: a measurement goes on only where all of it is the same.
        resume: whether an earlier one is to go on.

    Attributes:
        path: as given.
        at: how many samples were read.
        found: what was measured on them; None where nothing was.

    Raises:
        ForgetlessError: there is one and it is not to go on, it is another measurement's, or it is damaged.
    """

    def __init__(self, path: Path, asked: Mapping[str, str], resume: bool) -> None:
        self.path, self.at = path, 0
        self.found: Importance | None = None
        self._asked = dict(asked)
        if not path.exists():
            return
        if not resume:
            raise ForgetlessError(f"{path} is a measurement that was stopped; continue it with --resume, or remove it.")
        sums, header = files.read_tensors(path, _KIND, dtypes=files.FLOATS)
        held: _Header = files.decoded(header, _Header, path)
        changed = [name for name in {**held.asked, **asked} if held.asked.get(name) != asked.get(name)]
        if changed:
            there = "; ".join(
                f"{name}: {quoted(held.asked.get(name))} there, {quoted(asked.get(name))} here" for name in changed
            )
            raise ForgetlessError(f"{path} is of another measurement ({there}); remove it, or choose another --out.")
        self.at = held.at
        self.found = Importance(sums, held.count, held.estimator, held.weights, held.unused)

    def save(self, measurement: Measurement) -> None:
        """Keep what was measured so far, if anything was."""
        if not self.at or (not measurement.count and self.found is None):
            return
        found = measurement.latest()
        held = _Header(self._asked, self.at, found.count, found.estimator, found.weights, found.unused)
        files.write_tensors(self.path, found.sums, _KIND, dataclasses.asdict(held))

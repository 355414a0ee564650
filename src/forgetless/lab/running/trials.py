"""The trials of a search, kept in a file with a checksum, so that a search that was stopped continues after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.lab.results.sealed import read_sealed, write_sealed
from forgetless.protect.strength.stability_decay import Trial


class Trials:
    """What trains for a search, except where the file holds the accuracy already.

    Args:
        train: (rate, strength) → accuracy.
        settings: of the search; a file of other settings is refused.
        path: the file; None to keep nothing.
        on_trial: called with each new trial.

    Raises:
        ForgetlessError: the file is damaged, or of another search.
    """

    def __init__(
        self,
        train: Callable[[float, float], float],
        settings: Mapping[str, Any],
        path: str | Path | None,
        on_trial: Callable[[Trial], None] | None = None,
    ) -> None:
        self._train, self._settings, self._on_trial = train, dict(settings), on_trial
        self._path = None if path is None else Path(path)
        self._known: dict[tuple[float, float], float] = {}
        self._new: set[tuple[float, float]] = set()
        if self._path is not None and self._path.exists():
            self._known = self._read(self._path)

    def train(self, rate: float, strength: float) -> float:
        """The accuracy at that rate and strength: known already, or found now and kept."""
        key = (rate, strength)
        if key not in self._known:
            self._known[key] = self._train(rate, strength)
            self._new.add(key)
            if self._path is not None:
                rows = [[*each, accuracy] for each, accuracy in self._known.items()]
                write_sealed(self._path, {**self._settings, "trials (rate, strength, accuracy)": rows})
        return self._known[key]

    def tell(self, trial: Trial) -> None:
        """Pass on a trial that was made in this process."""
        if self._on_trial is not None and (trial.rate, trial.strength) in self._new:
            self._on_trial(trial)

    def _read(self, path: Path) -> dict[tuple[float, float], float]:
        held = read_sealed(path)
        rows = held.pop("trials (rate, strength, accuracy)", None)
        if held != self._settings or not isinstance(rows, list):
            differing = [key for key in {**held, **self._settings} if held.get(key) != self._settings.get(key)]
            raise ForgetlessError(
                f"{path} holds another search (different: {', '.join(differing) or 'no trials'}); remove it, or choose "
                "another --out."
            )
        return {(float(rate), float(strength)): float(accuracy) for rate, strength, accuracy in rows}

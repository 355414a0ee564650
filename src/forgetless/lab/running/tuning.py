"""One strength per method for a whole experiment: found by stability decay on its second task, kept for all the rest.

The second task is the first at which there is something to protect. Its search uses its training samples only
(`forgetless.lab.running.search`). What is found with one seed is used with every other.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.running.search import Search, search
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.protect.strength.stability_decay import Trial


@dataclass(frozen=True)
class Tuning:
    """How the strengths of an experiment are found where none is given.

    Attributes:
        search: the settings of each search.
        seed: the seed it is done with.
        fixed: methods that are not searched for, with their strength.
    """

    search: Search = field(default_factory=Search)
    seed: int = 0
    fixed: Mapping[str, float] = field(default_factory=dict)

    def strength(
        self,
        method: Method,
        network: Callable[[int], Network],
        tasks: Sequence[Task],
        recipe: Recipe,
        folder: Path,
        on_trial: Callable[[int, Trial], None] | None = None,
    ) -> float | None:
        """The strength for the method; None for one that takes none.

        Args:
            method: a fresh one.
            network: seed → the network at the start.
            tasks: the stream.
            recipe: how each task is learned.
            folder: where the trials are kept, in a file named after the method; those in it are not repeated.
            on_trial: called with the position of the task, from 0, and each new trial.

        Raises:
            ForgetlessError: a stream of one task, trials of another search in the folder, and all that `search` raises.
        """
        if method.strength is None:
            return None
        if method.name in self.fixed:
            return self.fixed[method.name]
        known = folder / f"{method.name}-found.json"
        if known.is_file():
            return self._read(known)
        if len(tasks) < 2:
            raise ForgetlessError("tuning a strength needs at least two tasks; pass --strength.")
        own, model = copy.deepcopy(method), network(self.seed)
        learn(model, tasks[:1], own, recipe, seed=self.seed)
        told = None if on_trial is None else functools.partial(on_trial, 1)
        path = folder / f"{method.name}.json"
        found = search(model, tasks[1], own, recipe, self.search, seed=self.seed, path=path, on_trial=told)
        files.write_sealed(known, {"strength": float(found), "accepted": found.accepted, **self._settings})
        return float(found)

    def _read(self, path: Path) -> float:
        held = files.read_sealed(path)
        try:
            strength, settings = float(held["strength"]), {name: held[name] for name in self._settings}
        except (KeyError, TypeError, ValueError) as error:
            raise ForgetlessError(f"{path} does not hold a strength that was found; remove it.") from error
        if settings != self._settings:
            raise ForgetlessError(f"{path} was found by another search; remove it, or choose another --out.")
        return strength

    @property
    def _settings(self) -> dict[str, Any]:
        return {"seed": self.seed, **dataclasses.asdict(self.search)}

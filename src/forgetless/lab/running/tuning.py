"""One strength per method for a whole experiment: found by stability decay on its second task, kept for all the rest.

The second task is the first at which there is something to protect. Its search looks at its training samples only
(`forgetless.lab.running.search`). What is found with one seed is used with every other.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.running.search import search
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Method, Recipe, Task
from forgetless.learn.train import learn
from forgetless.protect.strength.stability_decay import Trial, refuse


@dataclass(frozen=True)
class Tuning:
    """How the strengths of an experiment are found where none is given.

    Attributes:
        seed: the seed it is done with.
        rates: the learning rates that fine-tuning is tried with first; none for the recipe's own.
        drop: the share of fine-tuning's accuracy that may be lost.
        factor: of a strength that lost more.
        most: the most strengths to try.
        rise: whether to look above a first strength that is accepted, too.
        fixed: methods that are not searched for, with their strength.

    Raises:
        ForgetlessError: a setting out of range.
    """

    seed: int = 0
    rates: tuple[float, ...] = ()
    drop: float = 0.2
    factor: float = 0.5
    most: int = 10
    rise: bool = False
    fixed: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse(self.rates or (1.0,), 1.0, self.drop, self.factor, self.most)

    def strength(
        self,
        method: Method,
        network: Callable[[int], MultiHead],
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
            folder: where the trials are kept, in a file named after the method; what is there is not tried again.
            on_trial: called with the position of the task, from 0, and each new try.

        Raises:
            ForgetlessError: the trials there are of another search, and all of `search`'s.
        """
        if method.strength is None:
            return None
        if method.name in self.fixed:
            return self.fixed[method.name]
        known = folder / f"{method.name}-found.json"
        if known.is_file():
            return self._read(known)
        if len(tasks) < 2:
            raise ForgetlessError("a strength is found on the second task of a stream, and there is but one; give it.")
        own, model = copy.deepcopy(method), network(self.seed)
        learn(model, tasks[:1], own, recipe, seed=self.seed)
        found = search(
            model,
            tasks[1],
            own,
            recipe,
            self.rates or (recipe.lr,),
            seed=self.seed,
            drop=self.drop,
            factor=self.factor,
            most=self.most,
            rise=self.rise,
            path=folder / f"{method.name}.json",
            on_trial=None if on_trial is None else functools.partial(on_trial, 1),
        )
        files.write_json(known, {"strength": float(found), "accepted": found.accepted, **self._settings})
        return float(found)

    def _read(self, path: Path) -> float:
        held = files.read_json(path)
        try:
            strength, settings = float(held["strength"]), {name: held[name] for name in self._settings}
        except (KeyError, TypeError, ValueError) as error:
            raise ForgetlessError(f"{path} does not hold a strength that was found; remove it.") from error
        if settings != self._settings:
            raise ForgetlessError(f"{path} was found by another search; remove it, or choose another --out.")
        return strength

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "rates": list(self.rates),
            "seed": self.seed,
            "drop": self.drop,
            "factor": self.factor,
            "most": self.most,
            "rise": self.rise,
        }

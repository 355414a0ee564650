"""`stability_decay`: the greatest strength at which the new task is still learned well, found on the new task alone.

De Lange, Aljundi, Masana, Parisot, Jia, Leonardis, Slabaugh, Tuytelaars, "A continual learning survey: Defying
forgetting in classification tasks", TPAMI 2021, arXiv 1909.08383.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from forgetless import files
from forgetless.errors import ForgetlessError

_Model = TypeVar("_Model")
_log = logging.getLogger("forgetless")
_REACH = 1e6  # times `start`: where rising ends, for a method that no strength keeps from learning


@dataclass(frozen=True)
class Trial:
    """A training that was tried.

    Attributes:
        rate: its learning rate.
        strength: its λ; 0 is fine-tuning.
        accuracy: what `evaluate` said of it.
    """

    rate: float
    strength: float
    accuracy: float


class Decided(float):
    """A strength, and how it was found. It is a float: `Anchor(model, importance, strength=decided)`.

    Attributes:
        trials: every training, in order: first one per rate at strength 0, then the strengths.
        rate: the learning rate that was best for fine-tuning.
        best: what fine-tuning reached with it, A*.
        accepted: whether the strength reached `(1 − drop) · A*`.
    """

    trials: tuple[Trial, ...]
    rate: float
    best: float
    accepted: bool

    def __new__(cls, strength: float, trials: tuple[Trial, ...], rate: float, best: float, accepted: bool) -> Decided:
        """`float(decided)` is the strength."""
        decided = super().__new__(cls, strength)
        decided.trials, decided.rate, decided.best, decided.accepted = trials, rate, best, accepted
        return decided

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (float(self), self.trials, self.rate, self.best, self.accepted)


def stability_decay(
    train: Callable[[float, float], _Model],
    evaluate: Callable[[_Model], float],
    rates: Sequence[float],
    *,
    start: float = 3.0,
    drop: float = 0.2,
    factor: float = 0.5,
    most: int = 10,
    rise: bool = False,
    path: str | Path | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> Decided:
    """Find a strength for a new task from that task's data alone: no sample of an old one is asked for.

    1. Fine-tune (strength 0) once with each rate; keep the best one and its accuracy A*.
    2. Train at that rate with strength `start`; accept it if the accuracy is `(1 − drop) · A*` or more, else multiply
       it by `factor` and try again, `most` times at the most.
    3. That is the survey's search, and it accepts a `start` that holds next to nothing. With `rise`, an accepted start
       is divided by `factor`, that by `factor²`, that by `factor⁴`, … until one is refused (at most 10⁶ times `start`),
       and the gap is halved on the logarithmic scale until it is no wider than `factor`; steps 2 and 3 share the `most`
       trials. A greater strength is taken to cost more accuracy; where noise is as large as `drop`, so is the error.
       (Unbounded search: Bentley and Yao, Information Processing Letters 5, 1976.)

    Args:
        train: (rate, strength) → a trained model. It starts each time from the same weights, and sees the training part
            of the new task only; strength 0.0 asks for fine-tuning.
        evaluate: a trained model → its accuracy on a held-out part of the new task, 0 or more: not its test part.
        rates: the learning rates to choose from.
        start: λ of the first try. The survey starts MAS at 3, EWC and SI at 400, LwF at 10.
        drop: the share of A* that may be lost, in [0, 1).
        factor: of a strength that lost more, in (0, 1).
        most: the most strengths to try.
        rise: look above a `start` that is accepted, too.
        path: a JSON file that keeps the trials; a search that was stopped goes on after them.
        on_trial: called with each new `Trial`; all are logged as well ("forgetless", INFO).

    Returns:
        The greatest strength that was accepted, with its `.trials`. If none was, the last one, with a warning.

    Raises:
        ForgetlessError: no rates, settings out of range, an accuracy that is no number of 0 or more, fine-tuning that
            reached 0 at every rate, or a `path` that is damaged or holds another search. What `train` and `evaluate`
            raise passes through; the trials are kept.
    """
    refuse(rates, start, drop, factor, most)
    settings = {"rates": list(rates), "start": start, "drop": drop, "factor": factor, "most": most, "rise": rise}
    search = _Search(train, evaluate, settings, None if path is None else Path(path), on_trial)
    tuned = [search.tried(rate, 0.0) for rate in rates]
    best = max(tuned, key=lambda each: each.accuracy)
    if not best.accuracy:
        raise ForgetlessError(
            "fine-tuning reached an accuracy of 0 at every rate: nothing can be compared; lower the rates."
        )
    needed = (1 - drop) * best.accuracy
    accepted, refused = 0.0, math.inf
    strength, step = start, 1 / factor
    for _ in range(most):
        last = search.tried(best.rate, strength)
        if last.accuracy >= needed:
            accepted = strength
        else:
            refused = strength
        if not accepted:
            strength *= factor
        elif not rise or accepted >= _REACH * start or factor * refused <= accepted * (1 + 1e-9):
            break
        elif math.isinf(refused):
            strength, step = min(strength * step, _REACH * start), step**2
        else:
            strength = math.sqrt(accepted * refused)
    if accepted:
        return Decided(accepted, tuple(search.done), best.rate, best.accuracy, True)
    warnings.warn(
        f"no strength was accepted: {most} trials down to {last.strength:.3g} stayed below {needed:.3g}, "
        f"{1 - drop:.0%} of what fine-tuning reached; start lower, or allow a greater drop.",
        stacklevel=2,
    )
    return Decided(last.strength, tuple(search.done), best.rate, best.accuracy, False)


class _Search:
    """The trials so far: those of an earlier process are not made again."""

    def __init__(
        self,
        train: Callable[[float, float], Any],
        evaluate: Callable[[Any], float],
        settings: dict[str, Any],
        path: Path | None,
        tell: Callable[[Trial], None] | None,
    ) -> None:
        self._train, self._evaluate, self._settings, self._path, self._tell = train, evaluate, settings, path, tell
        self._known = [] if path is None or not path.exists() else _known(path, settings)
        self.done: list[Trial] = []

    def tried(self, rate: float, strength: float) -> Trial:
        """The next try: known already, or made now."""
        number = len(self.done)
        if number < len(self._known):
            known = self._known[number]
            if (known.rate, known.strength) != (rate, strength):
                raise ForgetlessError(
                    f"{self._path} is damaged: its trial {number + 1} does not belong to this search."
                )
            self.done.append(known)
            return known
        accuracy = self._evaluate(self._train(rate, strength))
        if not isinstance(accuracy, (int, float)) or not (math.isfinite(accuracy) and accuracy >= 0):
            raise ForgetlessError(
                f"evaluate() must give an accuracy of 0 or more, not {accuracy!r} "
                f"(at a rate of {rate:g} and a strength of {strength:g})."
            )
        found = Trial(rate, strength, float(accuracy))
        self.done.append(found)
        if self._path is not None:
            trials = [dataclasses.asdict(each) for each in self.done]
            files.write_sealed(self._path, {**self._settings, "trials": trials})
        _log.info("rate %g, strength %g: accuracy %.4f", *dataclasses.astuple(found))
        if self._tell is not None:
            self._tell(found)
        return found


def _known(path: Path, settings: dict[str, Any]) -> list[Trial]:
    held = files.read_sealed(path)
    try:
        found = {name: held[name] for name in settings}
        trials = [Trial(*(float(each[name]) for name in ("rate", "strength", "accuracy"))) for each in held["trials"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ForgetlessError(f"{path} does not hold the trials of a search; remove it, or name another.") from error
    for name, value in settings.items():
        if found[name] != value:
            raise ForgetlessError(
                f"{path} holds another search: its {name} is {found[name]!r} and not {value!r}; "
                "remove it to start over, or name another."
            )
    return trials


def refuse(rates: Sequence[float], start: float, drop: float, factor: float, most: int) -> None:
    """Refuse settings that no search can have, before anything is trained.

    Raises:
        ForgetlessError: naming the one that is out of range.
    """
    if not rates or not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise ForgetlessError(f"rates must be one or more learning rates above 0, not {list(rates)}.")
    if len(set(rates)) < len(rates):
        raise ForgetlessError(f"rates must be different learning rates, not {list(rates)}.")
    if not (math.isfinite(start) and start > 0):
        raise ForgetlessError(f"start must be a finite strength above 0, not {start!r}.")
    if not 0 <= drop < 1:
        raise ForgetlessError(f"drop must be a share in [0, 1), not {drop!r}.")
    if not 0 < factor < 1:
        raise ForgetlessError(f"factor must be between 0 and 1, not {factor!r}.")
    if most < 1:
        raise ForgetlessError(f"most must be 1 or more trials, not {most!r}.")

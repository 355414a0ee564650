"""Whose steps move the weights: the optimizers inside of what the user calls an optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.optim import Optimizer

from forgetless.errors import ForgetlessError

_ONE = ("optimizer", "_optimizer", "base_optimizer", "_base_optimizer", "inner_optimizer", "base", "optim")
_SEVERAL = ("optimizers", "_optimizers", "chained_optimizers")
# Wrappers that set the weights themselves after a step of the optimizer inside, on purpose and in balance with it.
_AVERAGING = ("Lookahead", "ScheduleFreeWrapper", "ScheduleFreeWrapperReference")


class Inner:
    """Optimizers that take the steps, and whether something around them sets the weights between steps.

    Attributes:
        optimizers: those whose `step` is run, without doubles.
        averaged: whether a wrapper around them averages the weights afterwards.
    """

    def __init__(self, given: Any) -> None:
        """Look inside `given`.

        A pull on the optimizer inside is right for two-phase optimizers (SAM, ESAM: its step comes when the weights
        are back from the ascent), for Lookahead (fast and slow weights meet at its balance), for ScheduleFreeWrapper
        (while the optimizer inside steps, the parameters are z), and for the wrappers of trainers.

        Args:
            given: an optimizer, an object with one inside (Accelerate's, Fabric's, Lightning's, DeepSpeed's), or an
                iterable or mapping of several, as trainings have that step in gradient hooks.

        Raises:
            ForgetlessError: there is no optimizer in it.
        """
        self.averaged = False
        self.optimizers: list[Optimizer] = []
        for each in self._found(given, set()):
            if not any(each is other for other in self.optimizers):
                self.optimizers.append(each)
        if not self.optimizers:
            raise ForgetlessError(f"attach() takes a torch.optim.Optimizer, not {type(given).__name__}.")

    def _found(self, given: Any, seen: set[int]) -> Iterator[Optimizer]:
        if id(given) in seen:
            return
        seen.add(id(given))
        inside = [each for each in self._inside(given) if _shares(each, given)]
        if inside:
            self.averaged |= type(given).__name__ in _AVERAGING
            for each in inside:
                yield from self._found(each, seen)
        elif isinstance(given, Optimizer):
            yield given
        elif isinstance(given, Mapping):
            for each in given.values():
                yield from self._found(each, seen)
        elif isinstance(given, Iterable) and not isinstance(given, str | bytes):
            for each in given:
                yield from self._found(each, seen)

    @staticmethod
    def _inside(given: Any) -> list[Any]:
        """What looks like an optimizer among the attributes of `given`."""
        if isinstance(given, Mapping | list | tuple | set):
            return []
        one = [getattr(given, name, None) for name in _ONE]
        several = [getattr(given, name, None) for name in _SEVERAL]
        every = [*one, *(each for some in several if isinstance(some, list | tuple) for each in some)]
        return [each for each in every if each is not given and hasattr(each, "param_groups") and hasattr(each, "step")]


def _shares(inner: Any, outer: Any) -> bool:
    """Whether the two train a parameter in common; so it is if the outer one keeps no list of its own."""
    if not hasattr(outer, "param_groups"):
        return True
    ours = {id(parameter) for group in outer.param_groups for parameter in group["params"]}
    return any(id(parameter) in ours for group in inner.param_groups for parameter in group["params"])

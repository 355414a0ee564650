"""From a sweep to an `Importance`: what every estimator in `measure/` does with its quantity."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.measure.engine.lockstep import sweep_together
from forgetless.measure.engine.refusals import refuse_devices
from forgetless.measure.engine.sweep import Quantity, Sums, sweep
from forgetless.measure.importance import Importance, refuse_mismatch
from forgetless.model.parameters import fingerprints, trainable, unwrapped
from forgetless.model.ranks import ranks_of
from forgetless.model.sharding import resharded

Until = float | Callable[[Importance], bool] | None


def measure(
    model: nn.Module,
    dataset: Any,
    quantity: Quantity,
    estimator: str,
    *,
    into: Importance | None,
    exclude: str | Iterable[str],
    batch_size: int | None,
    until: Until,
    progress: bool,
) -> Importance:
    """Sweep the data and pool with `into`.

    Args:
        model: any module.
        dataset: see `forgetless.model.batches`.
        quantity: what is summed over samples.
        estimator: what the result says it is.
        into: an earlier measurement to pool with; unchanged.
        exclude: names, module names or patterns of parameters to leave out.
        batch_size: samples at a time.
        until: stop early: a relative standard error that no parameter exceeds, or a callable that says when.
        progress: show a progress bar on a terminal.

    Raises:
        ForgetlessError: `into` is of another network or estimator, or cannot tell how sure it is; all of `sweep`'s.
    """
    _refuse(until)
    refuse_devices(model)
    ranks = ranks_of(model)
    parameters = trainable(resharded(unwrapped(model)), exclude)
    if ranks is not None:
        ranks.refuse_difference((estimator, list(parameters), until is None), "what is asked for")
        ranks.refuse_difference(None if into is None else (into.estimator, into.count, sorted(into.sums)), "into=")
        into = None if into is None else into.sharded_like(parameters)
    if into is not None:
        if into.estimator != estimator:
            raise ForgetlessError(f"an importance by {into.estimator!r} cannot be merged with one by {estimator!r}.")
        refuse_mismatch(into.sums, parameters, "the importance given as into=", "the model")
        if until is not None and into.confidence is None:
            raise ForgetlessError(
                "into= does not know how sure it is, so until= cannot be; measure it with until= too."
            )

    def pooled(found: Sums) -> Importance:
        fresh = Importance(found.sums, found.count, estimator, weights, found.unused, found.confidence)
        return fresh if into is None else into.merge(fresh)

    weights = fingerprints(parameters)
    found = (sweep if ranks is None else partial(sweep_together, ranks))(
        model,
        dataset,
        quantity,
        until=None if until is None else lambda sums: _reached(pooled(sums), until),
        exclude=exclude,
        batch_size=batch_size,
        progress=progress,
    )
    importance = pooled(found)
    if until is not None and not _reached(importance, until):
        warnings.warn(
            f"the data ended after {importance.count:,.0f} samples, before until= was reached: the relative standard "
            f"error is {max(importance.error().values()):.1%} in the least certain parameter; go on with into=.",
            stacklevel=3,
        )
    return importance


def _refuse(until: Until) -> None:
    if until is not None and not callable(until) and not (isinstance(until, (int, float)) and 0 < until < 1):
        raise ForgetlessError(
            f"until must be a relative error between 0 and 1 or a callable that takes the importance, not {until!r}."
        )


def _reached(importance: Importance, until: Until) -> bool:
    if callable(until):
        return bool(until(importance))
    return until is not None and max(importance.error().values()) <= until

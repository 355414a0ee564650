"""`Measurement`: an importance that grows batch by batch and keeps what it has learned about the network."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.measure.accumulator import Accumulator, Until
from forgetless.measure.estimators import ESTIMATORS
from forgetless.measure.importance import Importance
from forgetless.model.collation import Collate, made
from forgetless.model.network import Network
from forgetless.model.parameters import listing


class Measurement(Accumulator):
    """Measures batches as they come, from a stream or between the steps of a training.

        measurement = forgetless.Measurement(model, estimator="mas")
        for batch in stream:
            measurement.add(batch)
        importance = measurement.importance()

    The first batch costs what `forgetless.mas` costs at its start; later ones cost about as much as one forward and
    backward pass (docs/performance.md). Batches of another form (other keys, dtypes or numbers of axes) are planned for
    anew. Modes and weights that have changed since the last batch are noticed: the network is measured in eval mode,
    and weights that have moved are said once, since the importance then pools samples of different networks.

    After every `add` the model is what it was. As a context manager the model stays in the state in which it is
    measured (eval mode, gradients of its own put aside) until the end of the block, which saves putting it back after
    every batch:

        with forgetless.Measurement(model) as measurement:
            for batch in stream:
                measurement.add(batch)
        importance = measurement.importance()
    """

    def __init__(
        self,
        model: nn.Module,
        estimator: str = "mas",
        *,
        into: Importance | None = None,
        exclude: str | Iterable[str] = (),
        collate_fn: Collate | None = None,
        batch_size: int | None = None,
        until: Until = None,
        prove: bool = True,
        moving: bool = False,
        memory: int | None = None,
        **options: Any,
    ) -> None:
        """Nothing is measured before the first `add`.

        Args:
            model: a trained network.
            estimator: "mas", "local-mas", "fisher" or "output-curvature".
            into: an earlier measurement of the same network to pool with; it is left unchanged.
            exclude: parameters to leave out: names, module names ("head") or patterns ("*.bias").
            collate_fn: a list of samples → a batch: `add` then takes lists of samples.
            batch_size: samples at a time, for memory; it never changes the numbers.
            until: when `enough` is True; see `forgetless.mas`.
            prove: whether samples are measured alone as well now and then; see `forgetless.mas`.
            moving: whether the weights change between batches by intention, so that nothing is said of it.
            memory: the most bytes that the activations of a batch may take; it never changes the numbers.
            options: the estimator's own, as its function takes them: `output`, `forward`, `mask`, `form`, `labels`,
                `seed`.

        Raises:
            ForgetlessError: an estimator or option that does not exist, nothing to measure, or `into` of another
                network.
        """
        if estimator not in ESTIMATORS:
            raise ForgetlessError(f"estimator must be one of {listing(ESTIMATORS)}, not {estimator!r}.")
        known = list(inspect.signature(ESTIMATORS[estimator]).parameters)[1:]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ForgetlessError(f"{estimator!r} has no option {listing(unknown)}; it has {listing(known)}.")
        network = Network.of(model, exclude)
        summed = ESTIMATORS[estimator](network, **options)
        more: dict[str, Any] = {"prove": prove, "moving": moving, "memory": memory}
        super().__init__(network, summed, into=into, batch_size=batch_size, until=until, **more)
        self._collate = collate_fn

    def add(self, batch: Any) -> int:
        """Measure a batch, or a list of samples where there is a `collate_fn`; gives how many samples it had.

        Args:
            batch: a tensor, a tuple (inputs first) or a dict of tensors; of several processes every one adds its own,
                or None where it has none.

        Raises:
            ForgetlessError: NaN or Inf, samples that influence each other, an output that is not a float tensor with a
                row per sample, samples that make no batch, or parameters that are no longer the ones being measured.
        """
        if self._collate is None or batch is None:
            return super().add(batch)
        return super().add(made(self._collate, batch))

"""What learns without task borders: Ω is measured on hard samples wherever the loss has settled.

Aljundi, Kelchtermans, Tuytelaars, "Task-Free Continual Learning", CVPR 2019, arXiv 1812.03596.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.learn.families.hard_buffer import HardBuffer
from forgetless.learn.families.plateaus import Plateaus
from forgetless.learn.families.state import padded
from forgetless.learn.samples import Batch
from forgetless.measure.importance import Importance
from forgetless.measure.measurement import Measurement
from forgetless.model import batches
from forgetless.protect.anchor import Anchor

Refresh = Literal["plateau", "batch"]


class TaskFree:
    """Looks at losses; at a plateau the mean of all that was measured protects the present weights.

    Args:
        plateaus: what detects them.
        hard: the buffer.
        refresh: what is measured: "plateau", the buffer at each plateau; "batch", every batch.

    Attributes:
        plateaus, hard, refresh: as given.
        steps: how many losses were looked at.
        updates: how many plateaus there were.
    """

    def __init__(self, plateaus: Plateaus, hard: HardBuffer, refresh: Refresh) -> None:
        if refresh not in ("plateau", "batch"):
            raise ForgetlessError(f"refresh must be 'plateau' or 'batch', not {refresh!r}.")
        self.plateaus, self.hard, self.refresh = plateaus, hard, refresh
        self.steps = self.updates = 0
        self._measurement: Measurement | None = None

    @property
    def importance(self) -> Importance | None:
        """The mean of what was measured; None before the first."""
        there = self._measurement is not None and self._measurement.count > 0
        return self._measurement.importance() if there and self._measurement is not None else None

    def measure_by(self, measurement: Measurement) -> None:
        """Measure by another one from now on, which goes on from the sums so far; rows that have grown begin at 0.

        Args:
            measurement: a new one, with `moving=True`.
        """
        found = self.importance
        self._measurement = measurement
        if found is not None:
            parameters = measurement.network.parameters
            sums = {
                name: padded(found.sums[name], like) if name in found.sums else torch.zeros_like(like)
                for name, like in parameters.items()
            }
            measurement.restore(replace(found, sums=sums, unused=()))

    def observe(self, anchor: Anchor, losses: Tensor, batch: Batch, replayed: Tensor | None = None) -> str | None:
        """Look at the losses of a batch; gives "plateau" or "peak" where one begins, else None.

        Args:
            anchor: what protects.
            losses: of every sample, `[N]`, or their mean.
            batch: the samples.
            replayed: the losses of the buffer's samples, where they were learned along.

        Raises:
            ForgetlessError: losses of another number, or samples of another form; nothing has changed.
        """
        assert self._measurement is not None
        mean = float(self.every(losses, batch, replayed).detach().double().mean())
        self.hard.add(batch, losses.detach().flatten().expand(batches.size(batch)), replayed)
        event = self.plateaus.add(mean)
        if self.refresh == "batch":
            self._measurement.add(batch)
        if event == "plateau":
            if self.refresh == "plateau":
                self._measurement.add(self.hard.batch)
            anchor.consolidate(self._measurement.latest(), 0.0)
            self.updates += 1
        self.steps += 1
        return event

    def every(self, losses: Tensor, batch: Batch, replayed: Tensor | None = None) -> Tensor:
        """All losses whose mean is minimized: the mean or those of the batch, and those of the buffer.

        Raises:
            ForgetlessError: losses of another number, or samples of another form than before.
        """
        size, own = batches.size(batch), losses.flatten()
        if len(own) not in (1, size):
            raise ForgetlessError(
                f"a loss is one per sample or their mean; the batch has {size} and the loss {len(own)}."
            )
        self.hard.check(batch, own.expand(size), replayed)
        return own if replayed is None else torch.cat([own.expand(size), replayed.flatten()])

    def tree(self) -> dict[str, Any]:
        """All of it, for a checkpoint; views, not copies."""
        there = self._measurement is not None and self._measurement.count > 0
        found = self._measurement.latest() if there and self._measurement is not None else None
        count = 0.0 if found is None else found.count
        return {
            "importance": {} if found is None else found.sums,
            "hard": self.hard.tree(),
            "plateaus": self.plateaus.state(),
            "counts": torch.tensor([count, self.steps, self.updates], dtype=torch.float64),
        }

    def load(self, tree: Mapping[str, Any], measurement: Measurement, device: torch.device) -> None:
        """Take back what `tree` gave.

        Args:
            tree: it.
            measurement: a new one, with `moving=True`.
            device: where the samples of the buffer are to be.

        Raises:
            ForgetlessError: it is incomplete or damaged, or does not fit.
        """
        try:
            count, steps, updates = tree["counts"].tolist()
            sums: dict[str, Tensor] = tree.get("importance", {})
            if count and not sums:
                raise ForgetlessError("the state of a stream is incomplete: it lacks the importance.")
            if sums:
                measurement.restore(Importance(sums, count, measurement.estimator.name))
            self.plateaus.load_state(tree["plateaus"])
            self.hard.load(tree.get("hard", {}), device)
        except ForgetlessError:
            raise
        except (KeyError, ValueError, AttributeError) as error:
            raise ForgetlessError("the state of a stream is incomplete or damaged.") from error
        self._measurement = measurement
        self.steps, self.updates = int(steps), int(updates)

"""The hardest samples of a stream: those of the highest loss among the last batch and those kept before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.learn.families.state import Tensors, from_leaves, leaves
from forgetless.learn.samples import Batch
from forgetless.model import batches


class HardBuffer:
    """At most `size` samples. Memory does not grow with the stream.

    Aljundi, Kelchtermans, Tuytelaars, "Task-Free Continual Learning", CVPR 2019: "hard buffer".

    Attributes:
        size: the most samples.
        batch: the samples, the hardest first; None while there are none.
        losses: the loss of each when it was last seen, `[n]`.
    """

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or size < 1:
            raise ForgetlessError(f"a buffer of hard samples holds one or more, not {size!r}.")
        self.size = size
        self.batch: Batch | None = None
        self.losses = torch.empty(0)

    def __len__(self) -> int:
        """How many samples it holds."""
        return len(self.losses)

    def add(self, batch: Batch, losses: Tensor, again: Tensor | None = None) -> None:
        """Take in a batch, and keep the samples of the highest losses; of equal ones, those that came first.

        Args:
            batch: the samples, as they are to be measured or learned from later.
            losses: of each, `[N]`.
            again: the present losses of the samples that it holds, where they were seen again, `[n]`.

        Raises:
            ForgetlessError: losses of another number, or samples of another form; nothing has changed.
        """
        self.check(batch, losses, again)
        own = batches.mapped(batch, lambda tensor: tensor.detach())
        held = self.losses if again is None else again.detach().float().cpu()
        found = torch.cat([held, losses.detach().float().cpu()])
        chosen = found.argsort(descending=True, stable=True)[: self.size]
        self.batch = own if self.batch is None else _joined(self.batch, own)
        self.batch = batches.mapped(self.batch, lambda tensor: tensor[chosen.to(tensor.device)])
        self.losses = found[chosen]

    def check(self, batch: Batch, losses: Tensor, again: Tensor | None = None) -> None:
        """Refuse what `add` refuses; arguments and errors as there."""
        if losses.shape != (batches.size(batch),):
            raise ForgetlessError(f"a batch of {batches.size(batch)} samples has losses {list(losses.shape)}.")
        if again is not None and again.shape != self.losses.shape:
            raise ForgetlessError(f"the buffer holds {len(self)} samples, and {list(again.shape)} losses are given.")
        if self.batch is None:
            return
        one, other = ({name: each.shape[1:] for name, each in leaves(of).items()} for of in (self.batch, batch))
        if one != other:
            shown = [{name: list(shape) for name, shape in form.items()} for form in (one, other)]
            raise ForgetlessError(f"the samples of a stream differ in their form: {shown[0]} and {shown[1]}.")

    def tree(self) -> dict[str, Any]:
        """The samples and their losses, for a checkpoint."""
        return {} if self.batch is None else {"batch": leaves(self.batch), "losses": self.losses}

    def load(self, tree: Mapping[str, Any], device: torch.device) -> None:
        """Take back what `tree` gave, to where the stream's samples are.

        Raises:
            ForgetlessError: samples and losses are not as many.
        """
        kept: Tensors = tree.get("batch", {})
        losses = tree.get("losses", torch.empty(0))
        if any(each.shape[:1] != losses.shape for each in kept.values()) or (len(losses) and not kept):
            raise ForgetlessError("the hard samples in the state are incomplete: each needs its loss.")
        self.batch = from_leaves({name: each.to(device) for name, each in kept.items()}) if kept else None
        self.losses = losses


def _joined(first: Batch, second: Batch) -> Batch:
    """Two batches of the same form as one."""
    one, other = leaves(first), leaves(second)
    return from_leaves({name: torch.cat([one[name], other[name].to(one[name].device)]) for name in one})

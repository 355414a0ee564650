"""What protects while a classifier learns: an anchor with a given importance, or the old answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.learn.families.state import pack, unpack
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.measure.importance import Importance
from forgetless.model.parameters import trainable
from forgetless.protect.anchor import Anchor
from forgetless.protect.distillation import Distillation
from forgetless.protect.strength.dial import Dial
from forgetless.protect.strength.hold_share import HoldShare

#: `--method` → what it does.
METHODS = {
    "mas": "protect every weight by its importance",
    "distillation": "keep the answers to the old samples, which are shown in every step",
    "l2sp": "hold all weights alike",
    "finetune": "protect nothing",
}
HOLDING = ("mas", "l2sp")  # those that anchor weights


@dataclass
class Protected(Method):
    """`λ Σ Ω (θ − θ*)²` with Ω measured before, on old data.

    Attributes:
        importance: Ω, by the names of the network's parameters.
        chosen: λ, or "auto".
        share: of the movement, which is held back where λ is "auto".
    """

    name: ClassVar[str] = "given importance"
    importance: Importance
    chosen: float | str
    share: float | None = None
    made: Anchor | None = field(default=None, init=False, repr=False)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """λ as it was chosen; the importance is told by its count."""
        chosen = self.chosen if self.share is None else f"{self.chosen}, {self.share:g} held"
        return {"strength": chosen, "samples": self.importance.count}

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Anchor the network where it is, and protect it in every step."""
        self.made = Anchor(model, self.importance, strength(self.chosen, self.share))
        self.made.attach(optimizer)

    def end(self, model: Network, task: Task) -> None:
        """Let the optimizer go."""
        if self.made is not None:
            self.made.detach()

    def state(self) -> dict[str, Tensor]:
        """θ*, Ω and where the strength is."""
        return {} if self.made is None else pack({"anchor": self.made.state_dict()})

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take them back."""
        if kept := unpack(tensors).get("anchor"):
            self.made = self.made or Anchor(model, self.importance, strength(self.chosen, self.share))
            self.made.load_state_dict(kept)


@dataclass
class Distilled(Method):
    """The old answers to old samples are a target in every step.

    Attributes:
        make: the network → its old answers from now on, and λ.
        samples: a hash of the old samples.
        chosen: λ, or "auto".
    """

    name: ClassVar[str] = "distillation"
    make: Callable[[Network], Distillation]
    samples: str
    chosen: float | str
    made: Distillation | None = field(default=None, init=False, repr=False)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """λ as it was chosen, and which samples."""
        return {"strength": self.chosen, "samples": self.samples}

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Let the network's present answers be the old ones."""
        self.made = self.make(model)

    def penalty(self, batch: Batch) -> Tensor | None:
        """A term of the loss: gradients are clipped here, and so both kinds of answers are clipped alike."""
        return None if self.made is None else self.made.loss()

    def end(self, model: Network, task: Task) -> None:
        """Let the old answers go."""
        self.made = None

    def state(self) -> dict[str, Tensor]:
        """The old network, and how many batches of old samples were used."""
        return {} if self.made is None else pack({"distillation": self.made.state_dict()})

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take them back."""
        if self.made is not None and (kept := unpack(tensors).get("distillation")):
            self.made.load_state_dict(kept)


def strength(chosen: float | str, share: float | None) -> float | Dial:
    """λ, or where a share is given the dial that finds it: the λ at which that share of the movement is held back."""
    return float(chosen) if share is None else HoldShare(share)


def uniform(network: nn.Module) -> Importance:
    """Ω = 1 for every trainable weight: L2-SP (Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483)."""
    return Importance({n: torch.ones_like(w) for n, w in trainable(network).items()}, 1, "l2sp")

"""`GivenAnchor`: learning one task under an anchor that was made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch.optim import Optimizer

from forgetless import Anchor
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.task import Task


@dataclass
class GivenAnchor(Method):
    """Learn one task under an existing anchor.

    Attributes:
        anchor: of the model that learns; with no importance in it, this is fine-tuning.
        how: "pull" or "gradient".
    """

    name: ClassVar[str] = "given-anchor"
    anchor: Anchor = field(repr=False)
    how: str = "pull"

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """How, and with what strength; the anchor itself is no setting."""
        return {"how": self.how, "anchor's strength": self.anchor.strength}

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Attach the anchor."""
        self.anchor.attach(optimizer, self.how)

    def end(self, model: Network, task: Task) -> None:
        """Detach the anchor."""
        self.anchor.detach()

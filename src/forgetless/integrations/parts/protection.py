"""`Protection`: what the callbacks of all trainers do: an anchor from the old data, tied to the trainer's optimizer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError, quoted
from forgetless.integrations.parts.delta_anchor import DeltaAnchor, base_importance
from forgetless.integrations.parts.figures import figures
from forgetless.integrations.parts.grown import grown
from forgetless.integrations.parts.renamed import of_part
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from forgetless.model.parameters import unwrapped
from forgetless.protect.anchor import Anchor
from forgetless.protect.anchor_file import checked
from forgetless.protect.forgetting.probes import Probes, pooled
from forgetless.protect.optimizers.inner import Inner
from forgetless.protect.strength.dial import Dial, at_target
from forgetless.protect.strength.hold_share import HoldShare

Batches = Callable[[Any], Any]


class Protection:
    """Holds what a callback of any trainer keeps between its events.

    Attributes:
        anchor: θ* and Ω, of a model with adapters those of its base; None before the first training.
    """

    def __init__(
        self,
        old: Any,
        strength: float | str | Dial,
        probes: Any,
        measuring: Mapping[str, Any],
        *,
        later: bool = False,
    ) -> None:
        """Nothing is measured yet.

        Args:
            old: data, an `Importance` or the path of its file; with `later` it may be None.
            strength: "auto" (a `HoldShare` for the planned training), a number or a dial.
            probes: samples whose answers are compared; None for none.
            measuring: what `forgetless.mas` takes besides.
            later: what is to be protected is learned first (`learned`).

        Raises:
            ForgetlessError: neither data nor an importance, or another strength.
        """
        if (old is None and not later) or (isinstance(old, list | tuple) and not old):
            raise ForgetlessError(
                "there is nothing to protect: give old data (unlabeled samples like those whose skill is to be kept), "
                "an Importance or the path of its file."
            )
        if isinstance(strength, str) and strength != "auto":
            raise ForgetlessError(f'strength must be "auto", a number or a dial, not {strength!r}.')
        self.anchor: Anchor | DeltaAnchor | None = None
        self._old, self._probes, self._measuring = old, probes, dict(measuring)
        self._strength = strength if isinstance(strength, str | Dial) else checked(strength)
        self._asked: Probes | None = None
        self._model: nn.Module | None = None
        self._optimizers: list[Optimizer] = []

    def is_of(self, model: nn.Module) -> bool:
        """Whether the anchor is made, and is this model's."""
        return self.anchor is not None and self._model is unwrapped(model)

    def make(
        self,
        model: nn.Module,
        steps: float,
        batches: Batches,
        embeddings: Iterable[nn.Module | None] = (),
        *,
        progress: bool = False,
        **options: Any,
    ) -> None:
        """Anchor the model at its present weights.

        Args:
            model: the network as the trainer wraps it.
            steps: planned, at the peak learning rate.
            batches: samples as the user gives them → what `forgetless.mas` takes.
            embeddings: modules with a row per token, which may have grown since a given importance was measured.
            progress: show a progress bar on a terminal.
            options: of `forgetless.mas`, where the user has not chosen others.

        Raises:
            ForgetlessError: of `forgetless.mas` and `Anchor`: an importance of another model, for one.
        """
        if isinstance(self._old, str | Path | Importance):
            importance = self._old if isinstance(self._old, Importance) else _loaded(self._old)
            if exclude := self._measuring.get("exclude"):
                importance = importance.without(exclude)
        else:
            importance = self._measured(model, lambda: batches(self._old), {"progress": progress, **options})
        importance = of_part(importance, unwrapped(model))
        if adapted(model):
            anchor: Anchor | DeltaAnchor = DeltaAnchor(model, importance, self._chosen(steps))
        else:
            anchor = Anchor(model, grown(importance, model, embeddings), self._chosen(steps))
        self._take(anchor, model, batches, contextlib.nullcontext())

    def learned(self, model: nn.Module, batches: Any, gamma: float = 1.0, **options: Any) -> None:
        """Protect what the model has just learned as well: `Ω ← γ Ω + Ω_task`, `θ* ← θ`.

        Args:
            model: the network.
            batches: unlabeled samples of it.
            gamma: γ in [0, 1].
            options: of `forgetless.mas`, where the user has not chosen others.

        Raises:
            ForgetlessError: of `forgetless.mas`.
        """
        importance = self._measured(model, lambda: batches, {"progress": False, **options})
        if self.anchor is not None:
            self.anchor.consolidate(importance, gamma)
            return
        made = (DeltaAnchor if adapted(model) else Anchor)(model, importance, self._chosen(math.nan))
        self._take(made, model, lambda data: data, contextlib.nullcontext())

    def restore(self, model: nn.Module, state: Mapping[str, Tensor], steps: float, batches: Batches) -> None:
        """Take θ*, Ω and where a dial stands from an anchor's state; a strength given as a number stays.

        "auto" goes on as it began: a trainer that resumes may plan other steps, those that are left for one.

        Raises:
            ForgetlessError: the state is damaged or another model's.
        """
        begun = self._strength == "auto" and any(key.startswith("dial.") for key in state)
        anchor = (DeltaAnchor if adapted(model) else Anchor)(model, None, "auto" if begun else self._chosen(steps))
        anchor.load_state_dict(state)
        if isinstance(self._strength, float):
            anchor.strength = self._strength
        self._take(anchor, model, batches, _at_target(anchor))

    def attach(self, optimizer: Any) -> None:
        """Protect in every step of the optimizer, or of several, from now on."""
        self.detach()
        assert self.anchor is not None
        self.anchor.attach(optimizer)
        self._optimizers = Inner(optimizer).optimizers

    def detach(self) -> None:
        """Let the optimizers go; θ* and Ω stay."""
        if self.anchor is not None:
            self.anchor.detach()
        self._optimizers = []

    def refuse_swapped(self, optimizer: Any) -> None:
        """Called before a step of what the trainer steps now.

        Raises:
            ForgetlessError: it is not what was attached.
        """
        now = Inner(optimizer).optimizers
        if len(now) != len(self._optimizers) or any(a is not b for a, b in zip(now, self._optimizers, strict=True)):
            raise ForgetlessError(
                "the trainer's optimizer was replaced during training, and the anchor acts in the steps of the one "
                "that it began with; give the trainer its optimizer before training begins."
            )

    def figures(self) -> dict[str, float]:
        """For the trainer's log: `forgetless/drift`, `/strength`, `/frozen_fraction` and, with probes, `/agreement`."""
        assert self.anchor is not None
        found = figures(self.anchor)
        if (agreement := self.agreement()) is not None:
            found["forgetless/agreement"] = agreement
        return found

    def agreement(self) -> float | None:
        """The share of the answers to the probes that are the same as at θ*; None without probes."""
        if self._asked is None or self._model is None:
            return None
        return pooled(self._asked.read(self._model)).agreement

    def _measured(self, model: nn.Module, batches: Callable[[], Any], options: Mapping[str, Any]) -> Importance:
        with torch.random.fork_rng([]):  # a loader that shuffles draws its seed
            measured = base_importance if adapted(model) else mas
            return measured(model, batches(), **{**options, **self._measuring})

    def _chosen(self, steps: float) -> float | Dial:
        if not isinstance(self._strength, str):
            return self._strength
        if not math.isfinite(steps):
            raise ForgetlessError(
                'strength="auto" depends on how long training will last: give the trainer an end (max_steps, '
                "max_epochs), or give a strength."
            )
        return HoldShare(steps=steps)

    def _take(
        self,
        anchor: Anchor | DeltaAnchor,
        model: nn.Module,
        batches: Batches,
        at_anchor: contextlib.AbstractContextManager[None],
    ) -> None:
        asked = None
        if self._probes is not None:
            options = {key: self._measuring[key] for key in ("output", "forward") if key in self._measuring}
            with at_anchor, torch.random.fork_rng([]):
                asked = Probes(model, batches(self._probes), **options)
        self.detach()
        self.anchor, self._asked, self._model = anchor, asked, unwrapped(model)


def adapted(model: nn.Module) -> bool:
    """Whether adapters of PEFT learn in place of weights of the model, or of one inside (in a `LightningModule`)."""
    return any(hasattr(each, "peft_config") for each in unwrapped(model).modules())


def _loaded(path: str | Path) -> Importance:
    """The importance in a file.

    Raises:
        ForgetlessError: it cannot be read, or a text or the path of old data was given instead.
    """
    try:
        return Importance.load(path)
    except ForgetlessError as error:
        if str(path).endswith(".safetensors"):
            raise
        raise ForgetlessError(
            f"a string or a path names the file of an importance, and {quoted(str(path))} is none; give old data "
            "themselves: a list of texts ([text]), a Dataset, or a DataLoader."
        ) from error


def _at_target(anchor: Anchor | DeltaAnchor) -> contextlib.AbstractContextManager[None]:
    return anchor.at_target() if isinstance(anchor, DeltaAnchor) else at_target(anchor.anchored())

"""`Protection`: what the callbacks of all trainers do, whatever protects: tie it to the trainer's optimizer and ask."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.integrations.parts.figures import figures
from forgetless.model.outputs import Forward
from forgetless.model.parameters import unwrapped
from forgetless.protect.anchor import Anchor
from forgetless.protect.anchor_file import checked
from forgetless.protect.distillation import Distillation
from forgetless.protect.forgetting.probes import Probes, pooled
from forgetless.protect.optimizers.inner import Inner
from forgetless.protect.strength.dial import Dial


@dataclass(frozen=True)
class Reader:
    """How a trainer makes batches of samples as the user has them.

    Attributes:
        once: samples → batches, in their order, for one pass.
        again: samples → what `forgetless.Distillation` reads in every step, and the options of that which say how.
        forward: the user's forward for that, if there is one, → one at the trainer's precision; None: the model's own.
    """

    once: Callable[[Any], Any] = lambda data: data
    again: Callable[[Any], tuple[Any, dict[str, Any]]] = lambda data: (data, {})
    forward: Callable[[Forward | None], Forward | None] = lambda given: given


class Protection(abc.ABC):
    """What a callback of any trainer keeps between its events; a subclass says what protects.

    Attributes:
        method: its name.
        kept: what protects, with what it keeps of the model before training; None before the first training.
    """

    method: str

    def __init__(
        self,
        old: Any,
        strength: float | str | Dial,
        probes: Any,
        options: Mapping[str, Any],
        *,
        later: bool = False,
    ) -> None:
        """Nothing is measured yet.

        Args:
            old: what is to be kept is told by it; with `later` it may be None.
            strength: "auto", a number or a dial.
            probes: samples whose answers are compared; None for none.
            options: what the method takes besides.
            later: what is to be protected is learned first.

        Raises:
            ForgetlessError: nothing to protect, or another strength.
        """
        if (old is None and not later) or (isinstance(old, list | tuple) and not old):
            other = "" if self.method == "distillation" else ", an Importance or the path of its file"
            raise ForgetlessError(
                "there is nothing to protect: give old data (unlabeled samples like those whose skill is to be kept)"
                f"{other}."
            )
        if isinstance(strength, str) and strength != "auto":
            raise ForgetlessError(f'strength must be "auto", a number or a dial, not {strength!r}.')
        self.kept: Anchor | DeltaAnchor | Distillation | None = None
        self._old, self._probes, self._options = old, probes, dict(options)
        self._strength: float | Dial | Literal["auto"] = (
            strength if isinstance(strength, Dial) else "auto" if isinstance(strength, str) else checked(strength)
        )
        self._asked: Probes | None = None
        self._model: nn.Module | None = None
        self._optimizers: list[Optimizer] = []

    @abc.abstractmethod
    def make(
        self,
        model: nn.Module,
        reader: Reader,
        embeddings: Iterable[nn.Module | None] = (),
        *,
        progress: bool = False,
    ) -> None:
        """Keep the model as it is at present.

        Args:
            model: the network as the trainer wraps it.
            reader: how the trainer reads samples.
            embeddings: modules with a row per token, which may have grown since a given importance was measured.
            progress: show a progress bar on a terminal.

        Raises:
            ForgetlessError: old data that do not fit the model.
        """

    @abc.abstractmethod
    def restore(self, model: nn.Module, state: Mapping[str, Tensor], reader: Reader) -> None:
        """Go on from what `state` gave, of a model with the weights that it had then.

        Raises:
            ForgetlessError: the state is damaged, or another model's.
        """

    @abc.abstractmethod
    def save(self, path: str | Path) -> None:
        """Write the state and the fingerprints of the present weights to a file, whole or not at all."""

    @staticmethod
    @abc.abstractmethod
    def read(path: str | Path, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The state that `save` wrote, and the fingerprints of the weights then, by name.

        Raises:
            ForgetlessError: the file is missing, damaged, or of another method.
        """

    def state(self) -> dict[str, Tensor]:
        """What a training needs to go on; empty before the first one."""
        return {} if self.kept is None else self.kept.state_dict()

    def is_of(self, model: nn.Module) -> bool:
        """Whether something is kept, and is this model's."""
        return self.kept is not None and self._model is unwrapped(model)

    def attach(self, optimizer: Any) -> None:
        """Protect in every step of the optimizer, or of several, from now on."""
        self.detach()
        assert self.kept is not None
        self.kept.attach(optimizer)
        self._optimizers = Inner(optimizer).optimizers

    def detach(self) -> None:
        """Let the optimizers go; what is kept stays."""
        if self.kept is not None:
            self.kept.detach()
        self._optimizers = []

    def refuse_swapped(self, optimizer: Any) -> None:
        """Called before a step of what the trainer steps now.

        Raises:
            ForgetlessError: it is not what was attached.
        """
        now = Inner(optimizer).optimizers
        if len(now) != len(self._optimizers) or any(a is not b for a, b in zip(now, self._optimizers, strict=True)):
            raise ForgetlessError(
                "the trainer's optimizer was replaced during training, and protection acts in the steps of the one "
                "that it began with; give the trainer its optimizer before training begins."
            )

    def figures(self) -> dict[str, float]:
        """For the trainer's log: what `figures` gives, and with probes `forgetless/agreement`."""
        assert self.kept is not None
        found = figures(self.kept)
        if (agreement := self.agreement()) is not None:
            found["forgetless/agreement"] = agreement
        return found

    def agreement(self) -> float | None:
        """The share of the answers to the probes that are the same as before training; None without probes."""
        if self._asked is None or self._model is None:
            return None
        return pooled(self._asked.read(self._model)).agreement

    def _take(
        self,
        kept: Anchor | DeltaAnchor | Distillation,
        model: nn.Module,
        reader: Reader,
        before: contextlib.AbstractContextManager[Any],
    ) -> None:
        """Keep `kept` from now on; `before` is entered for a model that answers as before training, to ask it."""
        asked = None
        if self._probes is not None:
            options = {key: self._options[key] for key in ("output", "forward") if key in self._options}
            with before as other, torch.random.fork_rng([]):
                asked = Probes(model if other is None else other, reader.once(self._probes), **options)
        self.detach()
        self.kept, self._asked, self._model = kept, asked, unwrapped(model)


def adapted(model: nn.Module) -> bool:
    """Whether adapters of PEFT learn in place of weights of the model, or of one inside (in a `LightningModule`)."""
    return any(hasattr(each, "peft_config") for each in unwrapped(model).modules())

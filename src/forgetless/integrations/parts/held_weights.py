"""`HeldWeights`: method "mas" of the callbacks, an anchor from what is measured on the old data."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError, quoted
from forgetless.integrations.parts import delta_anchor
from forgetless.integrations.parts.base_importance import base_importance
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.integrations.parts.grown import grown
from forgetless.integrations.parts.protection import Protection, Reader, adapted
from forgetless.integrations.parts.renamed import of_part
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from forgetless.model.parameters import listing, unwrapped
from forgetless.protect import anchor_file
from forgetless.protect.anchor import Anchor
from forgetless.protect.strength.dial import Dial, at_target

# What `forgetless.mas` takes by name: "form", "exclude", …
_OPTIONS = tuple(name for name, each in inspect.signature(mas).parameters.items() if each.kind is each.KEYWORD_ONLY)
_AT_ONCE = "at_once"  # of base_importance


class HeldWeights(Protection):
    """Weights that matter to the old data are held near their old values.

    `old` is data, an `Importance` or the path of its file; the options are those of `forgetless.mas`; "auto" is that
    of an anchor.
    """

    method = "mas"

    def __init__(
        self, old: Any, strength: float | str | Dial, probes: Any, options: Mapping[str, Any], *, later: bool = False
    ) -> None:
        """Nothing is measured yet.

        Raises:
            ForgetlessError: those of `Protection`; an option that `forgetless.mas` does not take.
        """
        super().__init__(old, strength, probes, options, later=later)
        if strange := [name for name in options if name not in (*_OPTIONS, _AT_ONCE)]:
            raise ForgetlessError(
                f"protection by importance takes {listing(_OPTIONS, most=len(_OPTIONS))} besides (those of "
                f"forgetless.mas), and not {listing(strange)}; leave that out."
            )

    @property
    def anchor(self) -> Anchor | DeltaAnchor | None:
        """θ* and Ω, of a model with adapters those of its base; None before the first training."""
        assert self.kept is None or isinstance(self.kept, Anchor | DeltaAnchor)
        return self.kept

    def make(
        self,
        model: nn.Module,
        reader: Reader,
        embeddings: Iterable[nn.Module | None] = (),
        *,
        progress: bool = False,
        **options: Any,
    ) -> None:
        """Anchor the model at its present weights; `options` of `forgetless.mas` yield to those that the user chose.

        Raises:
            ForgetlessError: of `forgetless.mas` and `Anchor`: an importance of another model, for one.
        """
        if isinstance(self._old, str | Path | Importance):
            importance = self._old if isinstance(self._old, Importance) else _loaded(self._old)
            if exclude := self._options.get("exclude"):
                importance = importance.without(exclude)
        else:
            importance = self._measured(model, lambda: reader.once(self._old), {"progress": progress, **options})
        importance = of_part(importance, unwrapped(model))
        if adapted(model):
            anchor: Anchor | DeltaAnchor = DeltaAnchor(model, importance, self._strength)
        else:
            anchor = Anchor(model, grown(importance, model, embeddings), self._strength)
        self._take(anchor, model, reader, contextlib.nullcontext())

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
        made = (DeltaAnchor if adapted(model) else Anchor)(model, importance, self._strength)
        self._take(made, model, Reader(), contextlib.nullcontext())

    def restore(self, model: nn.Module, state: Mapping[str, Tensor], reader: Reader) -> None:
        """Take θ*, Ω and where a dial stands from an anchor's state. A strength given as a number stays; with "auto"
        the strength goes on as it began.

        Raises:
            ForgetlessError: the state is damaged or another model's.
        """
        anchor = (DeltaAnchor if adapted(model) else Anchor)(model, None, self._strength)
        anchor.load_state_dict(state)
        if isinstance(self._strength, float):
            anchor.strength = self._strength
        self._take(anchor, model, reader, _at_target(anchor))

    def save(self, path: str | Path) -> None:
        """Write θ*, Ω and λ."""
        if self.anchor is not None:
            self.anchor.save(path)

    @staticmethod
    def read(path: str | Path, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The anchor's state, and the fingerprints of the anchored weights; with adapters, of those of the base."""
        if adapted(model):
            return delta_anchor.read(path)
        state, _, hashes = anchor_file.read(path)
        return state, hashes

    def _measured(self, model: nn.Module, batches: Callable[[], Any], options: Mapping[str, Any]) -> Importance:
        if _AT_ONCE in self._options and not adapted(model):
            raise ForgetlessError(
                f"{_AT_ONCE}= is for a base in 4 or 8 bits under LoRA adapters, and the model has none; leave it out."
            )
        with torch.random.fork_rng([]):  # a loader that shuffles draws its seed
            measured = base_importance if adapted(model) else mas
            return measured(model, batches(), **{**options, **self._options})


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

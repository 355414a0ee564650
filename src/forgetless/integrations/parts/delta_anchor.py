"""`DeltaAnchor` keeps the base of a model with LoRA adapters."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.adapted_layer import as_shaped, change_of, dtype_of, is_plain
from forgetless.integrations.parts.lora import LoraModel, refuse_strangers
from forgetless.integrations.parts.low_rank import AdaptedWeight
from forgetless.integrations.parts.low_rank_file import State
from forgetless.integrations.parts.low_rank_steps import (
    LowRankGradient,
    LowRankPull,
    LowRankSteps,
    against_pull,
    holder,
)
from forgetless.integrations.parts.renamed import renamed
from forgetless.measure.importance import Importance
from forgetless.model.admission import switches
from forgetless.model.parameters import fingerprint, listing
from forgetless.protect.anchor import Anchor, PerLayer
from forgetless.protect.anchor_file import checked
from forgetless.protect.status import Status
from forgetless.protect.strength.dial import Dial, at_target
from forgetless.protect.strength.hold_share import HoldShare
from forgetless.protect.watch import WeightsWatch


class DeltaAnchor:
    """Keeps the base of a model with LoRA adapters near what it is, each weight as strongly as it matters.

        P = λ Σ Ω (ΔW − Δ*)²,    ΔW = Σ_k s_k B_k A_k

    for every base weight with an importance, over its active adapters k; for DoRA `ΔW = m (W + sBA) / ‖W + sBA‖ − W`.
    Δ* is ΔW at the time of anchoring, 0 with fresh adapters: what is kept is the model as it computes then. Dropout on
    the inputs of adapters is no part of ΔW, which never exists as a whole (`forgetless.integrations.parts.low_rank`).

    Copies of `modules_to_save` and other trainable parameters of the base are kept by an ordinary `forgetless.Anchor`.
    Adapted weights without an importance are free.
    """

    def __init__(
        self,
        model: nn.Module,
        importance: Importance | None,
        strength: float | Dial | Literal["auto"] = "auto",
        *,
        compact: bool = False,
    ) -> None:
        """Anchor the base of `model` as it computes now.

        Args:
            model: a model with LoRA, rsLoRA or DoRA adapters, from `get_peft_model` or `add_adapter`.
            importance: Ω of the base, measured by `forgetless.mas` before the model was wrapped or by
                `base_importance` after; None while there is nothing to protect.
            strength: λ ≥ 0, on the scale of `forgetless.Anchor`; or `forgetless.HoldShare`, which finds the λ that
                holds a share of B's entries (of A's in embeddings, where A is what starts at 0); "auto" is
                `HoldShare()`.
            compact: keep Ω in bfloat16, at most 0.4 % off, instead of float32.

        Memory: Ω of the adapted weights; there is no θ*.

        Raises:
            ForgetlessError: not LoRA, or a kind of it that is not followed; an importance of another model or of the
                adapters themselves; NaN or Inf in the adapters; a strength that is negative or not finite.
        """
        self._auto = strength == "auto"  # then a state that is loaded brings its own way of choosing λ
        chosen = HoldShare() if strength == "auto" else strength
        if isinstance(chosen, Dial) and not isinstance(chosen, HoldShare):
            raise ForgetlessError(
                f"{type(chosen).__name__} moves single weights back, which adapters cannot do: give a number or "
                "forgetless.HoldShare."
            )
        self._dial = chosen if isinstance(chosen, HoldShare) else None
        self._model, self._compact = model, compact
        self._strength = checked(chosen.value if isinstance(chosen, HoldShare) else chosen)
        self._weights: dict[str, AdaptedWeight] = {}
        self._ordinary = Anchor(model, None, self._strength, compact=compact)
        self._steps: LowRankSteps | None = None
        self._watchers: list[WeightsWatch | RemovableHandle] = []
        self._past = Status(0, 0, 0.0, None)  # of the attachment that was released
        LoraModel.of(model)  # refuses what is not followed
        if importance is not None:
            self._add(importance, 1.0)

    @property
    def strength(self) -> float:
        """λ. Setting it takes effect with the next step."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = self._ordinary.strength = checked(value)
        if self._steps is not None:
            self._steps.strength = self._strength

    @property
    def importance(self) -> dict[str, Tensor]:
        """Ω by the base's names, in the shapes of its weights, summed over the tasks so far."""
        names = {wrapped: name for name, wrapped in LoraModel.of(self._model).copies.items()}
        ordinary = {names.get(name, name): each for name, each in self._ordinary.importance.items()}
        return {name: as_shaped(each.layer, each.importance) for name, each in self._weights.items()} | ordinary

    def attach(self, optimizer: Any, how: str = "auto") -> DeltaAnchor:
        """Protect the base in every step of `optimizer`, once a step: after clipping, whatever the accumulation.

        Args:
            optimizer: trains the adapters; a wrapper stands for the optimizer inside, as for `forgetless.Anchor`.
            how: "pull" moves B and A after the step, in closed form; it is finite at every strength, and training ends
                at the optimum of the penalized loss (`forgetless.integrations.parts.low_rank_pull`). "gradient" adds
                the penalty's gradient before the step; with SGD it diverges at a large strength. "auto" pulls with
                torch's own optimizers, and adds gradients with others, with DoRA and with adapters in 16 bits.

        Returns:
            The anchor.

        Raises:
            ForgetlessError: attached already; an optimizer that holds none of the adapters, or cannot be followed; a
                pull on DoRA, on adapters in 16 bits or with an optimizer that is not torch's. Nothing is attached then.
        """
        if how not in ("auto", "pull", "gradient"):
            raise ForgetlessError(f"how must be 'auto', 'pull' or 'gradient', not {how!r}.")
        if self._steps is not None:
            raise ForgetlessError("the anchor is attached already to an optimizer; call detach() first.")
        LoraModel.of(self._model)
        weights = list(self._weights.values())
        inner = holder(optimizer, weights)
        kind = LowRankGradient if how == "gradient" or (how == "auto" and against_pull(inner, weights)) else LowRankPull
        steps = kind(inner, weights, self._strength)
        trained = steps.trained()
        if any(parameter in trained for parameter in self._ordinary.anchored()):
            try:
                self._ordinary.attach(inner, how)
            except ForgetlessError:
                steps.remove()
                raise
        self._steps = steps
        self._watchers = [WeightsWatch(self._model, steps)]
        if self._dial is not None:
            self._dial.begin(self._model, inner)
            self._watchers.append(inner.register_step_post_hook(lambda *_: self._turn()))
        if caution := steps.caution():
            warnings.warn(caution, stacklevel=2)
        return self

    def detach(self) -> None:
        """Let the optimizer go. Without an attachment it changes nothing."""
        if self._steps is not None:
            self._past = self.status()
            self._steps.remove()
            for watcher in self._watchers:
                watcher.remove()
        self._steps, self._watchers = None, []
        self._ordinary.detach()

    def consolidate(self, importance: Importance, gamma: float = 1.0) -> None:
        """End a task: add its importance, and keep the model as it computes now: `Ω ← γ Ω + Ω_task`, `Δ* ← ΔW`.

        The adapters go on from where they are; Δ* is kept as their product, in the memory of a second set of adapters.
        To merge them into the base instead: `save`, `merge_and_unload`, `get_peft_model`, `load`, and consolidate then.

        Args:
            importance: Ω_task, measured by `base_importance` at the present weights.
            gamma: γ in [0, 1]; see `forgetless.Anchor.consolidate`.

        Raises:
            ForgetlessError: as for a new anchor, or a gamma out of range; nothing has changed then.
        """
        if not 0 <= gamma <= 1:
            raise ForgetlessError(f"gamma must be between 0 and 1, not {gamma!r}.")
        self._add(importance, gamma)

    def drift(self) -> PerLayer:
        """How far the base has moved where it matters: `Σ Ω (ΔW − Δ*)²`, without λ, whole and by layer."""
        layers = {name.rpartition(".")[0] or name: each.drift() for name, each in self._weights.items()}
        layers |= self._ordinary.drift().per_layer
        return PerLayer(math.fsum(layers.values()), layers)

    def frozen_fraction(self) -> float:
        """The share of B's entries (of A's in embeddings) that are pulled back by more than half a step, s > 1.

        `s = 2 λ s_k² (Σ_i Ω A²) r / D`, each entry by itself, at the peak of the learning rate.

        Raises:
            ForgetlessError: the anchor is attached to no optimizer whose form is known, so that there is no s.
        """
        gains = None if self._steps is None else self._steps.gains()
        if gains is None:
            raise ForgetlessError("frozen_fraction() is about the steps of an optimizer: attach() the anchor first.")
        return float((gains * self._strength > 1).double().mean())

    def strength_holding(self, share: float, steps: float, moved: float | None = None) -> float | None:
        """λ at which `share` of those entries has `Σ_t s_t ≥ 1` over so many steps; see `forgetless.HoldShare`.

        All entries count alike, whatever `moved` is: adaptive optimizers, which adapters are trained with, move them
        alike.

        Returns:
            λ; None where the optimizer has not stepped, or nothing matters.
        """
        gains = None if self._steps is None else self._steps.gains()
        if gains is None or not bool(gains.any()):
            return None
        largest = gains.sort(descending=True).values
        least = largest[min(math.ceil(share * len(largest)), int((largest > 0).sum())) - 1]
        return 1 / (steps * float(least))

    def _turn(self) -> None:
        if self._dial is not None:
            self._dial.stepped(self)

    def status(self) -> Status:
        """How many steps the anchor has seen and acted in, and what it stops."""
        past = replace(self._past, strength=self._strength)
        if self._steps is None:
            return past
        frozen = self.frozen_fraction() if self._steps.gains() is not None else past.frozen_fraction
        return Status(past.steps + self._steps.steps, past.applied + self._steps.applied, self._strength, frozen)

    def state_dict(self) -> dict[str, Tensor]:
        """λ, Ω and Δ* (as factors) by the base's names; θ* is the base itself and is not in it."""
        kept = {name: each.kept.tensors() for name, each in self._weights.items() if each.kept is not None}
        importance = {name: as_shaped(each.layer, each.importance) for name, each in self._weights.items()}
        dial = {} if self._dial is None else self._dial.state()
        return State(self._strength, importance, kept, self._ordinary.state_dict(), dial).tensors()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take λ, Ω and Δ* from what `state_dict` returned. An attachment stays.

        Raises:
            ForgetlessError: a state that is incomplete, damaged or another model's; nothing has changed then.
        """
        found, lora = State.parsed(state), LoraModel.of(self._model)
        weights = {
            name: lora.anchored(name, each, self._compact, found.kept.get(name))
            for name, each in found.importance.items()
        }
        dial = HoldShare.resumed(found.dial) if self._auto else self._dial
        self._ordinary.load_state_dict(found.ordinary)
        self._set(weights)
        self._dial = dial
        if dial is not None:
            dial.restore(found.dial)
        self.strength = found.strength

    def save(self, path: str | Path) -> None:
        """Write λ, Ω and Δ* to the file `path` (safetensors), whole or not at all."""
        header = {"weights": _hashes(self._weights.values())}
        files.write_tensors(path, self.state_dict(), "delta anchor", header)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module, *, strength: HoldShare | None = None) -> DeltaAnchor:
        """Read what `save` wrote, for the same base, whatever its adapters are now; warns if the base is another.

        Args:
            path: the file.
            model: the model, with adapters.
            strength: what goes on choosing λ; without it λ stays as it was saved.

        Raises:
            ForgetlessError: the file is missing, cut, damaged or another model's.
        """
        tensors, hashes = read(path)
        compact = any(tensor.dtype == torch.bfloat16 for tensor in tensors.values())
        anchor = cls(model, None, 1.0 if strength is None else strength, compact=compact)
        anchor.load_state_dict(tensors)
        now = _hashes(anchor._weights.values())
        if changed := [name for name, value in hashes.items() if now.get(name, value) != value]:
            warnings.warn(
                f"{path} was saved over another base than the model has now: {listing(changed)}.", stacklevel=2
            )
        return anchor

    @contextlib.contextmanager
    def at_target(self) -> Iterator[None]:
        """Inside, the model computes as when it was anchored: with fresh adapters, as its base.

        Raises:
            ForgetlessError: the adapters had been trained then, or nothing switches them off.
        """
        if any(each.kept is not None for each in self._weights.values()):
            raise ForgetlessError(
                "the adapters had been trained when the model was anchored, and its answers of then cannot be asked "
                "for again; leave out the probes."
            )
        if not (found := switches(self._model)):
            raise ForgetlessError(
                "adapters that were added without get_peft_model cannot be switched off to ask the model for its "
                "answers of then; leave out the probes, or wrap the model by get_peft_model."
            )
        with contextlib.ExitStack() as off:
            off.enter_context(at_target(self._ordinary.anchored()))
            for each in found:
                off.enter_context(each.disable_adapter())
            yield

    def _add(self, importance: Importance, gamma: float) -> None:
        if not isinstance(importance, Importance):
            raise ForgetlessError(f"an importance is what forgetless.mas returns, not {type(importance).__name__}.")
        lora = LoraModel.of(self._model)
        refuse_strangers(importance.sums, lora)
        sources = {name: lora.source(name, importance.sums) for name in lora.layers}
        means = {name: importance.sums[n] / importance.count for name, n in sources.items() if n is not None}
        if not means and not self._weights:
            raise ForgetlessError(
                f"the importance has none of the weights that adapters change ({listing(lora.layers)}); measure it "
                "without leaving them out (exclude=)."
            )
        weights = {name: lora.anchored(name, mean, self._compact, None) for name, mean in means.items()}
        for name, each in {**weights, **self._weights}.items():
            if not all(bool(torch.isfinite(side).all()) for a in each.adapters() for side in (a.a, a.b)):
                raise ForgetlessError(f"the adapters of {name!r} have NaN or Inf and cannot be anchored.")
        ordinary = {
            n: lora.copies.get(n, n) for n in lora.moved() if n in importance.sums and n not in sources.values()
        }
        self._ordinary.consolidate(renamed(importance, ordinary, only=True), gamma)
        _warn_moved(
            lora, {n: importance.weights[n] for n in sources.values() if n in importance.weights}, self._weights
        )
        for name, earlier in self._weights.items():
            total = gamma * earlier.importance.to(dtype_of(earlier.layer))
            if name in weights:
                total += weights[name].importance.to(total)
            weights[name] = replace(earlier, importance=total.to(earlier.importance.dtype))
        for each in weights.values():
            each.kept = change_of(each.layer)
        self._set(weights)

    def _set(self, weights: dict[str, AdaptedWeight]) -> None:
        self._weights = weights
        if self._steps is not None:
            self._steps.weights = list(weights.values())
        if self._dial is not None:
            self._dial.remember(self._model)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state that `DeltaAnchor.save` wrote, and the fingerprints of the base weights.

    Raises:
        ForgetlessError: the file is missing, cut, damaged or not a DeltaAnchor's.
    """
    tensors, header = files.read_tensors(path, "delta anchor", dtypes=files.FLOATS)
    noted: _Header = files.decoded(header, _Header, path)
    return tensors, noted.weights


@dataclass(frozen=True)
class _Header:
    """What an anchor's file says of itself: the fingerprints of the base weights."""

    weights: dict[str, str]


def _hashes(weights: Collection[AdaptedWeight]) -> dict[str, str]:
    return {each.name: fingerprint(each.layer.get_base_layer().weight) for each in weights if is_plain(each.layer)}


def _warn_moved(lora: LoraModel, measured: Mapping[str, str], earlier: Mapping[str, AdaptedWeight]) -> None:
    now = lora.fingerprints(measured)
    changed = [name for name, value in now.items() if value != measured[name]]
    if not changed:
        return
    if not earlier and any(change_of(lora.layers[name]) is not None for name in changed):
        then = (
            "The adapters have been trained, and the model as it computes now is what is kept, not its base: anchor "
            "before training, or go on from a saved anchor with DeltaAnchor.load(path, model)."
        )
    else:
        then = "Measure it again unless that is meant: another model's importance protects the wrong weights."
    differ = f"{listing(changed)} differ{'s' if len(changed) == 1 else ''}"
    warnings.warn(
        f"the importance was measured at other weights than the model has now, adapters included: {differ}. {then}",
        stacklevel=4,
    )

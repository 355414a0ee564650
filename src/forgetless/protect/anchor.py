"""`Anchor`: the weights θ* that a model is to keep, how much each matters (Ω), and how strongly it is protected (λ)."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance, refuse_another, refuse_mismatch
from forgetless.model.admission import fresh_adapters
from forgetless.model.parameters import fingerprint, listing, named
from forgetless.model.sharding import resharded
from forgetless.protect import anchor_file
from forgetless.protect.accumulation import AccumulationWatch
from forgetless.protect.anchor_file import State, checked
from forgetless.protect.anchored_parameter import AnchoredParameter, collapsed
from forgetless.protect.batchnorm import StatisticsWatch
from forgetless.protect.coded import Coded
from forgetless.protect.identity import Identity
from forgetless.protect.optimizers.attachment import Attachment
from forgetless.protect.optimizers.forms import known
from forgetless.protect.optimizers.gradient import Gradient
from forgetless.protect.optimizers.holding import strength_holding
from forgetless.protect.optimizers.inner import Inner
from forgetless.protect.optimizers.pull import Pull
from forgetless.protect.status import Status
from forgetless.protect.stored_weights import stored_weights
from forgetless.protect.strength.dial import Dial, at_target
from forgetless.protect.strength.hold_share import HoldShare
from forgetless.protect.watch import WeightsWatch

_HOW: dict[str, type[Pull] | type[Gradient]] = {"pull": Pull, "gradient": Gradient}


@runtime_checkable
class _Removable(Protocol):
    def remove(self) -> None: ...


class PerLayer(float):
    """A figure for the whole network that also knows its layers'.

    Attributes:
        per_layer: a module's name → its figure (a parameter that the model itself owns stands under its own name).
    """

    per_layer: dict[str, float]

    def __new__(cls, whole: float, per_layer: dict[str, float]) -> PerLayer:
        """`float(figure)` is `whole`."""
        figure = super().__new__(cls, whole)
        figure.per_layer = per_layer
        return figure


class Anchor:
    """Keeps a model near its weights, each as strongly as it matters.

    Eq. 3 of Memory Aware Synapses, `λ Σ Ω (θ − θ*)²` (no ½: its gradient is `2 λ Ω (θ − θ*)`), in one of two forms:
    `attach` adds a proximal step (the pull) to every step of an optimizer; `penalty()` is a term of the loss. Both lead
    to the same weights, where `g + 2 λ Ω (θ − θ*) = 0` for the gradient g of the loss without it;
    `forgetless.protect.optimizers.forms` says what an optimizer's own weight decay and clipping do to that.

    Parameters without an importance are free: heads left out of the measurement, parameters added later, new rows and
    columns of one that has grown. Parameters that the model no longer has are skipped.
    """

    def __init__(
        self,
        model: nn.Module,
        importance: Importance | None,
        strength: float | Dial | Literal["auto"] = "auto",
        *,
        l2sp: float = 0.0,
        compact: bool | Literal["8bit"] = False,
        base: str | Path | None = None,
    ) -> None:
        """Anchor `model` at its present weights.

        Args:
            model: the network, as it is to be remembered.
            importance: how much each parameter matters; None while there is nothing to protect.
            strength: "auto" holds back most of the movement that training would make (`HoldShare()`); a number is
                λ ≥ 0, on the paper's scale (1 in all its object recognition experiments); or what chooses λ while
                training goes on: `forgetless.HoldShare`, `forgetless.KeepAgreement`, `forgetless.DriftBudget`. All but
                a number need `attach`.
            l2sp: w ≥ 0, a weight decay towards θ* in place of the optimizer's towards 0 (L2-SP, Li et al. 2018): every
                anchored weight also has the penalty `w/2 (θ − θ*)²`, whatever its importance and the strength.
            compact: keep Ω in bfloat16 (True), at most 0.4 % off, or in 8 bits ("8bit"), at most 4.5 % off
                (`forgetless.protect.coded`), instead of float32.
            base: where θ* is, instead of in memory a second time: the safetensors file that the model was loaded from,
                the index of several, or their folder. θ* are the weights there, whatever the model has by now; the
                importance's fingerprints prove that they are those that were measured. For weights on the CPU; what
                `load` says of `mmap=` holds.

        Memory: θ* and Ω, however many tasks there are: 8 bytes for each anchored weight; 6 with `compact=True`, 5 with
        `compact="8bit"`, and 4 less with `base=`. The importance is not kept: delete it, or load it with `mmap=True`.

        Raises:
            ForgetlessError: an importance for another model, NaN or Inf in the weights, a strength or l2sp that is
                negative or not finite, or a base whose weights are not those that were measured.
        """
        if compact not in (False, True, "8bit"):
            raise ForgetlessError(f"compact must be True, False or '8bit', not {compact!r}.")
        self._model = model
        self._auto = strength == "auto"  # then a state that is loaded brings its own way of choosing λ
        chosen = HoldShare() if strength == "auto" else strength
        self._dial = chosen if isinstance(chosen, Dial) else None
        self._strength = checked(chosen.value if isinstance(chosen, Dial) else chosen)
        self._l2sp = checked(l2sp, "l2sp coefficient")
        self._compact = compact
        self._anchored: dict[str, AnchoredParameter] = {}
        self._attached: dict[Attachment, int] = {}  # → how many tasks had been consolidated then
        self._watchers: dict[Attachment, list[_Removable]] = {}
        self._identity = Identity()
        self._tasks = 0
        self._in_loss = False
        self._accumulation = AccumulationWatch()
        self._past = Status(0, 0, 0.0, None)  # of the attachments that were released
        self._mapped: list[files.Mapped] = []  # the files that θ* and Ω are in
        if importance is not None:
            self._add(importance, base=base)
        elif base is not None:
            raise ForgetlessError("base= needs an importance, whose fingerprints say which weights θ* are.")

    def __repr__(self) -> str:
        held = f"{len(self._anchored)} parameters of {type(self._model).__name__}"
        return f"{type(self).__name__}({held}, strength={self._strength:.3g}, attached={bool(self._attached)})"

    @property
    def strength(self) -> float:
        """λ. Setting it takes effect with the next step."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = checked(value)
        self._tell()

    @property
    def dial(self) -> Dial | None:
        """What chooses λ while training goes on; None where λ is a number that was given."""
        return self._dial

    @property
    def l2sp(self) -> float:
        """w, towards θ*. Setting it takes effect with the next step."""
        return self._l2sp

    @l2sp.setter
    def l2sp(self, value: float) -> None:
        self._l2sp = checked(value, "l2sp coefficient")
        self._tell()

    def _tell(self) -> None:
        for attachment in self._attached:
            fine = attachment.caution() is None
            attachment.strength, attachment.l2sp = self._strength, self._l2sp
            if fine and (caution := attachment.caution()):
                warnings.warn(caution, stacklevel=3)

    @property
    def weights(self) -> dict[str, Tensor]:
        """θ* by parameter name."""
        return {name: anchored.weights for name, anchored in self._anchored.items()}

    @property
    def importance(self) -> dict[str, Tensor]:
        """Ω by parameter name, summed over the tasks so far; what is kept in 8 bits is read, a new tensor."""
        omegas = {name: anchored.importance for name, anchored in self._anchored.items()}
        return {name: omega.read() if isinstance(omega, Coded) else omega for name, omega in omegas.items()}

    def penalty(self) -> Tensor:
        """`λ Σ Ω (θ − θ*)² + w/2 Σ (θ − θ*)²`, a differentiable scalar for the loss; 0 with nothing to protect.

        With a large λ the optimizer's step on it diverges, where the pull does not. Gradient accumulation over k losses
        that are not divided by k makes it k times as strong, which a warning says (but not behind loss scaling).

        Raises:
            ForgetlessError: the anchor is attached to an optimizer, and would protect twice; or its strength is one
                that moves with the steps of an attached optimizer.
        """
        if self._attached:
            raise ForgetlessError(
                "penalty() would protect twice: the anchor is attached to an optimizer; call detach() first."
            )
        if self._dial is not None:
            raise ForgetlessError(
                f"{self._chooser} chooses the strength in the steps of an optimizer that the anchor is attached to: "
                "call attach(optimizer) in place of penalty(), or give the strength as a number."
            )
        present = self._present()
        self._in_loss = True
        first = next(self._model.parameters(), None)
        total = torch.zeros((), device=None if first is None else first.device)
        for parameter, anchored in present.items():
            total = total + self._strength * anchored.distance(parameter).to(total.device)
            if self._l2sp:
                total = total + self._l2sp / 2 * anchored.distance(parameter, alike=True).to(total.device)
        if (trained := next((each for each in present if each.requires_grad), None)) is not None:
            self._accumulation.watch(total, trained)
        return total

    def attach(self, optimizer: Any, how: str = "auto") -> Anchor:
        """Protect the weights in every step of `optimizer`.

        Names are resolved now. The hook stays when nobody refers to the anchor any more, and after `consolidate`; an
        optimizer that is attached after that takes its parameters over from the earlier one. Weights that are moved by
        something else than the attached steps are warned of (`forgetless.protect.watch`).

        Args:
            optimizer: trains at least one of the anchored parameters. A wrapper stands for the optimizer inside (SAM,
                Lookahead, Accelerate, Fabric, …); several, as for steps in gradient hooks, come in a list or a dict.
            how: "pull" moves the weights back after the step, in the closed form that fits the optimizer
                (`forgetless.protect.optimizers.forms`); it is finite at every strength. Where the optimizer is not
                known there, a warning says what the form used means. "gradient" adds `2 λ Ω (θ − θ*)` to the gradients
                before the step, as the loss form would, after clipping; it warns where that must or may diverge. They
                end at the same weights, but for clipping and decoupled weight decay. "auto" pulls where the optimizer's
                own form is known, and adds to the gradients otherwise.

        Returns:
            The anchor.

        Raises:
            ForgetlessError: attached already, used in the loss already, an optimizer that holds none of the anchored
                parameters, one that cannot be followed (LBFGS, LOMO, …), or one whose form is not known where the
                strength is chosen by it ("auto", `HoldShare`). Nothing is attached then.
        """
        if how not in ("auto", *_HOW):
            raise ForgetlessError(f"how must be 'auto', 'pull' or 'gradient', not {how!r}.")
        if self._in_loss:
            raise ForgetlessError(
                "attach() would protect twice: penalty() is in the loss already; "
                "use one of the two, or call detach() first."
            )
        inner = Inner(optimizer)
        self._compare()
        present = self._present()
        owners = self._owners(inner, present)
        made: list[tuple[Attachment, list[Attachment]]] = []
        try:
            for each, rivals in owners:
                made.append((_way(each, how)(each, present, self._strength, self._l2sp), rivals))
        except ForgetlessError:
            for attachment, _ in made:
                attachment.remove()
            raise
        for attachment, rivals in made:
            for rival in rivals:
                if rival in self._attached:
                    self._release(rival)
            self._attached[attachment] = self._tasks
        final = made[self._last(made)][0]
        for attachment, _ in made:
            last = attachment is final
            self._watchers[attachment] = self._watched(attachment, last, inner.averaged)
        for caution in dict.fromkeys(attachment.caution() for attachment, _ in made):
            if caution:
                warnings.warn(caution, stacklevel=2)
        return self

    def _owners(
        self, inner: Inner, present: Mapping[nn.Parameter, AnchoredParameter]
    ) -> list[tuple[Optimizer, list[Attachment]]]:
        """The optimizers that train anchored parameters, each with the earlier attachments that it takes over from."""
        ours = set(present or self._model.parameters())
        owners = []
        for optimizer in inner.optimizers:
            if ours.isdisjoint(parameter for group in optimizer.param_groups for parameter in group["params"]):
                continue
            found = known(optimizer)
            if isinstance(found, str) and self._dial is not None and self._dial.needs_form:
                raise ForgetlessError(
                    f"{self._chooser} cannot find a strength for {type(optimizer).__name__}, of whose steps no form is "
                    "known; give the strength as a number."
                )
            rivals = [attachment for attachment in self._attached if attachment.shares(optimizer)]
            for rival in rivals:
                if self._attached[rival] == self._tasks:
                    raise ForgetlessError(
                        f"the anchor is attached already to an optimizer ({type(rival.optimizer).__name__}) with "
                        "these parameters; call detach() first."
                    )
            owners.append((optimizer, rivals))
        if not owners and present and not any(parameter.requires_grad for parameter in present):
            raise ForgetlessError(
                f"the anchored parameters ({listing(self._anchored)}) are frozen (requires_grad is False), so that no "
                "optimizer moves them and there is nothing to protect; where adapters learn in their place, "
                "forgetless.DeltaAnchor protects them."
            )
        if not owners:
            raise ForgetlessError(
                "the optimizer holds none of the anchored parameters "
                f"({listing(self._anchored or _named(self._model))}); make it from the parameters of the anchored "
                "model, or, if it trains copies of them (ZeRO, offloading, master weights), add anchor.penalty() to "
                "the loss."
            )
        return owners

    def _last(self, made: list[tuple[Attachment, list[Attachment]]]) -> int:
        """Which of several optimizers steps last where each steps as soon as its gradients are there: the first's."""
        for parameter in self._model.parameters():
            for number, (attachment, _) in enumerate(made):
                if any(parameter is each for group in attachment.optimizer.param_groups for each in group["params"]):
                    return number
        return 0

    def detach(self) -> None:
        """Let the optimizers go; afterwards either form may be used. Without an attachment it changes nothing."""
        frozen = self._past.frozen_fraction
        with contextlib.suppress(ForgetlessError):  # nothing to ask: no pull, or θ* in a file that was cut
            frozen = float(self.frozen_fraction())
        for attachment in list(self._attached):
            self._release(attachment)
        self._past = replace(self._past, frozen_fraction=frozen)
        self._in_loss = False

    def consolidate(self, importance: Importance, gamma: float = 1.0) -> None:
        """End a task: add its mean importance, and protect the present weights from now on.

        `Ω ← γ Ω + Ω_task` and `θ* ← θ` for every parameter that matters to this task or an earlier one. Works while
        attached: from the next step on the new θ* and Ω count.

        Args:
            importance: Ω_task, measured at the present weights.
            gamma: γ in [0, 1]. 1 weighs all tasks alike, as MAS does; below, the earlier ones fade, which keeps a long
                sequence from growing rigid (Schwarz et al., "Progress & Compress", ICML 2018).

        Raises:
            ForgetlessError: an importance for another model, NaN or Inf in the weights, or a gamma out of range;
                nothing has changed then.
        """
        if not 0 <= gamma <= 1:
            raise ForgetlessError(f"gamma must be between 0 and 1, not {gamma!r}.")
        self._add(importance, gamma)

    def merge(self, *others: Anchor) -> Anchor:
        """One anchor for several of the same model: its penalty is the sum of theirs, exactly, but for a constant.

        `Σ_k (λ_k Ω_k + w_k/2)(θ − θ_k)² = λ Ω (θ − a)² + constant`. None of them is changed.

        Returns:
            An anchor of this one's strength; the l2sp coefficients have become part of its Ω. Parameters that are free
            in one of them, because another tensor has replaced the anchored one, are free in it.

        Raises:
            ForgetlessError: other names or shapes, or a strength of 0 here.
        """
        if not self._strength:
            raise ForgetlessError("an anchor of strength 0 cannot take in others; give it a strength first.")
        merged = type(self)(self._model, None, self._strength, compact=self._compact)
        free: set[str] = set()
        for anchor in (self, *others):
            refuse_mismatch(anchor.weights, self.weights, "the other anchor", "this one")
            anchor._compare()
            free |= anchor._identity.replaced
        for name in (name for name in self._anchored if name not in free):
            parts = [
                (anchor.strength / self._strength, anchor.l2sp / 2 / self._strength, anchor._anchored[name])
                for anchor in (self, *others)
            ]
            merged._anchored[name] = collapsed(parts)
        return merged

    def anchored(self) -> dict[nn.Parameter, AnchoredParameter]:
        """The anchored parameters that the model has now, each with its θ* and Ω."""
        return self._present()

    def drift(self) -> PerLayer:
        """How far the weights have moved where it matters: `Σ Ω (θ − θ*)²`, without λ."""
        layers: dict[str, float] = {}
        with torch.no_grad():
            for parameter, anchored in self._present().items():
                layer = _layer(anchored.name)
                layers[layer] = layers.get(layer, 0.0) + float(anchored.distance(parameter))
        return PerLayer(math.fsum(layers.values()), layers)

    def frozen_fraction(self, steps: float = 1.0) -> PerLayer:
        """The share of the anchored weights that the pull effectively stops: s > 1, back by more than half a step.

        Taken at the optimizer's present state and the peak of its learning rate: the largest that it has had, or that
        its scheduler has noted. Near 1 hardly anything new can be learned; a smaller strength leaves more room.

        Args:
            steps: count the weights that the pulls of so many steps bring back instead, `steps · s > 1`.

        Raises:
            ForgetlessError: the anchor pulls on no optimizer, so that there is no s.
        """
        self._whole()
        pulls = [attachment for attachment in self._attached if isinstance(attachment, Pull)]
        if not pulls:
            raise ForgetlessError("frozen_fraction() is about the pull on an optimizer: attach() the anchor first.")
        stopped: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for pull in pulls:
            for name, (part, size) in pull.frozen(steps).items():
                layer = _layer(name)
                stopped[layer] = stopped.get(layer, 0) + part
                sizes[layer] = sizes.get(layer, 0) + size
        whole = sum(stopped.values()) / max(sum(sizes.values()), 1)
        return PerLayer(whole, {layer: stopped[layer] / max(sizes[layer], 1) for layer in sizes})

    def strength_holding(self, share: float, steps: float, moved: float | None = None) -> float | None:
        """λ at which `share` has `Σ_t s_t ≥ 1` over so many steps at the peak rate. `forgetless.HoldShare` asks for it.

        From the optimizer's present state, within 5 %.

        Args:
            share: in (0, 1].
            steps: of the training.
            moved: the steps since θ* was set; then a share of the movement is meant: every weight counts by how far it
                would have gone unprotected. None means a share of the weights.

        Returns:
            λ; None where the optimizer has not stepped, or nothing that matters has moved.
        """
        return strength_holding(self._attached, share, steps, moved, self._strength)

    def status(self) -> Status:
        """How many steps the anchor has seen and acted in, and what its pull stops."""
        found = self._past
        for attachment in self._attached:
            found = replace(found, steps=found.steps + attachment.steps, applied=found.applied + attachment.applied)
        if any(isinstance(attachment, Pull) for attachment in self._attached):
            found = replace(found, frozen_fraction=float(self.frozen_fraction()))
        return replace(found, strength=self._strength)

    def state_dict(self) -> dict[str, Tensor]:
        """λ, w, θ* and Ω as `strength`, `l2sp`, `weights.NAME` and `importance.NAME`; views, not copies.

        What chooses the strength adds numbers of its own as `dial.NAME`.
        """
        return self._state().tensors()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take λ, w, θ* and Ω from what `state_dict` returned; the model may have grown since. Attachments stay.

        Where the model is sharded and the state is not, each process keeps its shards of it. A strength that keeps
        answers (`KeepAgreement`) asks for them anew, with θ* in the anchored weights; with "auto", λ is chosen in the
        way of the anchor whose state it is.

        Raises:
            ForgetlessError: a state that is incomplete, damaged or another model's; nothing has changed then.
        """
        found, named = State.parsed(state), _named(self._model)
        if strangers := [name for name in found.parameters if name not in named]:
            raise ForgetlessError(f"the anchor does not fit the model, which has no {listing(strangers)}.")
        anchored = {name: each.sharded_like(named[name]) for name, each in found.parameters.items()}
        for name, each in anchored.items():
            each.common(named[name])
        dial = HoldShare.resumed(found.dial) if self._auto else self._dial
        if dial is not None:
            with at_target({named[name]: each.beside(named[name]) for name, each in anchored.items()}):
                dial.remember(self._model)
            dial.restore(found.dial)
        self._dial, self._anchored = dial, anchored
        self._identity.remember(self._model, anchored)
        self._strength, self._l2sp = found.strength, found.l2sp
        self._tell()
        self._refresh()

    def save(self, path: str | Path) -> None:
        """Write λ, w, θ* and Ω to the file `path` (safetensors), whole or not at all.

        Where the model is sharded every process must call it, and the file is that of the whole model.
        """
        named = _named(self._model)
        anchor_file.write(path, self._state(), {name: named[name] for name in self._anchored if name in named})

    @classmethod
    def load(cls, path: str | Path, model: nn.Module, *, strength: Dial | None = None, mmap: bool = False) -> Anchor:
        """Read what `save` wrote, for the same model; warns once if its weights are not those it had then.

        Args:
            path: the file.
            model: the network that was anchored.
            strength: what goes on choosing λ; without it λ stays as it was saved.
            mmap: leave θ* and Ω in the file, from where each step reads them, instead of in memory (for weights on the
                CPU). The file must not be changed in place as long as the anchor is used: the system ends a process
                that reads behind a file's new, earlier end. That end is looked at before each step, which refuses a
                file that was cut. `save` replaces the file, which is fine. After `consolidate` θ* and Ω are in memory.

        Raises:
            ForgetlessError: the file is missing, cut, damaged or another model's.
        """
        tensors, shapes, hashes = anchor_file.read(path, mmap=mmap)
        _refuse_stranger(shapes, f"the anchor in {path}", model)
        kinds = {tensor.dtype for name, tensor in tensors.items() if name.startswith("importance.")}
        compact: bool | Literal["8bit"] = "8bit" if torch.uint8 in kinds else torch.bfloat16 in kinds
        anchor = cls(model, None, 1.0 if strength is None else strength, compact=compact)
        if mmap:
            anchor._mapped = [files.Mapped(path)]
        anchor.load_state_dict(tensors)
        if changed := _changed(hashes, model):
            warnings.warn(f"{path} was saved at other weights than the model has now: {changed}.", stacklevel=2)
        return anchor

    def _state(self) -> State:
        return State(self._strength, self._l2sp, self._anchored, {} if self._dial is None else self._dial.state())

    def _add(self, importance: Importance, gamma: float = 1.0, base: str | Path | None = None) -> None:
        if not isinstance(importance, Importance):
            raise ForgetlessError(f"an importance is what forgetless.mas returns, not {type(importance).__name__}.")
        named = _named(self._model)
        refuse_another(importance, named)
        kept = [name for name in {**self._anchored, **importance.sums} if name in named]
        for name in kept:
            if not bool(torch.isfinite(named[name]).all()):
                raise ForgetlessError(f"{name!r} has NaN or Inf: such weights cannot be anchored.")
        self._compare()
        self._present()  # refuses what does not fit, before anything changes
        stored, mapped = ({}, []) if base is None else stored_weights(base, self._model, kept, importance.weights)
        made = {}
        for name in kept:
            mean = importance.sums[name] / importance.count if name in importance.sums else None
            earlier = None if name in self._identity.replaced else self._anchored.get(name)
            made[name] = AnchoredParameter.at(
                name, named[name], mean, earlier, gamma=gamma, compact=self._compact, target=stored.get(name)
            )
        if self._dial is not None:
            with at_target({named[name]: made[name] for name in stored}):
                self._dial.remember(self._model)
        if base is None and (changed := _changed(importance.weights, self._model)):
            warnings.warn(
                f"the importance was measured at other weights than the model has now: {changed}; "
                "measure it again unless that is meant.",
                stacklevel=3,
            )
        fresh = [each for each in fresh_adapters(self._model) if any(name.startswith(f"{each}.") for name in kept)]
        if fresh:
            warnings.warn(
                f"the LoRA adapters of {listing(fresh)} are fresh (B is 0), so that Ω of every A is 0 and this anchor "
                "does not protect the base from them; forgetless.DeltaAnchor does, with the importance of the base.",
                stacklevel=3,
            )
        self._anchored.update(made)
        self._identity.remember(self._model, kept)
        self._mapped = mapped + (self._mapped if self._anchored.keys() > set(kept) else [])
        self._tasks += 1
        self._in_loss = False
        self._refresh()

    def _watched(self, attachment: Attachment, last: bool, averaged: bool) -> list[_Removable]:
        """What looks on after each step: whether statistics drift, the dial, and whether the weights move elsewhere."""
        optimizer = attachment.optimizer
        watchers: list[_Removable] = []
        if self._mapped:
            watchers.append(optimizer.register_step_pre_hook(lambda *_: self._whole()))
        if self._anchored and last:
            watchers.append(StatisticsWatch(self._model, optimizer))
        if last and self._dial is not None:
            self._dial.begin(self._model, optimizer)
            watchers.append(optimizer.register_step_post_hook(lambda *_: self._turn()))
        if not averaged:
            watchers.append(WeightsWatch(self._model, attachment))
        return watchers

    @property
    def _chooser(self) -> str:
        """What chooses the strength, as the user gave it."""
        return 'strength="auto"' if self._auto else type(self._dial).__name__

    def _turn(self) -> None:
        if self._dial is not None:
            self._dial.stepped(self)

    def _whole(self) -> None:
        for file in self._mapped:
            file.check()

    def _release(self, attachment: Attachment) -> None:
        steps, applied = self._past.steps + attachment.steps, self._past.applied + attachment.applied
        self._past = replace(self._past, steps=steps, applied=applied)
        attachment.remove()
        del self._attached[attachment]
        for watcher in self._watchers.pop(attachment):
            watcher.remove()
        if self._dial is not None and not self._attached:
            self._dial.end()

    def _compare(self) -> None:
        """Warn if parameters are not the ones that were anchored under their names."""
        if self._anchored and (said := self._identity.compared(self._model, self._anchored)):
            warnings.warn(said, stacklevel=3)

    def _refresh(self) -> None:
        present = self._present()
        for attachment in self._attached:
            attachment.anchored = present

    def _present(self) -> dict[nn.Parameter, AnchoredParameter]:
        """The anchored parameters that the model has now, beside their θ* and Ω; without those that were replaced."""
        self._whole()
        named = _named(self._model)
        present = {}
        for name in self._anchored:
            if name in named and name not in self._identity.replaced:
                self._anchored[name] = self._anchored[name].beside(named[name])
                self._anchored[name].common(named[name])
                present[named[name]] = self._anchored[name]
        return present


def _way(optimizer: Optimizer, how: str) -> type[Pull] | type[Gradient]:
    """How the anchor acts on an optimizer: "auto" pulls where the pull's end is the optimum of the penalized loss."""
    if how != "auto":
        return _HOW[how]
    found = known(optimizer)
    return Gradient if isinstance(found, str) or found.caution else Pull


def _named(model: nn.Module) -> dict[str, nn.Parameter]:
    return named(resharded(model))  # a forward pass leaves FSDP's root gathered, under the same names


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _refuse_stranger(found: Mapping[str, Tensor], whose: str, model: nn.Module) -> None:
    named = _named(model)
    expected = {name: named[name] for name in found if name in named}
    refuse_mismatch(found, expected, whose, "the model")


def _changed(hashes: Mapping[str, str], model: nn.Module) -> str:
    named = _named(model)
    names = [name for name, value in hashes.items() if name in named and value != fingerprint(named[name])]
    return f"{listing(names)} differ{'s' if len(names) == 1 else ''}" if names else ""

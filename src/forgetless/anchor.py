"""`Anchor`: the weights θ* that a model is held to, how much each matters (Ω), and how firmly (λ)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.importance import Importance, refuse_mismatch
from forgetless.parameters import canonical, fingerprint, fingerprints, listing
from forgetless.pull import Hold, Pull, corner


class PerLayer(float):
    """A figure for the whole network that also knows its layers'.

    Attributes:
        per_layer: a module's name → its figure (a parameter that the model itself owns stands under its own name).
    """

    per_layer: dict[str, float]

    def __new__(cls, whole: float, per_layer: dict[str, float]) -> Self:
        """`float(figure)` is `whole`."""
        figure = super().__new__(cls, whole)
        figure.per_layer = per_layer
        return figure


class Anchor:
    """Holds a model to its weights, each as firmly as it matters.

    Eq. 3 of Memory Aware Synapses, `λ Σ Ω (θ − θ*)²` (no ½: its gradient is `2 λ Ω (θ − θ*)`), in one of two forms:
    `attach` pulls after every step of an optimiser and cannot blow up; `penalty()` is a term of the loss. Both lead to
    the same weights.

    Parameters without an importance are free: heads left out of the measurement, parameters added later, new rows and
    columns of one that has grown. Parameters that the model no longer has are skipped.
    """

    def __init__(self, model: nn.Module, importance: Importance | None, strength: float = 1.0) -> None:
        """Anchor `model` at its present weights.

        Args:
            model: the network, as it is to be remembered.
            importance: how much each parameter matters; None while there is nothing to protect.
            strength: λ ≥ 0, on the paper's scale (1 in all its object recognition experiments).

        Raises:
            ForgetlessError: an importance for another model, NaN or Inf in the weights, or a strength that is
                negative or not finite.
        """
        self._model = model
        self._strength = _checked(strength)
        self._weights: dict[str, Tensor] = {}
        self._importance: dict[str, Tensor] = {}
        self._pulls: dict[Pull, int] = {}  # → how often the anchor had been consolidated when it was attached
        self._consolidated = 0
        self._in_loss = False
        if importance is not None:
            self._add(importance)

    @property
    def strength(self) -> float:
        """λ. Setting it takes effect with the next step."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = _checked(value)
        for pull in self._pulls:
            pull.strength = self._strength

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """θ* by parameter name, float32 or wider."""
        return self._weights

    @property
    def importance(self) -> Mapping[str, Tensor]:
        """Ω by parameter name, summed over the tasks so far."""
        return self._importance

    def penalty(self) -> Tensor:
        """`λ Σ Ω (θ − θ*)²`, a differentiable scalar to add to the loss; 0 while there is nothing to protect.

        With a large λ the optimiser's step on it diverges, where the pull does not.

        Raises:
            ForgetlessError: the anchor is attached to an optimiser, and would protect twice.
        """
        if self._pulls:
            raise ForgetlessError(
                "penalty() would protect twice: the anchor is attached to an optimiser; call detach() first."
            )
        self._in_loss = True
        first = next(self._model.parameters(), None)
        total = torch.zeros((), device=None if first is None else first.device)
        for parameter, hold in self._holds().items():
            total = total + hold.distance(parameter).to(total.device)
        return self._strength * total

    def attach(self, optimizer: Optimizer) -> Self:
        """Pull the weights back after every step of `optimizer`, in the form that fits it (`forgetless.forms`).

        Names are resolved now. The hook works on when nobody refers to the anchor any more, and after `consolidate`;
        an optimiser attached to after that takes the parameters it holds over from the earlier one.

        Args:
            optimizer: holds at least one of the anchored parameters.

        Returns:
            The anchor.

        Raises:
            ForgetlessError: attached already, used in the loss already, an optimiser that holds none of the anchored
                parameters, or one for which no pull is known. Nothing is attached then.
        """
        if self._in_loss:
            raise ForgetlessError(
                "attach() would protect twice: penalty() is in the loss already; "
                "use one of the two, or call detach() first."
            )
        if not isinstance(optimizer, Optimizer):
            raise ForgetlessError(f"attach() takes a torch.optim.Optimizer, not {type(optimizer).__name__}.")
        holds = self._holds()
        owned = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        anchored = holds.keys() or set(self._model.parameters())
        if owned.isdisjoint(anchored):
            raise ForgetlessError(
                f"the optimiser holds none of the anchored parameters ({listing(self._names())}); "
                "make it from the parameters of the anchored model."
            )
        rivals = [pull for pull in self._pulls if pull.shares(optimizer)]
        for pull in rivals:
            if self._pulls[pull] == self._consolidated:
                raise ForgetlessError(
                    f"the anchor is attached already to an optimiser ({type(pull.optimizer).__name__}) with these "
                    "parameters; call detach() first."
                )
        attached = Pull(optimizer, holds, self._strength)
        for pull in rivals:
            pull.remove()
            del self._pulls[pull]
        self._pulls[attached] = self._consolidated
        return self

    def detach(self) -> None:
        """Stop pulling; afterwards either form may be used. Without an attachment it changes nothing."""
        for pull in self._pulls:
            pull.remove()
        self._pulls.clear()
        self._in_loss = False

    def consolidate(self, importance: Importance) -> None:
        """End a task: add its mean importance, and hold to the present weights from now on.

        `Ω ← Ω + Ω_task` and `θ* ← θ` for every parameter that matters to this task or an earlier one. Works while
        attached: the next steps pull to the new θ*.

        Raises:
            ForgetlessError: an importance for another model, or NaN or Inf in the weights; nothing has changed then.
        """
        self._add(importance)

    def drift(self) -> PerLayer:
        """How far the weights have moved where it matters: `Σ Ω (θ − θ*)²`, without λ."""
        layers: dict[str, float] = {}
        with torch.no_grad():
            for parameter, hold in self._holds().items():
                layer = _layer(hold.name)
                layers[layer] = layers.get(layer, 0.0) + float(hold.distance(parameter))
        return PerLayer(math.fsum(layers.values()), layers)

    def held(self) -> PerLayer:
        """The share of the anchored weights that the pull effectively stops: s > 1, back by more than half a step.

        Taken at the optimiser's present learning rate and state. Near 1 hardly anything new can be learned; a
        smaller strength leaves more room.

        Raises:
            ForgetlessError: the anchor is not attached, so that there is no s.
        """
        if not self._pulls:
            raise ForgetlessError("held() depends on the optimiser's steps: attach() the anchor first.")
        stopped: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for pull in self._pulls:
            for name, (part, size) in pull.held().items():
                layer = _layer(name)
                stopped[layer] = stopped.get(layer, 0) + part
                sizes[layer] = sizes.get(layer, 0) + size
        whole = sum(stopped.values()) / max(sum(sizes.values()), 1)
        return PerLayer(whole, {layer: stopped[layer] / max(sizes[layer], 1) for layer in sizes})

    def state_dict(self) -> dict[str, Tensor]:
        """λ, θ* and Ω as `strength`, `weights.NAME` and `importance.NAME`; views, not copies."""
        return {
            "strength": torch.tensor(self._strength, dtype=torch.float64),
            **{f"weights.{name}": tensor for name, tensor in self._weights.items()},
            **{f"importance.{name}": tensor for name, tensor in self._importance.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take λ, θ* and Ω from what `state_dict` returned; the model may have grown since. Attachments stay.

        Raises:
            ForgetlessError: a state that is incomplete, damaged or another model's; nothing has changed then.
        """
        strength, weights, importance = _parsed(state)
        named = _named(self._model)
        strangers = [name for name in weights if name not in named]
        if strangers:
            raise ForgetlessError(f"the anchor does not fit the model: it has {listing(strangers)} besides.")
        for name, tensor in weights.items():
            _common(name, named[name], tensor)
        self._weights, self._importance = weights, importance
        self.strength = strength
        self._refresh()

    def save(self, path: str | Path) -> None:
        """Write λ, θ* and Ω to the file `path` (safetensors), whole or not at all."""
        named = _named(self._model)
        present = {name: named[name] for name in self._weights if name in named}
        header = {
            "strength": self._strength,
            "shapes": {name: list(parameter.shape) for name, parameter in present.items()},
            "weights": fingerprints(present),
        }
        files.write_tensors(path, self.state_dict(), "anchor", header)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> Self:
        """Read what `save` wrote, for the same model; warns once if its weights are not those it had then.

        Raises:
            ForgetlessError: the file is missing, cut, damaged or another model's.
        """
        tensors, header = files.read_tensors(path, "anchor")
        shapes, hashes = header.get("shapes"), header.get("weights")
        if not isinstance(shapes, dict) or not isinstance(hashes, dict):
            raise ForgetlessError(f"{path} is damaged: its header lacks the shapes or the weights' hashes.")
        found = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        _refuse_stranger(found, f"the anchor in {path}", model)
        anchor = cls(model, None)
        anchor.load_state_dict(tensors)
        changed = _changed(hashes, model)
        if changed:
            warnings.warn(f"{path} was saved at other weights than the model has now: {changed}.", stacklevel=2)
        return anchor

    def _add(self, importance: Importance) -> None:
        if not isinstance(importance, Importance):
            raise ForgetlessError(f"an importance is what forgetless.mas returns, not {type(importance).__name__}.")
        _refuse_stranger(importance.sums, "the importance", self._model)
        named = _named(self._model)
        kept = [name for name in {**self._importance, **importance.sums} if name in named]
        for name in kept:
            if not bool(torch.isfinite(named[name]).all()):
                raise ForgetlessError(f"{name!r} holds NaN or Inf: weights like that cannot be held to.")
        changed = _changed(importance.weights, self._model)
        holds = {hold.name: hold for hold in self._holds().values()}
        if changed:
            warnings.warn(
                f"the importance was measured at other weights than the model has now: {changed}; "
                "measure it again unless that is meant.",
                stacklevel=3,
            )
        for name in kept:
            weights = named[name].detach()
            weights = weights.to(torch.promote_types(weights.dtype, torch.float32), copy=True)
            total = torch.zeros_like(weights)
            if name in holds:
                shape = holds[name].shape
                corner(total, shape).copy_(corner(holds[name].importance, shape))
            if name in importance.sums:
                total += importance.sums[name].to(total) / importance.count
            self._weights[name], self._importance[name] = weights, total
        self._consolidated += 1
        self._in_loss = False
        self._refresh()

    def _refresh(self) -> None:
        holds = self._holds()
        for pull in self._pulls:
            pull.holds = holds

    def _holds(self) -> dict[nn.Parameter, Hold]:
        """The anchors of the parameters that the model has now, on their devices."""
        named = _named(self._model)
        holds = {}
        for name in self._weights:
            if name in named:
                parameter = named[name]
                shape = _common(name, parameter, self._weights[name])
                self._weights[name] = self._weights[name].to(parameter.device)
                self._importance[name] = self._importance[name].to(parameter.device)
                holds[parameter] = Hold(name, self._weights[name], self._importance[name], shape)
        return holds

    def _names(self) -> list[str]:
        return list(self._weights or _named(self._model))


def _named(model: nn.Module) -> dict[str, nn.Parameter]:
    return {canonical(name): parameter for name, parameter in model.named_parameters()}


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _checked(strength: float) -> float:
    try:
        value = float(strength)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ForgetlessError(f"the strength must be a finite number of 0 or more, not {strength!r}.")
    return value


def _common(name: str, parameter: Tensor, anchored: Tensor) -> tuple[int, ...]:
    if parameter.dim() != anchored.dim():
        raise ForgetlessError(
            f"{name!r} has shape {tuple(parameter.shape)} and was anchored with {tuple(anchored.shape)}: "
            "it is not the same parameter."
        )
    return tuple(map(min, parameter.shape, anchored.shape))


def _refuse_stranger(found: Mapping[str, Tensor], whose: str, model: nn.Module) -> None:
    named = _named(model)
    expected = {name: named[name] for name in found if name in named}
    refuse_mismatch(found, expected, whose, "the model")


def _changed(hashes: Mapping[str, str], model: nn.Module) -> str:
    named = _named(model)
    names = [name for name, value in hashes.items() if name in named and value != fingerprint(named[name])]
    return f"{listing(names)} differ{'s' if len(names) == 1 else ''}" if names else ""


def _parsed(state: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    if "strength" not in state:
        raise ForgetlessError("the anchor's state lacks its 'strength'.")
    parts: dict[str, dict[str, Tensor]] = {"strength": {}, "weights": {}, "importance": {}}
    for key, tensor in state.items():
        kind, _, name = key.partition(".")
        if kind not in parts:
            raise ForgetlessError(f"the anchor's state holds {key!r}, which is no part of one.")
        parts[kind][name] = tensor
    weights, importance = parts["weights"], parts["importance"]
    refuse_mismatch(importance, weights, "the importance in the anchor's state", "its weights")
    for name in weights:
        if not bool((torch.isfinite(weights[name]) & torch.isfinite(importance[name])).all()):
            raise ForgetlessError(f"the anchor's state holds NaN or Inf for {name!r}.")
        if bool((importance[name] < 0).any()):
            raise ForgetlessError(f"the anchor's state holds a negative importance for {name!r}.")
    return _checked(float(state["strength"])), weights, importance

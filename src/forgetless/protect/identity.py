"""Whether a model's parameters are still those that were anchored under their names."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from forgetless.model.parameters import canonical, listing, named
from forgetless.model.sharding import is_sharded
from forgetless.protect.anchored_parameter import AnchoredParameter, computed

_ANOTHER = 0.5  # of ‖θ*‖: a new tensor this far from it is no trained copy of the old one


class Identity:
    """Remembers which tensors were anchored, and compares them with those that the model has now.

    A tensor that was exchanged for a copy of itself, or for a trained or grown one, is the same parameter. One with
    other values under the old name, a new head say, is left free, for as long as it is there.

    Attributes:
        replaced: names of parameters that are free because other tensors than the anchored ones bear them now.
    """

    def __init__(self) -> None:
        self.replaced: frozenset[str] = frozenset()
        self._tensors: dict[str, weakref.ref[nn.Parameter]] = {}
        self._shared: dict[str, frozenset[str]] = {}
        self._told: set[str] = set()

    def remember(self, model: nn.Module, names: Iterable[str]) -> None:
        """Take note of the tensors that the model has under `names` now, and of all names that each of them has."""
        found = _every(model)
        self._tensors = {name: weakref.ref(found[name]) for name in names if name in found}
        self._shared = _shared(found)
        self.replaced = frozenset()

    def compared(self, model: nn.Module, anchored: Mapping[str, AnchoredParameter]) -> str:
        """One sentence for everything that is another tensor than it was, or ""; each finding is told once."""
        found = _every(model)
        self.replaced = frozenset(self._replaced(found, anchored))
        findings = {
            "new tensors, unlike those anchored, and are free; consolidate() with an importance of the model as it is "
            "to protect them": self.replaced,
            "no longer the same tensor as an anchored parameter, and are free": self._untied(found, anchored),
            "the same tensor as another anchored parameter now, and protected by its θ* and Ω only": self._tied(
                found, anchored
            ),
            "what anchored parameters of other names were, and are free; give them their old names": self._renamed(
                found, anchored
            ),
        }
        parts = []
        for text, names in findings.items():
            if fresh := sorted(name for name in names if f"{text}{name}" not in self._told):
                self._told |= {f"{text}{name}" for name in fresh}
                parts.append(f"{listing(fresh)} are {text}")
        return f"the model has changed since it was anchored: {'; '.join(parts)}." if parts else ""

    def _replaced(self, found: Mapping[str, nn.Parameter], anchored: Mapping[str, AnchoredParameter]) -> set[str]:
        layers: dict[str, list[str]] = {}
        for name, was in self._tensors.items():
            if name in found and name in anchored and was() is not found[name]:
                layers.setdefault(name.rpartition(".")[0], []).append(name)
        replaced = set()
        for names in layers.values():
            sums = [_distance(found[name], anchored[name]) for name in names]
            if sum(away for away, _ in sums) > _ANOTHER**2 * sum(size for _, size in sums):
                replaced |= set(names)
        return replaced

    def _untied(self, found: Mapping[str, nn.Parameter], anchored: Mapping[str, AnchoredParameter]) -> set[str]:
        now = _shared(found)
        return {
            name
            for name, group in self._shared.items()
            if name in found and name not in anchored and group & anchored.keys() and not group <= now[name]
            if not any(other in now[name] for other in group & anchored.keys())
        }

    def _tied(self, found: Mapping[str, nn.Parameter], anchored: Mapping[str, AnchoredParameter]) -> set[str]:
        first: dict[int, str] = {}
        for name, parameter in found.items():
            first.setdefault(id(parameter), name)
        return {
            name
            for name in anchored
            if name in found and (leading := first[id(found[name])]) != name and leading in anchored
        }

    def _renamed(self, found: Mapping[str, nn.Parameter], anchored: Mapping[str, AnchoredParameter]) -> set[str]:
        missing = [each for name, each in anchored.items() if name not in found]
        strangers = [name for name in found if name not in anchored and name not in self._shared] if missing else []
        return {
            name
            for name in strangers
            if any(found[name].shape == each.weights.shape and _equal(found[name], each) for each in missing)
        }


def _every(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by all of their names; of each tensor the first one is the name that `named` gives it."""
    every = {canonical(name): parameter for name, parameter in model.named_parameters(remove_duplicate=False)}
    return {**named(model), **every}


def _shared(found: Mapping[str, nn.Parameter]) -> dict[str, frozenset[str]]:
    names: dict[int, set[str]] = {}
    for name, parameter in found.items():
        names.setdefault(id(parameter), set()).add(name)
    return {name: frozenset(names[id(parameter)]) for name, parameter in found.items()}


@torch.no_grad()
def _distance(parameter: Tensor, anchored: AnchoredParameter) -> tuple[float, float]:
    """`‖θ − θ*‖²` and `‖θ*‖²` over what the two have in common."""
    comparable = parameter.dim() == anchored.weights.dim() and is_sharded(parameter) == is_sharded(anchored.weights)
    if not comparable:
        return 0.0, 1.0  # refused elsewhere, by name
    theta, target, *_ = anchored.meet(parameter.detach())
    target = target.to(theta.device, computed(theta, target))
    return float((theta - target).square().sum()), float(target.square().sum())


@torch.no_grad()
def _equal(parameter: Tensor, anchored: AnchoredParameter) -> bool:
    if is_sharded(parameter) or is_sharded(anchored.weights):
        return False
    weights, dtype = anchored.weights, computed(parameter, anchored.weights)
    return torch.equal(parameter.detach().to(weights.device, dtype), weights.to(dtype))

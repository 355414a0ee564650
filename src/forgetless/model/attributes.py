"""What modules keep besides parameters and buffers, such as a hidden state: noted, and put back."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

_OWN = frozenset(vars(nn.Module())) - {"_parameters", "_modules"}  # what torch keeps there for itself
_CONTAINERS = (list, dict, set, OrderedDict, defaultdict)
_MOST = 10_000  # entries of a container that is still looked into


class Attributes:
    """The attributes of modules, to be put back.

    Lists, dicts and sets are looked into, one level deep.

    Args:
        modules: whose attributes.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._found = [(vars(module), dict(vars(module))) for module in modules]
        self._inside: list[tuple[Any, Any]] = []
        for _, before in self._found:
            for name, value in before.items():
                if name not in _OWN and type(value) in _CONTAINERS and len(value) <= _MOST:
                    self._inside.append((value, value.copy()))
        self._keeping: list[tuple[dict[str, Any], dict[str, Any]]] | None = None
        self._filled: list[tuple[Any, Any]] = []

    def tensors(self) -> Iterator[Tensor]:
        """The tensors among them."""
        for _, before in self._found:
            yield from (value for value in before.values() if isinstance(value, Tensor))
        for _, before in self._inside:
            values = before.values() if isinstance(before, dict) else before
            yield from (value for value in values if isinstance(value, Tensor))

    def usable(self) -> None:
        """Tensors made in inference mode are replaced by copies that autograd can save."""
        for now, before in self._found:
            for name, value in before.items():
                if isinstance(value, Tensor) and value.is_inference():
                    now[name] = value.clone()

    def forget_state(self) -> None:
        """Put back the attributes that hold tensors: what a forward pass keeps for the next one.

        Which modules have such a state is learned the first time.
        """
        if self._keeping is None:
            self._keeping = [(now, before) for now, before in self._found if any(_states(now, before))]
            self._filled = [(now, before) for now, before in self._inside if not _same(now, before)]
        for now, before in self._keeping:
            for name in list(_states(now, before)):
                if name in before:
                    now[name] = before[name]
                else:
                    del now[name]
        for container, before in self._filled:
            values = container.values() if isinstance(container, dict) else container
            if any(isinstance(value, Tensor) for value in values):
                _refill(container, before)

    def put_back(self) -> None:
        """All of them."""
        for now, before in self._found:
            if now.keys() != before.keys() or any(now[name] is not value for name, value in before.items()):
                for name in now.keys() - before.keys() - _OWN:
                    del now[name]
                now.update({name: value for name, value in before.items() if name not in _OWN})
        for container, before in self._inside:
            if not _same(container, before):
                _refill(container, before)


def _states(now: dict[str, Any], before: dict[str, Any]) -> Iterator[str]:
    """Names of attributes that hold other tensors than before."""
    for name, value in now.items():
        if name in _OWN or name in ("_parameters", "_modules"):
            continue
        known = before.get(name)
        if value is not known and (_holds(value) or _holds(known)) and not _copied(value, known):
            yield name


def _copied(value: Any, known: Any) -> bool:
    """Whether it is the usable copy of a tensor from inference mode."""
    return isinstance(known, Tensor) and known.is_inference() and isinstance(value, Tensor) and value.is_leaf


def _holds(value: Any) -> bool:
    if isinstance(value, Tensor):
        return True
    return isinstance(value, (list, tuple)) and len(value) < 100 and any(isinstance(each, Tensor) for each in value)


def _same(container: Any, before: Any) -> bool:
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        return all(container.get(key, _OWN) is value for key, value in before.items())
    if isinstance(container, set):
        return bool(container == before)
    return all(a is b for a, b in zip(container, before, strict=True))


def _refill(container: Any, before: Any) -> None:
    container.clear()
    container.extend(before) if isinstance(container, list) else container.update(before)

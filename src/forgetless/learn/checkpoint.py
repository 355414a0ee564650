"""Checkpoints of a run: named tensors and a position in one file, tied to the run that wrote them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless import files
from forgetless.errors import ForgetlessError, quoted
from forgetless.learn.network import Network
from forgetless.learn.samples import samples_of
from forgetless.learn.task import Task
from forgetless.model.parameters import fingerprint

Config = dict[str, str | int | float | bool | None]
Parts = dict[str, dict[str, Tensor]]

_SHORT = 76  # characters of a value that are shown from its beginning


@runtime_checkable
class Described(Protocol):
    """What says by its settings what it is: a recipe, or an online learner's budget."""

    def settings(self) -> Config:
        """What defines it."""


@runtime_checkable
class Named(Described, Protocol):
    """A method or an online learner."""

    @property
    def name(self) -> str:
        """What it is called."""


def config(model: Network, tasks: Sequence[Task], method: Named, recipe: Described, seed: int) -> Config:
    """Everything that defines a run, flat: two runs with the same give bit-identical results."""
    state = model.state_dict()
    weights = hashlib.sha256("".join(f"{name}{fingerprint(state[name])}" for name in state).encode())
    return {
        "method": method.name,
        **{f"{method.name}'s {name}": value for name, value in method.settings().items()},
        "seed": seed,
        **{f"the recipe's {name}": value for name, value in recipe.settings().items()},
        **{f"task {number}": _described(task) for number, task in enumerate(tasks, 1)},
        "the network at the start": weights.hexdigest()[:16],
        **model.settings(),
    }


def _described(task: Task) -> str:
    """A task on one line: its name, its samples and its objective."""
    samples = "/".join(samples_of(data).fingerprint() for data in (task.train, task.test))
    settings = ", ".join(f"{name}={value}" for name, value in task.objective.settings().items())
    return f"{task.name} {samples} {type(task.objective).__name__}({settings})"


def write(path: Path, config: Config, position: Mapping[str, Any], parts: Parts) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        config: everything that defines the run, flat; reading asks for the same.
        position: where the run is; anything JSON can hold.
        parts: "model", "optimizer", … → name → tensor.
    """
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    files.write_tensors(path, tensors, "checkpoint", {"config": config, "position": dict(position)})


def read(path: Path, config: Config) -> tuple[object, Parts]:
    """Read back the position and the parts that `write` wrote for the same `config`.

    Raises:
        ForgetlessError: the file is damaged, or belongs to another run (naming what differs).
    """
    tensors, header = files.read_tensors(path, "checkpoint")
    found, position = header.get("config"), header.get("position")
    if not isinstance(found, dict) or not isinstance(position, dict):
        raise ForgetlessError(f"{path} is damaged: its header lacks the configuration or the position.")
    both = {key: (found.get(key, "absent"), config.get(key, "absent")) for key in {**found, **config}}
    differences = [
        "{} is {} there and {} here".format(quoted(key)[1:-1], *_from_where_they_differ(*values))
        for key, values in both.items()
        if values[0] != values[1]
    ]
    if differences:
        shown = "; ".join(differences[:6])
        raise ForgetlessError(
            f"{path} is the checkpoint of another run: {shown}; remove it to start over, or name another."
        )
    parts: Parts = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    return position, parts


def _from_where_they_differ(there: object, here: object) -> tuple[str, str]:
    """Both values quoted; long strings from shortly before the first character that is not the same."""
    if isinstance(there, str) and isinstance(here, str) and max(len(there), len(here)) > _SHORT:
        pairs = enumerate(zip(there, here, strict=False))
        alike = next((place for place, (one, other) in pairs if one != other), min(len(there), len(here)))
        if (start := alike - _SHORT // 4) > 0:
            there, here = f"…{there[start:]}", f"…{here[start:]}"
    return quoted(there), quoted(here)


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `"{parameter's index}/{key}"` → tensor (momentum, moments, step counts).

    Raises:
        ForgetlessError: a part of it is not a tensor, and a checkpoint holds tensors only.
    """
    found: dict[str, Tensor] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if value is not None and not isinstance(value, torch.Tensor):
                raise ForgetlessError(
                    f"{type(optimizer).__name__} keeps {key!r} as a {type(value).__name__}, and a checkpoint holds "
                    "tensors only; learn without a checkpoint file, or take another optimizer."
                )
            if value is not None:
                found[f"{index}/{key}"] = value
    return found


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer over the same parameters the state that `optimizer_state` took.

    Raises:
        ForgetlessError: it is of other parameters.
    """
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries(optimizer, tensors)})


def entries(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The entries of each parameter by its index, from what `optimizer_state` took; the optimizer stays as it is.

    Raises:
        ForgetlessError: they are of other parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        if not (index.isascii() and index.isdecimal() and int(index) < count and key):
            raise ForgetlessError(
                f"the optimizer's state names {quoted(name)}, which is of none of its {count} parameters."
            )
        state.setdefault(int(index), {})[key] = tensor
    return state

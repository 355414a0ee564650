"""Where a run was, on disk: named tensors and a position, tied to the run that wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from forgetless import files
from forgetless.errors import ForgetlessError

Config = dict[str, str | int | float | bool | None]
Parts = dict[str, dict[str, Tensor]]


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


def read(path: Path, config: Config) -> tuple[dict[str, Any], Parts]:
    """Read back the position and the parts that `write` wrote for the same `config`.

    Raises:
        ForgetlessError: the file is damaged, or belongs to another run (naming what differs).
    """
    tensors, header = files.read_tensors(path, "checkpoint")
    found, position = header.get("config"), header.get("position")
    if not isinstance(found, dict) or not isinstance(position, dict):
        raise ForgetlessError(f"{path} is damaged: its header lacks the configuration or the position.")
    differences = [
        f"{key} is {found.get(key, 'absent')!r} there and {config.get(key, 'absent')!r} here"
        for key in {**found, **config}
        if found.get(key, "absent") != config.get(key, "absent")
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


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `"{parameter's index}/{key}"` → tensor (momentum, moments, step counts)."""
    return {
        f"{index}/{key}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
        if value is not None
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer over the same parameters the state that `optimizer_state` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

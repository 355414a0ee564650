"""A model's checkpoint on disk, read tensor by tensor: a folder as the Hub lays it out, or its safetensors file."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError, quoted
from forgetless.model.parameters import listing

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin", "model.pt", "model.pth")
_CONFIG = "config.json"
_BESIDE = frozenset({".json", ".txt", ".model", ".jinja", ".py", ".tiktoken", ".bpe"})
_NOT_BESIDE = ("model.safetensors", "pytorch_model", "trainer_state", "adapter_", ".")
_START = 4096  # bytes


class Stored(ABC):
    """What is read tensor by tensor: a checkpoint, or a base with an adapter."""

    path: Path
    layout: dict[str, files.Layout]
    config: dict[str, Any]

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """One tensor, in memory of its own."""

    @abstractmethod
    def start(self, name: str) -> bytes:
        """The first bytes of what decides a tensor: where they differ, the tensors do."""

    @abstractmethod
    def beside(self) -> dict[str, Path]:
        """Name → file, for what a copy needs beside the tensors."""

    @abstractmethod
    def mark(self) -> str:
        """What tells it from others."""


class Checkpoint(Stored):
    """The tensors of a checkpoint, one at a time, and the files that stand beside them.

    Args:
        path: a folder with `model.safetensors` or its index, or one of these files.

    Attributes:
        path: as given.
        layout: tensor → type and shape, in the order of the files.
        config: the content of `config.json`; empty where there is none.

    Raises:
        ForgetlessError: there is no such checkpoint, it is pickled, or a file is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if (self.path / "adapter_config.json").exists() and not (self.path / _CONFIG).exists():
            raise ForgetlessError(f"{self.path} is an adapter; name the folder of its base model first.")
        folder = self.path if self.path.is_dir() else self.path.parent
        _refuse_pickles(self.path)
        self._foreign = files.Foreign(self.path)
        self.layout = self._foreign.layout()
        self._folder = folder if self.path.is_dir() or self.path.name.startswith("model.safetensors") else None
        config = files.read_json(folder / _CONFIG) if self._folder and (folder / _CONFIG).exists() else {}
        self.config: dict[str, Any] = config if isinstance(config, dict) else {}

    def tensor(self, name: str) -> Tensor:
        """One tensor, in memory of its own.

        Raises:
            ForgetlessError: it cannot be read, or holds NaN or Inf.
        """
        found = self._foreign.read(name)
        if found.is_floating_point() and not finite(found):
            raise ForgetlessError(f"{quoted(name)} in {self.path} holds NaN or Inf; edit a checkpoint that is finite.")
        return found

    def beside(self) -> dict[str, Path]:
        """Name → file, for what a copy of the checkpoint needs beside its tensors: configuration, tokenizer, code."""
        if self._folder is None:
            return {}
        return {
            each.name: each
            for each in sorted(self._folder.iterdir())
            if each.is_file()  # also behind a link: the Hub's cache has nothing else
            and (each.suffix in _BESIDE or each.name.startswith(("LICENSE", "NOTICE")))
            and not each.name.startswith(_NOT_BESIDE)
        }

    def start(self, name: str) -> bytes:
        """The first bytes of a tensor: where they differ, the tensors do."""
        return self._foreign.start(name, _START)

    def mark(self) -> str:
        """What tells this checkpoint from others: its files' sizes and times, and the layout of its tensors."""
        found = sorted({path.resolve() for path in self._foreign.names.values()})
        times = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found]
        return f"{self.path.resolve()} {times}"


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or Inf."""
    return not tensor.numel() or all(math.isfinite(float(each)) for each in torch.aminmax(tensor))


def _refuse_pickles(path: Path) -> None:
    pickled = path if path.suffix in (".bin", ".pt", ".pth", ".ckpt") else None
    if path.is_dir() and not any((path / name).exists() for name in (files.ONE, files.INDEX)):
        pickled = next((path / name for name in _PICKLES if (path / name).exists()), None)
    if pickled is not None:
        raise ForgetlessError(
            f"{pickled} is a pickle, which can run code when it is read; load the model where you trust it and save it "
            "with model.save_pretrained(folder, safe_serialization=True)."
        )


def refuse_other_architecture(checkpoint: Stored, other: Stored) -> None:
    """Two checkpoints of one network have one kind of model, and the same shapes where they have the same names.

    Raises:
        ForgetlessError: what differs, by name.
    """
    kinds = [each.config.get("model_type") for each in (checkpoint, other)]
    if all(kinds) and kinds[0] != kinds[1]:
        raise ForgetlessError(
            f"{checkpoint.path} and {other.path} are of different architectures: "
            f"{quoted(kinds[0])} and {quoted(kinds[1])}."
        )
    common = [name for name in checkpoint.layout if name in other.layout]
    if not common:
        raise ForgetlessError(f"{checkpoint.path} and {other.path} have no tensor of the same name.")
    shapes = [name for name in common if checkpoint.layout[name].shape != other.layout[name].shape]
    if shapes:
        first = shapes[0]
        raise ForgetlessError(
            f"{checkpoint.path} and {other.path} are of different architectures: {listing(shapes)} have other shapes, "
            f"such as {checkpoint.layout[first].shape} and {other.layout[first].shape}."
        )


def tied(*checkpoints: Stored) -> dict[str, str]:
    """Name → an earlier name that has the same bytes in every checkpoint: a shared parameter that is stored twice.

    Only matrices are compared: two of a network are equal by nothing but sharing, or equal for good if they are zero.
    """
    first, *_ = checkpoints
    alike: dict[object, list[str]] = {}
    for name, layout in first.layout.items():
        if len(layout.shape) > 1 and all(each.layout.get(name) is not None for each in checkpoints):
            key = (layout, *(each.start(name) for each in checkpoints))
            alike.setdefault(key, []).append(name)
    found: dict[str, str] = {}
    for names in alike.values():
        for number, name in enumerate(names):
            for earlier in names[:number]:
                if earlier not in found and all(
                    torch.equal(each.tensor(name), each.tensor(earlier)) for each in checkpoints
                ):
                    found[name] = earlier
                    break
    return found

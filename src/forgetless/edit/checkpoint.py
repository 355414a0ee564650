"""A model's checkpoint on disk, read tensor by tensor: a folder as the Hub lays it out, or its safetensors file."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.edit.blocks import Parts
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.model.parameters import listing

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_OF_A_TRAINING = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
#: Keys of a configuration that change what the same weights compute.
_SHAPING = (
    "num_attention_heads",
    "num_key_value_heads",
    "num_heads",
    "n_head",
    "head_dim",
    "hidden_act",
    "activation_function",
)
_CONFIG = "config.json"
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\.safetensors")
#: What a copy does not need, by suffix and by the beginning of a name: other weights, a training's state, our reports.
_WEIGHTS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".npz", ".ot"}
)
_NOT_BESIDE = (
    ".",
    "README",
    "adapter_",
    "checkpoint-",
    "forgetless_",
    "logs",
    "runs",
    "trainer_state",
    "training_args",
)
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
    def parts(self, name: str) -> Parts:
        """One tensor, read in parts."""

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
        if not os.path.lexists(self.path):
            raise ForgetlessError(
                f"there is no {self.path}; name a folder or a .safetensors file on this machine. What is on the Hub "
                "must be downloaded first."
            )
        if self.path.name.startswith("adapter_model."):
            raise ForgetlessError(f"{self.path} is the file of an adapter; name its folder, and its base model.")
        folder = self.path if self.path.is_dir() else self.path.parent
        _refuse_pickles(self.path)
        if _SHARD.fullmatch(self.path.name) and self.path.is_file():
            raise ForgetlessError(f"{self.path} is one of several files of a model; name their folder.")
        self._foreign = files.Foreign(self.path)
        self.layout = self._foreign.layout()
        self._folder = folder if self.path.is_dir() or self.path.name.startswith("model.safetensors") else None
        self.config = _config(folder / _CONFIG) if self._folder and (folder / _CONFIG).exists() else {}
        if self.config.get("quantization_config"):
            raise ForgetlessError(
                f"{self.path} is quantized, so that its tensors are not its weights; edit the model it was made from."
            )

    def tensor(self, name: str) -> Tensor:
        """One tensor, in memory of its own.

        Raises:
            ForgetlessError: it cannot be read, or holds NaN or Inf.
        """
        return self._finite(name, self._foreign.read(name))

    def parts(self, name: str) -> Parts:
        """One tensor, read in parts, which raises as `tensor` does."""
        return lambda at: self._finite(name, self._foreign.read(name, at))

    def _finite(self, name: str, found: Tensor) -> Tensor:
        if found.is_floating_point() and not finite(found):
            raise ForgetlessError(f"{quoted(name)} in {self.path} holds NaN or Inf; edit a checkpoint that is finite.")
        return found

    def beside(self) -> dict[str, Path]:
        """Name → file, for what a copy of the checkpoint needs beside its tensors: configuration, tokenizer, code."""
        if self._folder is None:
            return {}
        return {
            path.relative_to(self._folder).as_posix(): path
            for each in sorted(self._folder.iterdir())
            if not each.name.startswith(_NOT_BESIDE) and not each.name.endswith(".partial")
            if not any(each.glob("forgetless_*.json"))  # a result that was written into this folder
            for path in ([each] if each.is_file() else sorted(each.iterdir()) if each.is_dir() else [])
            if path.is_file()  # also behind a link: the Hub's cache has nothing else
            and path.suffix not in _WEIGHTS
            and not path.name.startswith(_NOT_BESIDE)
            and not path.name.endswith((".index.json", ".partial"))
        }

    def start(self, name: str) -> bytes:
        """The first bytes of a tensor: where they differ, the tensors do."""
        return self._foreign.start(name, _START)

    def mark(self) -> str:
        """What tells this checkpoint from others: its files' sizes and times, and how each tensor begins."""
        times = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.files()]
        starts = hashlib.sha256(b"".join(self.start(name) for name in self.layout)).hexdigest()[:16]
        return f"{self.path.resolve()} {times} {starts}"

    def files(self) -> list[Path]:
        """The files that its tensors are in, after every link is followed."""
        return sorted({path.resolve() for path in self._foreign.names.values()})


def _config(path: Path) -> dict[str, Any]:
    """A model's configuration; as other libraries write it, with Infinity."""
    try:
        found = json.loads(files.read_bytes(path))
    except RecursionError as error:
        raise ForgetlessError(f"{path} cannot be read as JSON: it nests too deeply.") from error
    except ValueError as error:
        if isinstance(error, ForgetlessError):
            raise
        raise ForgetlessError(f"{path} cannot be read as JSON: {brief(error)}.") from error
    return found if isinstance(found, dict) else {}


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or Inf."""
    return not tensor.numel() or all(math.isfinite(float(each)) for each in torch.aminmax(tensor.detach()))


def _refuse_pickles(path: Path) -> None:
    pickled = path if path.suffix in _PICKLED and not path.is_dir() else None
    if path.is_dir() and not any(path.glob("*.safetensors")) and not (path / files.INDEX).exists():
        pickles = [each for each in path.iterdir() if each.suffix in _PICKLED]
        pickled = min((each for each in pickles if not each.name.startswith(_OF_A_TRAINING)), default=None)
    if pickled is not None:
        raise ForgetlessError(
            f"{pickled} is a pickle, which can run code when it is read; load the model where you trust it and save it "
            "with model.save_pretrained(folder, safe_serialization=True)."
        )


def differing(config: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Where two configurations make different networks of the same shapes: "'n_head' is 2 and 4"; None where not."""
    for key in config.keys() & other.keys():
        if isinstance(config[key], dict) and isinstance(other[key], dict):  # one for text, one for pictures
            if (inner := differing(config[key], other[key])) is not None:
                return inner
        elif key in _SHAPING and None not in (config[key], other[key]) and config[key] != other[key]:
            return f"{quoted(key)} is {quoted(config[key])} and {quoted(other[key])}"
    return None


def refuse_other_architecture(checkpoint: Stored, other: Stored) -> None:
    """Two checkpoints of one network have one kind of model, and tensors of the same shapes under the same names.

    Raises:
        ForgetlessError: what differs, by name.
    """
    kinds = [each.config.get("model_type") for each in (checkpoint, other)]
    what = f"{quoted(kinds[0])} and {quoted(kinds[1])}" if all(kinds) and kinds[0] != kinds[1] else None
    if what := what or differing(checkpoint.config, other.config):
        raise ForgetlessError(f"{checkpoint.path} and {other.path} are of different architectures: {what}.")
    refuse_other_tensors(str(checkpoint.path), checkpoint.layout, str(other.path), other.layout)


def refuse_other_tensors(
    first: str, layout: Mapping[str, files.Layout], second: str, other: Mapping[str, files.Layout]
) -> None:
    """Refuse two models that have no name in common, or tensors of other shapes or kinds of numbers under one.

    Args:
        first: what to call the one.
        layout: its tensors.
        second: what to call the other.
        other: its tensors.

    Raises:
        ForgetlessError: what differs, by name.
    """
    common = [name for name in layout if name in other]
    if not common:
        raise ForgetlessError(
            f"{first} and {second} have no tensor of the same name: one has {listing(layout, 3)}, the other "
            f"{listing(other, 3)}."
        )
    if shapes := [name for name in common if layout[name].shape != other[name].shape]:
        raise ForgetlessError(
            f"{first} and {second} are of different architectures: the shapes of {listing(shapes)} differ, such as "
            f"{layout[shapes[0]].shape} and {other[shapes[0]].shape}."
        )
    for name in common:
        types = [each[name].dtype for each in (layout, other)]
        if types[0].is_floating_point != types[1].is_floating_point:
            called = " and ".join(str(each).removeprefix("torch.") for each in types)
            raise ForgetlessError(f"{first} and {second} are of different architectures: {quoted(name)} is {called}.")


def tied(like: Stored, *others: Stored, first: Collection[str] = ()) -> dict[str, str]:
    """Name → another name that stands for the same parameter, which is stored twice in `like`.

    That they share is told by equal bytes in `like`, and in every other checkpoint that has both. Only matrices are
    compared: two of a network are equal by nothing but sharing, or equal for good if they are zero.

    Args:
        like: whose names they are.
        others: the other checkpoints.
        first: names that stand for the others, where one of a group is among them, such as those that have Ω.
    """
    alike: dict[object, list[str]] = {}
    for name, layout in like.layout.items():
        if len(layout.shape) > 1:
            alike.setdefault((layout, like.start(name)), []).append(name)
    found: dict[str, str] = {}
    for names in alike.values():
        best = sorted(names, key=lambda name: (name not in first, any(name not in each.layout for each in others)))
        for number, name in enumerate(best):
            for earlier in best[:number]:
                if earlier not in found and all(_equal(each, name, earlier) for each in (like, *others)):
                    found[name] = earlier
                    break
    return found


def _equal(stored: Stored, name: str, other: str) -> bool:
    if name not in stored.layout or other not in stored.layout:
        return True  # stored once there
    return stored.start(name) == stored.start(other) and torch.equal(stored.tensor(name), stored.tensor(other))

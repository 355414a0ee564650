"""MODEL, `--weights`, `--data` and `--output`, the same for every command: networks by the function that makes them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetless.errors import ForgetlessError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.lab.datasets.reading.unlabeled import Unlabeled

TORCHVISION = "torchvision"

Model = Annotated[
    str, typer.Argument(help="package.module:function that makes it, or torchvision:NAME.", show_default=False)
]
Weights = Annotated[
    Path | None, typer.Option(help="Its weights, a .safetensors file. [default: as the function makes it]")
]
Output = Annotated[
    str | None, typer.Option(help="Which of its outputs to measure, by name. [default: the logits, or the only one]")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Parameters to leave out: a name, a module or a pattern; repeat it.")
]
Size = Annotated[int, typer.Option(min=1, help="Pixels per side of pictures.")]
#: What `--data` takes.
SAMPLES = (
    "a folder of pictures (of an image dataset, its training pictures), a .parquet file with pictures, a .jsonl file "
    "with text or input_ids, a .npy file, or a .safetensors file with one tensor or with the model's keywords"
)


def load_model(name: str, weights: Path | None, random: bool = False) -> nn.Module:
    """The network that `package.module:function` or `torchvision:NAME` makes, with the weights of a file.

    Args:
        name: what makes it.
        weights: a safetensors file.
        random: whether random weights will do, where no file is given.

    Raises:
        ForgetlessError: no such model, it cannot be made, or the file is of another.
    """
    from torch import nn

    module, _, function = name.partition(":")
    if not module or not function:
        raise ForgetlessError(f"{name!r} names no model; write package.module:function or torchvision:NAME.")
    if module == TORCHVISION and weights is None and not random:
        raise ForgetlessError(f"{name} has random weights until you name a file with --weights.")
    try:
        network = _torchvision_model(function) if module == TORCHVISION else _made_by(module, function)
    except ForgetlessError:
        raise
    except Exception as error:
        raise ForgetlessError(f"{name} could not be made: {type(error).__name__}: {error}.") from error
    if not isinstance(network, nn.Module):
        raise ForgetlessError(f"{name} gives a {type(network).__name__}, not a torch.nn.Module.")
    if weights is not None:
        _load_weights(network, weights)
    return network


def _made_by(module: str, function: str) -> Any:
    return _found(module, function)()


def _found(module: str, function: str) -> Any:
    """A function by the name of its module and its own."""
    # As `python -m` does: a script installed elsewhere does not look in the current folder by itself.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise ForgetlessError(f"the module {module!r} cannot be imported: {error}.") from error
    if not callable(made):
        raise ForgetlessError(f"the module {module!r} has no function {function!r}.")
    return made


def _torchvision_model(name: str) -> Any:
    from forgetless.model.parameters import listing

    try:
        from torchvision import models
    except ImportError as error:
        raise ForgetlessError("torchvision is not installed: pip install 'forgetless[vision]'.") from error
    if name not in models.list_models():
        close = [other for other in models.list_models() if other.startswith(name[:3])] or models.list_models()
        raise ForgetlessError(f"torchvision has no model {name!r}; it has {listing(close)}.")
    return models.get_model(name, weights=None)


def _load_weights(network: nn.Module, path: Path) -> None:
    from safetensors.torch import load_model

    from forgetless.model.parameters import listing

    try:
        missing, unexpected = load_model(network, path, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip().rstrip(".")
        raise ForgetlessError(f"{path} holds the weights of another model: {reason}.") from error
    except Exception as error:
        raise ForgetlessError(f"{path} cannot be read as safetensors: {error}.") from error
    if missing or unexpected:
        lacks = f"it lacks {listing(sorted(missing))}" if missing else ""
        extra = f"the model has no {listing(sorted(unexpected))}" if unexpected else ""
        reasons = " and ".join(filter(None, (lacks, extra)))
        raise ForgetlessError(f"{path} holds the weights of another model: {reasons}.")


def forward_for(model: str, data: Path | None) -> Any:
    """What computes the outputs: for pictures and a torchvision network, with torchvision's scaling; else None.

    Args:
        model: MODEL.
        data: `--data`.
    """
    pictures = data is not None and (data.is_dir() or data.suffix == ".parquet")
    return _normalized if pictures and model.partition(":")[0] == TORCHVISION else None


def _normalized(network: nn.Module, pictures: Tensor) -> Any:
    """The output of a torchvision network for pictures of 0 … 255, by the means and deviations it was trained with."""
    mean = pictures.new_tensor([123.675, 116.28, 103.53], dtype=next(network.parameters()).dtype).view(3, 1, 1)
    std = pictures.new_tensor([58.395, 57.12, 57.375], dtype=mean.dtype).view(3, 1, 1)
    return network((pictures - mean) / std)


def load_data(path: Path, size: int, limit: int | None) -> Any:
    """At most so many samples as one batch."""
    samples = samples_of(path, size).spread(limit)
    return samples.batch(range(samples.count))


def samples_of(path: Path, size: int, *, encode: str | None = None, skip_bad: bool = False) -> Unlabeled:
    """Pictures, texts, or the tensors of a file: one is the inputs, several are the model's keywords.

    Raises:
        ForgetlessError: it is none of these, damaged, or holds tensors of unequal length.
    """
    from forgetless.lab.datasets.reading import unlabeled
    from forgetless.model.parameters import fingerprint

    if path.is_dir() or path.suffix in (".parquet", ".jsonl"):
        return unlabeled.read(path, size, encode=None if encode is None else _function(encode), skip_bad=skip_bad)
    tensors = _tensors(path)
    sizes = {len(each) if each.dim() else 0 for each in tensors.values()}
    if len(sizes) != 1:
        raise ForgetlessError(f"the tensors of {path} need a row for each sample, not {sorted(sizes)} rows.")

    def batch(numbers: Sequence[int]) -> Any:
        chosen = {name: each[list(numbers)] for name, each in tensors.items()}
        return next(iter(chosen.values())) if len(chosen) == 1 else chosen

    listing = ", ".join(f"{name} {list(each.shape)} {fingerprint(each)}" for name, each in sorted(tensors.items()))
    return unlabeled.Unlabeled(sizes.pop(), listing, batch)


def _tensors(path: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".npy":
            return {"": torch.from_numpy(np.load(path, allow_pickle=False))}
        return load_file(path)
    except Exception as error:
        raise ForgetlessError(f"{path} is no image dataset, .npy or .safetensors file: {error}.") from error


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    if not module or not function:
        raise ForgetlessError(f"{name!r} names no function; write package.module:function.")
    return _found(module, function)

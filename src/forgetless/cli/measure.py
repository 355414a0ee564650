"""`forgetless measure MODEL`: the importance of a network's parameters, from the command line."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetless.errors import ForgetlessError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetless.importance import Importance

_TORCHVISION = "torchvision"


def measure(
    model: Annotated[str, typer.Argument(help="package.module:function that makes it, or torchvision:NAME.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Unlabelled samples like those whose skill is to be kept: a picture set (its training pictures), a "
            ".npy file, or a .safetensors file with one tensor or with the model's keywords.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to save the importance in.", show_default=False)],
    weights: Annotated[Path | None, typer.Option(help="Its weights, a .safetensors file.", show_default=False)] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Which of its outputs to measure, by name. [default: the logits, or the only one]"),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Parameters to leave out: a name, a module or a pattern; repeat it.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at a time; never changes the numbers.")] = 64,
    size: Annotated[int, typer.Option(min=1, help="Pixels per side of pictures.")] = 224,
    limit: Annotated[int | None, typer.Option(min=1, help="The most pictures to measure on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Measure how much every parameter of a network matters to what it computes.

    Pictures reach the network as they are decoded, uint8 RGB [N, 3, SIZE, SIZE], and it normalises them itself; a
    torchvision network gets them scaled as torchvision does.
    """
    import forgetless

    if (out / "importance.safetensors").exists():
        raise ForgetlessError(f"{out} holds an importance already; choose another --out.")
    network = _load_model(model, weights)
    samples = _load_data(data, size, limit)
    normalise = model.partition(":")[0] == _TORCHVISION and data.is_dir()
    importance = forgetless.mas(
        network,
        samples,
        output=output,
        forward=_normalised if normalise else None,
        exclude=exclude or (),
        batch_size=batch_size,
    )
    importance.save(out)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **_facts(importance)}, indent=2))
    else:
        _show(importance, out)


def _load_model(name: str, weights: Path | None) -> nn.Module:
    """The network that `package.module:function` or `torchvision:NAME` makes, with the weights of a file."""
    from torch import nn

    module, _, function = name.partition(":")
    if not module or not function:
        raise ForgetlessError(f"{name!r} names no model; write package.module:function or torchvision:NAME.")
    if module == _TORCHVISION and weights is None:
        raise ForgetlessError(f"{name} has random weights until you name a file with --weights.")
    try:
        network = _torchvision_model(function) if module == _TORCHVISION else _made_by(module, function)
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
    # As `python -m` does: a script installed elsewhere does not look in the current folder by itself.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise ForgetlessError(f"the module {module!r} cannot be imported: {error}.") from error
    if not callable(made):
        raise ForgetlessError(f"the module {module!r} has no function {function!r}.")
    return made()


def _torchvision_model(name: str) -> Any:
    from forgetless.parameters import listing

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

    from forgetless.parameters import listing

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


def _load_data(path: Path, size: int, limit: int | None) -> Any:
    """Pictures, or the tensors of a file: one is the inputs, several are the model's keywords."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    if path.is_dir():
        from forgetless.studies import images

        return images.load(path, size=size, limit=limit).train[0]
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        tensors = load_file(path)
    except Exception as error:
        raise ForgetlessError(f"{path} is no picture set, .npy or .safetensors file: {error}.") from error
    return next(iter(tensors.values())) if len(tensors) == 1 else tensors


def _normalised(network: nn.Module, pictures: Tensor) -> Any:
    """The output of a torchvision network for pictures of 0 … 255, by the means and deviations it was trained with."""
    mean = pictures.new_tensor([123.675, 116.28, 103.53], dtype=next(network.parameters()).dtype).view(3, 1, 1)
    std = pictures.new_tensor([58.395, 57.12, 57.375], dtype=mean.dtype).view(3, 1, 1)
    return network((pictures - mean) / std)


def _facts(importance: Importance) -> dict[str, Any]:
    means = importance.mean()
    whole = sum(float(omega.sum()) for omega in means.values())
    parameters = {
        name: {
            "shape": list(omega.shape),
            "mean": float(omega.mean()),
            "max": float(omega.max()),
            "share": float(omega.sum()) / whole if whole else 0.0,
        }
        for name, omega in means.items()
    }
    return {
        "estimator": importance.estimator,
        "samples": importance.count,
        "unused": list(importance.unused),
        "parameters": parameters,
    }


def _show(importance: Importance, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    facts = _facts(importance)
    shares = sorted(facts["parameters"].items(), key=lambda item: -item[1]["share"])
    shown = Table("parameter", "shape", "mean Ω", "share of all Ω", box=None, pad_edge=False)
    for name, found in shares[:12]:
        shape = " × ".join(map(str, found["shape"]))
        shown.add_row(Text(name), shape, f"{found['mean']:.3g}", f"{100 * found['share']:.1f} %")
    Console().print(shown)
    rest = f"and {len(shares) - 12} more parameters; " if len(shares) > 12 else ""
    typer.echo(f"\n{rest}measured on {importance.count:g} samples\nimportance: {out}")

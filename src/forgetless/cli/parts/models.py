"""MODEL and `--weights`, the same for every command: a network by its name, with what belongs to it."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetless.errors import ForgetlessError, brief

if TYPE_CHECKING:
    from forgetless.lab.finetuning.loaded import Loaded

KINDS = "hf:FOLDER_OR_NAME, timm:NAME, torchvision:NAME or package.module:function"

Model = Annotated[str, typer.Argument(help=f"{KINDS}.", show_default=False)]
Weights = Annotated[
    Path | None,
    typer.Option(help="Its weights, a .safetensors file. [default: those it comes with]"),
]


def load_model(name: str, weights: Path | None, *, random: bool = False, labels: bool = False) -> Loaded:
    """The model of a name.

    Args:
        name: MODEL.
        weights: a safetensors file.
        random: whether random weights will do, where no file is given.
        labels: whether it is to learn labels: an encoder of texts then gets a head for them.

    Raises:
        ForgetlessError: no such model, it cannot be loaded, or the file holds the weights of another.
    """
    from forgetless.cli.parts import hub, pictured

    kind, _, rest = name.partition(":")
    if not rest and Path(name).is_dir():
        raise ForgetlessError(f"{name!r} names no model; did you mean hf:{name}?")
    if not rest and Path(name).is_file():
        raise ForgetlessError(
            f"{name} holds weights, not the network that they are of: name that as MODEL, and the weights as a "
            f".safetensors file with --weights ({KINDS})."
        )
    if not kind or not rest:
        raise ForgetlessError(f"{name!r} names no model; write {KINDS}.")
    if kind == "hf":
        if weights is not None:
            raise ForgetlessError(f"{name} brings its own weights; leave out --weights.")
        return hub.load(rest, labels=labels)
    if kind in ("timm", "torchvision"):
        return getattr(pictured, kind)(rest, weights, random)  # type: ignore[no-any-return]
    return _made(name, kind, rest, weights)


def _made(name: str, module: str, function: str, weights: Path | None) -> Loaded:
    from torch import nn
    from torch.nn.parameter import is_lazy

    from forgetless.cli.parts import pictured
    from forgetless.lab.finetuning.loaded import Kind, Loaded
    from forgetless.model.parameters import listing

    make = named_function(module, function)
    try:
        network = make()
    except ForgetlessError:
        raise
    except (Exception, SystemExit) as error:
        raise ForgetlessError(f"{name} could not be made: {type(error).__name__}: {brief(error)}.") from error
    if not isinstance(network, nn.Module):
        raise ForgetlessError(f"{name} gives a {type(network).__name__}, not a torch.nn.Module.")
    if empty := [n for n, each in network.named_parameters() if is_lazy(each) or each.is_meta]:
        raise ForgetlessError(
            f"{name} gives a network whose {listing(empty)} have no values yet (a lazy layer, or the meta device); let "
            "the function give them some."
        )
    classes = () if weights is None else pictured.load_weights(network, weights)
    return Loaded(name, network, Kind.OTHER, pictured.save, classes)


def named_function(module: str, function: str) -> Any:
    """A function by the name of its module and its own.

    Raises:
        ForgetlessError: the module cannot be imported, or has no such function.
    """
    # As `python -m` does: a script installed elsewhere does not look in the current folder by itself.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise ForgetlessError(f"the module {module!r} cannot be imported: {brief(error)}.") from error
    except (Exception, SystemExit) as error:  # whatever its code raises
        what = f"{type(error).__name__}: {brief(error)}"
        raise ForgetlessError(f"the module {module!r} cannot be imported: {what}.") from error
    if not callable(made):
        raise ForgetlessError(f"the module {module!r} has no function {function!r}.")
    return made

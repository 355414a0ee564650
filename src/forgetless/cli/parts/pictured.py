"""Networks of pictures, by timm and torchvision; their weights come from safetensors files."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from forgetless import files
from forgetless.cli.parts import hub
from forgetless.errors import ForgetlessError, brief
from forgetless.lab.finetuning.loaded import Kind, Loaded
from forgetless.lab.networks.parts.normalize import Normalize
from forgetless.model.parameters import listing

WEIGHTS = "model.safetensors"  # in a folder that `save` writes
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_CLASSES = "classes"
#: ImageNet's mean and standard deviation, of 0 … 255, by which torchvision's weights were trained.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def torchvision(name: str, weights: Path | None, random: bool) -> Loaded:
    """The network that torchvision calls so.

    Raises:
        ForgetlessError: torchvision is not installed, it has no such network, there are no weights and random ones
            will not do, or the file holds the weights of another.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise ForgetlessError("torchvision is not installed: pip install 'forgetless[vision]'.") from error
    if name not in models.list_models():
        raise ForgetlessError(_no_such("torchvision", name, models.list_models()))
    if weights is None and not random:
        raise ForgetlessError(f"torchvision:{name} has random weights until you name a file with --weights.")
    with _making(f"torchvision:{name}"):
        network = models.get_model(name, weights=None)
    if (outputs := _outputs(network, weights)) is not None:
        network = models.get_model(name, weights=None, num_classes=outputs)
    classes = () if weights is None else load_weights(network, weights)
    return Loaded(
        f"torchvision:{name}", network, Kind.IMAGE_CLASSIFIER, save, classes, normalize=Normalize(_MEAN, _STD)
    )


def timm(name: str, weights: Path | None, random: bool) -> Loaded:
    """The network that timm calls so, with the weights of a file, or with timm's own where they can be had.

    Raises:
        ForgetlessError: timm is not installed, it has no such network, its weights cannot be had, or the file holds
            the weights of another.
    """
    try:
        import timm
    except ImportError as error:
        raise ForgetlessError("timm is not installed: pip install 'forgetless[timm]'.") from error
    if not timm.is_model(name):
        raise ForgetlessError(_no_such("timm", name, timm.list_models()))
    own = weights is None and not random
    if own and not timm.is_model_pretrained(name):
        raise ForgetlessError(f"timm has no weights for {name!r}; name a file with --weights.")
    if own:
        hub.offline_without_network()
    with _making(f"timm:{name}", "; name a file with --weights" if own else ""):
        network = timm.create_model(name, pretrained=own)
        if (outputs := _outputs(network, weights)) is not None:
            network = timm.create_model(name, num_classes=outputs)
    classes = () if weights is None else load_weights(network, weights)
    data: Any = timm.data
    config = data.resolve_model_data_config(network)
    mean, std = ([255 * each for each in config[key]] for key in ("mean", "std"))
    normalize = Normalize((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    size = config["input_size"][-1]
    return Loaded(f"timm:{name}", network, Kind.IMAGE_CLASSIFIER, save, classes, normalize=normalize, size=size)


def _no_such(library: str, name: str, known: list[str]) -> str:
    if close := difflib.get_close_matches(name, known, 3):
        return f"{library} has no model {name!r}; did you mean {' or '.join(map(repr, close))}?"
    return f"{library} has no model {name!r}; it has {listing(known)}."


class _making:
    """Turns what a library raises while it makes a network into a sentence."""

    def __init__(self, name: str, advice: str = "") -> None:
        self._name, self._advice = name, advice

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, ForgetlessError):
            raise ForgetlessError(f"{self._name} could not be loaded: {brief(error)}{self._advice}.") from error


def _outputs(network: nn.Module, weights: Path | None) -> int | None:
    """How many outputs the weights of a file are for, where that is not what the network has."""
    if weights is None:
        return None
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    with _reading(weights) as file:
        there = {name: file.get_slice(name).get_shape() for name in file.keys() if name in shapes}  # noqa: SIM118
    differing = {there[name][0] for name in there if there[name] and there[name] != shapes[name]}
    alike = all(there[name][1:] == shapes[name][1:] for name in there if there[name])
    return differing.pop() if alike and len(differing) == 1 else None


def load_weights(network: nn.Module, path: Path) -> tuple[str, ...]:
    """Put the weights of a safetensors file into a network; gives the names of its classes, if the file tells them.

    Raises:
        ForgetlessError: the file cannot be read, or holds the weights of another network.
    """
    with _reading(path) as file:
        noted = (file.metadata() or {}).get(_CLASSES, "[]")
    classes: tuple[str, ...] = tuple(files.decoded(files.parse_json(noted, f"{path} (its metadata)"), list[str], path))
    try:
        missing, unexpected = load_model(network, path, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip().rstrip(".")
        raise ForgetlessError(f"{path} holds the weights of another model: {reason}.") from error
    if missing or unexpected:
        lacks = f"it lacks {listing(sorted(missing))}" if missing else ""
        extra = f"the model has no {listing(sorted(unexpected))}" if unexpected else ""
        reasons = " and ".join(filter(None, (lacks, extra)))
        raise ForgetlessError(f"{path} holds the weights of another model: {reasons}.")
    return classes


def _reading(path: Path) -> Any:
    if path.suffix in PICKLED and path.is_file():
        raise ForgetlessError(
            f"{path} is a pickle, which can run code when it is read; save its weights again with "
            f"safetensors.torch.save_file(torch.load({path.name!r}, weights_only=True), "
            f"{path.with_suffix('.safetensors').name!r})."
        )
    with files.opened(path):  # a regular file that can be read
        pass
    try:
        return safe_open(path, framework="pt")
    except Exception as error:
        raise ForgetlessError(f"{path} cannot be read as safetensors: {brief(error)}.") from error


def save(network: nn.Module, classes: Sequence[str], folder: Path) -> None:
    """Write the state dict to `folder`/model.safetensors, with the names of the classes in its metadata."""
    with files.replacing(folder / WEIGHTS) as temporary:
        save_model(network, str(temporary), {_CLASSES: json.dumps(list(classes))})

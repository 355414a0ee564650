"""Convolutional networks of the benchmarks that start from scratch, each a backbone: pictures → features.

A backbone takes uint8 RGB `[N, 3, H, W]` as pictures are decoded. What it does to them at random while it trains is
drawn from torch's global generator, which the loop seeds before each step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.lab.networks.parts.normalize import Normalize
from forgetless.learn.heads import MultiHead

CIFAR_MEAN, CIFAR_STD = (129.3, 124.2, 112.5), (68.1, 65.3, 70.4)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Augment(nn.Module):
    """In training: a picture padded with `margin` black pixels and cut to its size anywhere, mirrored half the time."""

    def __init__(self, margin: int) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures of the same shape; the very same ones in eval mode."""
        if not self.training:
            return pictures
        count, height, width = len(pictures), *pictures.shape[2:]
        padded = F.pad(pictures, (self.margin,) * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, 3, rows, columns, height, width]
        device = pictures.device
        rows, columns = torch.randint(2 * self.margin + 1, (2, count), device=device)
        cut = windows[torch.arange(count, device=device), :, rows, columns]
        mirrored = torch.rand(count, device=device) < 0.5
        return torch.where(mirrored.view(-1, 1, 1, 1), cut.flip(3), cut)


class PreActivation(nn.Module):
    """A residual block that normalizes and rectifies before each of its two convolutions (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, inputs, H, W]` to maps `[N, outputs, H / stride, W / stride]`."""
        active = self.norm1(x).relu()
        straight: Tensor = x if self.shortcut is None else self.shortcut(active)
        residual: Tensor = self.conv2(self.norm2(self.conv1(active)).relu())
        return straight + residual


def wide_resnet(seed: int, *, depth: int = 28, width: int = 2, scenario: str = "task") -> MultiHead:
    """WideResNet-`depth`-`width` (Zagoruyko & Komodakis 2016, arXiv 1605.07146): `64 · width` features, 1.5 million
    weights at 28-2. Pictures are augmented by 4 pixels.

    Raises:
        ForgetlessError: a depth that three stages of equal blocks cannot have.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ForgetlessError(f"the depth of a wide residual network is 10, 16, 22, 28, …, not {depth}.")

    def blocks() -> Iterator[nn.Module]:
        inputs = 16
        for stage, outputs in enumerate((16 * width, 32 * width, 64 * width)):
            for number in range((depth - 4) // 6):
                yield PreActivation(inputs, outputs, 2 if stage and not number else 1)
                inputs = outputs

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        backbone = nn.Sequential(
            Augment(4),
            Normalize(CIFAR_MEAN, CIFAR_STD),
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            *blocks(),
            nn.BatchNorm2d(64 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    return MultiHead(backbone, 64 * width, scenario=scenario)


def small_vgg(seed: int) -> MultiHead:
    """The small VGG of De Lange et al. 2021 (arXiv 1909.08383) for 64 × 64 pixels: six convolutions, 128 features."""

    def layers() -> Iterator[nn.Module]:
        inputs = 3
        for outputs, pooled in ((64, True), (64, True), (64, False), (64, True), (128, False), (128, True)):
            yield nn.Conv2d(inputs, outputs, 3, padding=1)
            yield nn.ReLU()
            if pooled:
                yield nn.MaxPool2d(2)
            inputs = outputs

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        hidden = [nn.Flatten(), nn.Linear(128 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
        backbone = nn.Sequential(Normalize(IMAGENET_MEAN, IMAGENET_STD), *layers(), *hidden)
        for module in backbone:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return MultiHead(backbone, 128)

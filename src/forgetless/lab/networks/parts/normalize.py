"""`Normalize`: what every network does to pictures first, so that one means the same wherever it is fed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """`(x − mean) / std` per channel, of pictures `[N, 3, H, W]` of 0 … 255 in any dtype."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: float | tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """The pictures as floats of the same shape, channels last in memory: convolutions on a CPU are faster so."""
        floats = pictures.to(self.mean.dtype, memory_format=torch.channels_last)
        return (floats - self.mean) / self.std

"""The networks that the benchmarks of importance measure on, with inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Network:
    """One network of the table.

    Attributes:
        title: its column's heading.
        make: builds it, with random weights.
        inputs: count → that many samples.
        classes: of the labels that the empirical Fisher information needs; labels at every position if `tokens`.
        batches: what plain may choose its batch size from.
        large: samples a batch that our rows are handed, of which they choose their own batch size.
        images: whether inputs have a memory layout to choose.
        tokens: positions that have logits, or 0.
    """

    title: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    classes: int
    batches: tuple[int, ...]
    large: int
    images: bool = False
    tokens: int = 0


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then the perceptron."""
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, c))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A small decoder: pooled with a small head, or tied with logits at every position."""

    def __init__(
        self, vocabulary: int, length: int, width: int = 384, heads: int = 6, depth: int = 6, tied: bool = False
    ):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary if tied else 10, bias=not tied)
        self.pooled = not tied
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.02)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, `[N, 10]` or `[N, T, V]`."""
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        x = self.norm(self.blocks(x))
        return self.head(x.mean(1) if self.pooled else x)


def mlp() -> nn.Module:
    """784-2000-2000-10."""
    layers = [nn.Linear(784, 2000), nn.ReLU(), nn.Linear(2000, 2000), nn.ReLU(), nn.Linear(2000, 10)]
    return nn.Sequential(*layers)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        model: nn.Module = getattr(torchvision.models, name)()
        return model

    return make


def _images(side: int) -> Callable[[int], Tensor]:
    return lambda count: torch.randn(count, 3, side, side)


def _ids(vocabulary: int, length: int) -> Callable[[int], Tensor]:
    return lambda count: torch.randint(vocabulary, (count, length))


NETWORKS = {
    "mlp": Network("MLP 784-2000-2000-10", mlp, lambda count: torch.rand(count, 784), 10, (128, 256, 512, 1024), 1024),
    "alexnet": Network("AlexNet 224", _torchvision("alexnet"), _images(224), 1000, (32, 64), 64, images=True),
    "resnet18-64": Network(
        "ResNet-18 64 px", _torchvision("resnet18"), _images(64), 1000, (16, 32, 64), 64, images=True
    ),
    "resnet18-224": Network("ResNet-18 224 px", _torchvision("resnet18"), _images(224), 1000, (4, 8), 8, images=True),
    "gpt-256": Network("GPT T = 256", lambda: GPT(1000, 256), _ids(1000, 256), 10, (2, 4, 8), 8),
    "gpt-32": Network("GPT T = 32", lambda: GPT(1000, 32), _ids(1000, 32), 10, (16, 32, 64), 64),
    "gpt-tied": Network(
        "GPT T = 256, 50,257 tokens, tied",
        lambda: GPT(50257, 256, tied=True),
        _ids(50257, 256),
        50257,
        (1, 2, 4),
        4,
        tokens=256,
    ),
}

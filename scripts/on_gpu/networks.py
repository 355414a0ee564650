"""The networks that are measured, and samples for them; all made here, with random weights."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scripts.on_gpu.checking import Setting


def mlp() -> nn.Module:
    """Three layers with ReLU."""
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def convnet() -> nn.Module:
    """Modules in a row, as the reference of local MAS needs them."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip


class Recurrent(nn.Module):
    """A two-layer LSTM or GRU and a head on its last step; on a GPU cuDNN computes it."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(12, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, 12]` → `[N, 10]`."""
        return self.head(self.rnn(x)[0][:, -1])


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample: nn.Module | None = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def resnet18(classes: int = 1000) -> nn.Module:
    """ResNet-18: torchvision's where that is installed, else the same network written out."""
    with contextlib.suppress(Exception):
        import torchvision

        return torchvision.models.resnet18(num_classes=classes)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    for inner, outer, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [_Block(inner, outer, stride), _Block(outer, outer, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def smooth(model: nn.Module) -> nn.Module:
    """The same without kinks, where rounding decides which of two gradients is taken."""
    for name, child in model.named_children():
        if isinstance(child, nn.ReLU):
            setattr(model, name, nn.SiLU())
        elif isinstance(child, nn.MaxPool2d):
            setattr(model, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        else:
            smooth(child)
    return model


class Layer(nn.Module):
    """A transformer layer, norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """`[N, T, width]`; `seen` `[N, 1, T, T]` says which positions each sees, None for all earlier ones."""
        n, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A small language model with a tied head."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.05)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`[N, T]` → logits `[N, T, vocabulary]`; padding is on the right."""
        t = input_ids.shape[1]
        seen = None
        if attention_mask is not None:
            causal = torch.ones(t, t, dtype=torch.bool, device=input_ids.device).tril()
            itself = torch.eye(t, dtype=torch.bool, device=input_ids.device)
            seen = (causal & attention_mask.bool()[:, None, None, :]) | itself
        x = self.tokens(input_ids) + self.positions.weight[:t]
        for layer in self.layers:
            x = layer(x, seen)
        return self.head(self.norm(x))


def small_gpt() -> GPT:
    """For exactness."""
    return GPT(97, 32, 2, 4, 24)


def images(setting: Setting, count: int, pixels: int) -> Tensor:
    """`[N, 3, pixels, pixels]`."""
    return torch.randn(count, 3, pixels, pixels, device=setting.device)


def tokens(setting: Setting, count: int, length: int, vocabulary: int) -> Tensor:
    """`[N, T]`."""
    return torch.randint(vocabulary, (count, length), device=setting.device)


def padded(setting: Setting, count: int, length: int, vocabulary: int) -> dict[str, Any]:
    """Token sequences of unequal length, padded on the right."""
    lengths = torch.linspace(length // 3, length, count).long().to(setting.device)
    mask = torch.arange(length, device=setting.device)[None] < lengths[:, None]
    return {"input_ids": tokens(setting, count, length, vocabulary) * mask, "attention_mask": mask.long()}


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """In eval mode, with batch-norm statistics of `x`, so that activations neither vanish nor overflow."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(x)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return model.eval()

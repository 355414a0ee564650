"""Small whole networks of the common kinds: what `problems` measures besides single layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class CausalBlock(nn.Module):
    """A pre-norm transformer block of the GPT kind."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        samples, steps, width = x.shape
        split = self.qkv(self.norm_1(x)).view(samples, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*split, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(samples, steps, width))
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    """A language model with a tied head and a position table that is looked up once for the whole batch."""

    def __init__(self, vocabulary: int = 19, width: int = 8, heads: int = 2, depth: int = 2, context: int = 12) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class BERT(nn.Module):
    """An encoder with segment embeddings and a padding mask; returns a dict, as such models do."""

    def __init__(self, vocabulary: int = 17, width: int = 8) -> None:
        super().__init__()
        self.word = nn.Embedding(vocabulary, width, padding_idx=0)
        self.position, self.segment = nn.Embedding(10, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(width, 2, 16, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pooler = nn.Linear(width, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        positions = self.position(torch.arange(input_ids.shape[1]).unsqueeze(0))
        x = self.norm(self.word(input_ids) + positions + self.segment(token_type_ids))
        hidden = self.encoder(x, src_key_padding_mask=attention_mask == 0)
        return {"last_hidden_state": hidden, "pooler_output": torch.tanh(self.pooler(hidden[:, 0]))}


class Llama(nn.Module):
    """RMS norm, rotary positions, grouped queries and a gated MLP."""

    def __init__(self, vocabulary: int = 15, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.norm_1, self.norm_2, self.norm_3 = (nn.RMSNorm(width) for _ in range(3))
        self.q, self.k, self.v, self.o = (nn.Linear(width, out, bias=False) for out in (8, 4, 4, width))
        self.gate, self.up = nn.Linear(width, 12, bias=False), nn.Linear(width, 12, bias=False)
        self.down = nn.Linear(12, width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        h = self.norm_1(x)
        q, k, v = (part(h).unflatten(-1, (-1, 4)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(_rotated(q), _rotated(k), v, is_causal=True, enable_gqa=True)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        h = self.norm_2(x)
        x = x + self.down(functional.silu(self.gate(h)) * self.up(h))
        return self.head(self.norm_3(x))


def _rotated(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    speeds = torch.exp(-math.log(100.0) * torch.arange(half, dtype=x.dtype) / half)
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * speeds
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos()], -1)


class RecurrentLM(nn.Module):
    """Embedding, a recurrent layer (batch second where it says so), a head at every step."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU] | type[nn.RNN], batch_first: bool, **options: Any) -> None:
        super().__init__()
        self.tokens = nn.Embedding(13, 6)
        self.recurrent = kind(6, 5, batch_first=batch_first, **options)
        self.head = nn.Linear(10 if options.get("bidirectional") else options.get("proj_size") or 5, 13)
        self.batch_first = batch_first

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        states, _ = self.recurrent(x if self.batch_first else x.transpose(0, 1))
        return self.head(states if self.batch_first else states.transpose(0, 1))


class UNet(nn.Module):
    """Down, across and up again, with a skip connection and in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.deep = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.GroupNorm(4, 8), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.last = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        return self.last(torch.cat([skip, self.up(self.deep(skip))], 1))


class WindowedAttention(nn.Module):
    """Attention inside windows: the sample axis is folded with the windows, N·W first."""

    def __init__(self, width: int = 6, window: int = 4) -> None:
        super().__init__()
        self.window = window
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(window, window))

    def forward(self, x: Tensor) -> Tensor:
        samples, steps, width = x.shape
        windows = x.reshape(-1, self.window, width)
        q, k, v = self.qkv(windows).chunk(3, -1)
        weights = (q @ k.transpose(1, 2) / math.sqrt(width) + self.bias).softmax(-1)
        return self.out(weights @ v).reshape(samples, steps, width)

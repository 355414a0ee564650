from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forgetless.lab.networks.parts.relative_attention import RelativeAttention, causal, shifted, sinusoids


def slow(layer: RelativeAttention, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Transformer-XL's formula, one pair of positions after the other."""
    n, t, width = x.shape
    length, heads = seen.shape[1], layer.heads
    size = width // heads
    key, value = layer.key_value.weight.chunk(2)
    found, weights = torch.zeros_like(x), x.new_zeros(heads, n, t, length)
    for text in range(n):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(t):
                scores = []
                for j in range(length - t + i + 1):
                    apart = length - t + i - j
                    rates = [10000 ** (-2 * m / width) for m in range(width // 2)]
                    code = [math.sin(apart * r) for r in rates] + [math.cos(apart * r) for r in rates]
                    q = layer.query.weight[part] @ x[text, i]
                    k = key[part] @ seen[text, j]
                    r = layer.distance.weight[part] @ x.new_tensor(code)
                    u, v = layer.content_bias[head, 0], layer.distance_bias[head, 0]
                    scores.append(((q + u) @ k + (q + v) @ r) / math.sqrt(size))
                weights[head, text, i, : len(scores)] = torch.stack(scores).softmax(0)
                found[text, i, part] = weights[head, text, i] @ (seen[text] @ value[part].T)
    return found @ layer.out.weight.T, weights


def layer_of(width: int, heads: int) -> RelativeAttention:
    torch.manual_seed(0)
    layer = RelativeAttention(width, heads).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 2), st.integers(1, 5), st.integers(0, 7), st.sampled_from([(4, 1), (4, 2), (6, 3)]))
def test_it_is_the_formula_pair_by_pair(n: int, t: int, before: int, sizes: tuple[int, int]) -> None:
    layer = layer_of(*sizes)
    seen = torch.randn(n, before + t, sizes[0], dtype=torch.float64)
    x = seen[:, before:]
    with torch.no_grad():
        found, weights = layer(x, seen[:, :before], sinusoids(before + t, sizes[0], x), causal(t, before + t, x))
        wanted, of_pairs = slow(layer, x, seen)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(weights, of_pairs)


def test_scores_by_distance_become_scores_by_position() -> None:
    """A score that is its distance: L − 1 … 0, and −1 for what is not seen."""
    t, length = 3, 5
    by_distance = torch.arange(length - 1.0, -2, -1).expand(t, -1)
    found = shifted(by_distance)
    for i in range(t):
        for j in range(length - t + i + 1):
            assert found[i, j] == length - t + i - j


def test_content_attention_reaches_no_weight_of_the_layer() -> None:
    layer = layer_of(6, 3)
    x, memory = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    layer.content(x, memory)[0].sum().backward()
    assert memory.grad is not None
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert all(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("t", [1, 4])
def test_content_attention_is_softmax_of_queries_and_keys(t: int) -> None:
    layer = layer_of(4, 2)
    x, memory = torch.randn(1, t, 4, dtype=torch.float64), torch.randn(1, 5, 4, dtype=torch.float64)
    key, value = layer.key_value.weight.chunk(2)
    parts = []
    for part in (slice(0, 2), slice(2, 4)):
        scores = (x[0] @ layer.query.weight[part].T) @ (memory[0] @ key[part].T).T / math.sqrt(2)
        parts.append(scores.softmax(1) @ (memory[0] @ value[part].T))
    torch.testing.assert_close(layer.content(x, memory)[0][0], torch.cat(parts, 1))

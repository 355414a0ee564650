"""How well a network predicts a held-out text: bits per character, by place in the window and by how rare a word is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.lab.long_text.reading import Tokens, refuse_short, window
from forgetless.lab.long_text.vocabularies import Vocabulary
from forgetless.lab.networks.compressive import CompressiveTransformer

#: Of words, by how often they occur in the training text: from, up to, and what such words are called.
CLASSES = (
    (0, 1, "never seen"),
    (1, 10, "seen 1–9 times"),
    (10, 100, "10–99"),
    (100, 1000, "100–999"),
    (1000, math.inf, "1,000 and more"),
)
_WORD = re.compile(rb"[A-Za-z]+")
_QUARTERS = 4


@dataclass(frozen=True)
class Measured:
    """A network's loss on a text.

    Attributes:
        nats: −log p of every token that was predicted, `[rows, windows · T]`.
        tokens: these tokens, as `nats`.
        attention: to compressed, recent and current positions, `[layers, 3]`.
    """

    nats: Tensor
    tokens: Tensor
    attention: Tensor


@torch.no_grad()
def measure(model: CompressiveTransformer, text: Tokens, rows: int, length: int, limit: int | None = None) -> Measured:
    """Read a text, or evenly spread pieces of it, with the memory going on from window to window.

    Args:
        model: the network; it is in eval mode afterwards.
        text: the held-out text.
        rows: how many pieces are read side by side; each begins with an empty memory.
        length: of a window, T.
        limit: read so many tokens at most.

    Raises:
        ForgetlessError: the text is too short for that.
    """
    refuse_short(text, "held-out", rows, length)
    model.eval()
    device = next(model.parameters()).device
    count = (len(text) // rows - 1) // length
    count = count if limit is None else max(1, min(count, limit // (rows * length)))
    memory, nats, tokens, attention = model.empty(rows), list[Tensor](), list[Tensor](), list[Tensor]()
    for number in range(count):
        read, target = window(text.tokens, 0, number, rows, length)
        found = model.step(read.to(device), memory, attention=True)
        memory = found.memory.detach()
        nats.append(F.cross_entropy(found.logits.transpose(1, 2), target.to(device), reduction="none").cpu())
        tokens.append(target)
        assert found.attention is not None
        attention.append(found.attention)
    late = attention[len(attention) // 2 :]  # when the memories are full
    return Measured(torch.cat(nats, 1), torch.cat(tokens, 1), torch.stack(late).mean(0).cpu())


def bits_per_character(found: Measured, vocabulary: Vocabulary) -> float:
    """`Σ nats / ln 2 / bytes` of the tokens that were predicted; a character is a byte, as in Enwik8."""
    lengths = torch.tensor([len(vocabulary.decode([token])) for token in range(vocabulary.symbols)])
    return float(found.nats.double().sum()) / math.log(2) / int(lengths[found.tokens].sum())


def by_place(found: Measured, length: int) -> list[float]:
    """Bits per token in each quarter of the window, or at each place of one that is shorter than four."""
    nats = found.nats.double().view(len(found.nats), -1, length).mean((0, 1))
    return [float(part.mean()) / math.log(2) for part in nats.tensor_split(min(_QUARTERS, length))]


def counted(texts: Iterable[bytes]) -> Counter[bytes]:
    """How often each word occurs; a word is a run of letters, in lower case."""
    found: Counter[bytes] = Counter()
    for text in texts:
        found.update(_WORD.findall(text.lower()))
    return found


def by_rarity(found: Measured, vocabulary: Vocabulary, training: Mapping[bytes, int]) -> dict[str, dict[str, Any]]:
    """Bits per character of words, by how often they occur in the training text.

    A token's bits are shared evenly by its bytes. Words are those of a piece of the test text, cut at its ends.
    """
    sums: dict[str, list[float]] = {name: [0.0, 0] for *_, name in CLASSES}
    pieces = [vocabulary.decode([token]) for token in range(vocabulary.symbols)]
    for nats, row in zip(found.nats.double().numpy(), found.tokens.tolist(), strict=True):
        lengths = np.array([len(pieces[token]) for token in row])
        of_bytes = np.repeat(nats / np.maximum(lengths, 1), lengths)
        for each in _WORD.finditer(b"".join(pieces[token] for token in row)):
            times = training.get(each[0].lower(), 0)
            name = next(name for least, most, name in CLASSES if least <= times < most)
            sums[name][0] += float(of_bytes[each.start() : each.end()].sum())
            sums[name][1] += each.end() - each.start()
    return {
        name: {"bits": round(total / math.log(2) / count, 5) if count else None, "characters": int(count)}
        for name, (total, count) in sums.items()
    }

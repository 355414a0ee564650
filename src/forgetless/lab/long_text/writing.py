"""Text from a trained network, token by token, with its memory going on as long as one likes."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.vocabularies import Vocabulary
from forgetless.lab.networks.compressive import CompressiveTransformer


@torch.no_grad()
def stream(
    model: CompressiveTransformer,
    vocabulary: Vocabulary,
    prompt: str,
    tokens: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Continue a prompt: `p ∝ exp(logits / temperature)`, drawn with a generator of its own.

    Args:
        model: in eval mode.
        vocabulary: what its tokens are.
        prompt: what the text begins with; not empty.
        tokens: how many to write.
        temperature: 0 takes the most probable token.
        seed: decides what is drawn.

    Yields:
        Pieces of text as they come; what is no UTF-8 becomes U+FFFD.

    Raises:
        ForgetlessError: an empty prompt, or a temperature that is no number from 0 on.
    """
    if not prompt:
        raise ForgetlessError("writing needs a prompt of one character or more: give one with --prompt.")
    if not 0 <= temperature < float("inf"):
        raise ForgetlessError(f"the temperature must be a number from 0 on, not {temperature}.")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    read = vocabulary.encode(prompt.encode(), "the prompt").long().to(device)[None]
    memory = None
    for window in torch.split(read, max(1, model.sizes.memory), 1):
        logits, memory = model(window, memory)
    for _ in range(tokens):
        token = _drawn(logits[0, -1].float().cpu(), temperature, generator)
        if text := decoder.decode(vocabulary.decode([token])):
            yield text
        logits, memory = model(torch.tensor([[token]], device=device), memory)
    if rest := decoder.decode(b"", final=True):
        yield rest


def _drawn(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))

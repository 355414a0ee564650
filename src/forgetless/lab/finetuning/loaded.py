"""`Loaded`: a person's model with what belongs to it: its tokenizer or its pictures' scale, its classes, its format."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from forgetless.errors import ForgetlessError


class Kind(enum.Enum):
    """What a model does, by the class that its configuration names."""

    CAUSAL_LM = "a causal language model"
    TEXT_CLASSIFIER = "a classifier of texts"
    TEXT_ENCODER = "an encoder of texts"
    IMAGE_CLASSIFIER = "a classifier of pictures"
    OTHER = "a module"

    @property
    def reads_texts(self) -> bool:
        """Whether it takes token numbers."""
        return self in (Kind.CAUSAL_LM, Kind.TEXT_CLASSIFIER, Kind.TEXT_ENCODER)


#: Writes a model in its own format: (network, names of its classes, folder).
Save = Callable[[nn.Module, Sequence[str], Path], None]


@dataclass(frozen=True)
class Loaded:
    """A model that was found by its name.

    Attributes:
        name: MODEL, as it was given.
        network: the model.
        kind: what it does.
        save: writes it in its own format.
        classes: the names of its outputs; none where it does not tell.
        tokenizer: of a model of texts.
        normalize: of a model of pictures: uint8 RGB `[N, 3, H, W]` → what the network takes; None where the network
            scales them itself.
        size: pixels per side of the pictures that it was trained on.
    """

    name: str
    network: nn.Module
    kind: Kind
    save: Save
    classes: tuple[str, ...] = ()
    tokenizer: Any = None
    normalize: nn.Module | None = None
    size: int = 224

    def longest(self, length: int) -> int:
        """The most tokens of a text: `length`, or as many as the model has positions for."""
        positions = getattr(getattr(self.network, "config", None), "max_position_embeddings", None)
        return min(length, positions) if isinstance(positions, int) and positions > 0 else length

    def forward(self, network: nn.Module, batch: Any) -> Any:
        """The network's output for a batch of token numbers, or of pictures as they are decoded.

        That of an encoder of texts is their embedding, `[N, features]`: the mean over the positions that are there.
        (Its last hidden states are normalized position by position, so that their norm says little.)
        """
        if self.kind is Kind.TEXT_ENCODER:
            return embeddings(getattr(network, "base_model", network)(**batch).last_hidden_state, batch)
        if self.kind.reads_texts:
            return network(**batch)
        return network(batch if self.normalize is None else self.normalize(batch))


def logits(output: Any) -> Tensor:
    """The logits of a model's output: the output itself, or what transformers calls so.

    Raises:
        ForgetlessError: there are none.
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise ForgetlessError(f"its output is a {type(output).__name__}, which has no tensor of logits")
    return found


def embeddings(states: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean over the positions that are there: `[N, T, features]` → `[N, features]`."""
    mask = batch.get("attention_mask")
    if mask is None:
        return states.mean(1)
    there = mask[..., None].to(states.dtype)
    return (states * there).sum(1) / there.sum(1)

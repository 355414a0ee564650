"""An importance that was measured before a tokenizer grew: the new rows of the embeddings are free."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from forgetless.measure.importance import Importance
from forgetless.model.parameters import fingerprint, listing, named


def grown(importance: Importance, model: nn.Module, embeddings: Iterable[nn.Module | None]) -> Importance:
    """The importance, with 0 for the rows that the embeddings have won since; a warning says how many.

    What differs in any other way stays, for the anchor to refuse.

    Args:
        importance: of the model as it was.
        model: the network now.
        embeddings: modules whose parameters have a row per token.
    """
    rows = {id(parameter) for module in embeddings if module is not None for parameter in module.parameters()}
    sums, weights, said = dict(importance.sums), dict(importance.weights), []
    for name, parameter in named(model).items():
        before = sums.get(name)
        if id(parameter) not in rows or before is None or before.shape[1:] != parameter.shape[1:]:
            continue
        if (more := parameter.shape[0] - before.shape[0]) <= 0:
            continue
        sums[name] = torch.cat([before, before.new_zeros(more, *before.shape[1:])])
        if weights.get(name) == fingerprint(parameter.detach()[: before.shape[0]]):
            weights[name] = fingerprint(parameter)
        said.append(f"{listing([name])} has {more} new rows")
    if not said:
        return importance
    warnings.warn(
        f"the model has grown since its importance was measured: {'; '.join(said)}, which are free.", stacklevel=2
    )
    return replace(importance, sums=sums, weights=weights, confidence=None)

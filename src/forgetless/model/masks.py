"""Masks: which positions of F count in `‖F‖²`. The others are set to 0, so that nothing depends on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from forgetless.errors import ForgetlessError
from forgetless.model import batches

Mask = Literal["auto", "labels"] | Callable[[Any], Tensor] | None
IGNORED = -100  # the label of a position that has none, as in torch's cross entropy
_OF_POSITIONS = ("start_", "end_")  # names of outputs [N, T] with a number for every position; others have T classes
_ALIGNED = ("ForMaskedLM", "ForTokenClassification")  # transformers' losses where label t is of logits t


def refuse_unknown(mask: Any) -> None:
    """Refuse what is no way to choose positions.

    Raises:
        ForgetlessError: as said.
    """
    if mask is not None and mask not in ("auto", "labels") and not callable(mask):
        raise ForgetlessError(f'mask must be "auto", "labels", None or a callable (batch) → [N, T], not {mask!r}.')


def masked(
    chosen: Mapping[str | int, Tensor], mask: Mask, model: nn.Module, batch: Any, decoding: bool
) -> dict[str | int, Tensor]:
    """The tensors of F by name, zero at the positions that do not count.

    Args:
        chosen: `[N, …]` each; one with positions is `[N, T, …]`.
        mask: "auto" takes the attention mask of the batch; of an encoder-decoder the decoder's own, or, where it has
            none, the positions that have a label. "labels" leaves out the positions without a label, too. A callable
            gives `[N, T]`, true where a position counts. None: all do.
        model: the network.
        batch: what went through.
        decoding: whether the output is a decoder's, beside an encoder's.

    Raises:
        ForgetlessError: no labels, or a mask that fits no output.
    """
    given = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    found = dict(chosen)
    if isinstance(given, Mapping) and mask in ("auto", "labels"):
        found = {key: _padded(tensor, _own(given, key, decoding), key) for key, tensor in found.items()}
    if mask == "labels":
        return _asked(found, _labeled(model, batch, decoding), 'the labels, by which mask="labels" chooses positions,')
    if callable(mask):
        return _asked(found, mask(batch), "what mask= returned")
    return found


def positions(mask: Mask, model: nn.Module, batch: Any) -> Tensor | None:
    """Which positions of the samples count, `[N, T]`, bool, for what is measured inside of a network; None: all do.

    Args:
        mask: as for `masked`.
        model: the network.
        batch: what goes through.

    Raises:
        ForgetlessError: no labels, a mask that is not `[N, T]`, or padding in an encoder-decoder, whose layers do not
            tell whose positions they have.
    """
    given = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    found: Any = None
    if callable(mask):
        found = mask(batch)
        if not isinstance(found, Tensor) or found.dim() != 2:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ForgetlessError(f"what mask= returned must be [N, T], a number for every position, not {shape}.")
        found = found > 0
    elif mask is not None and isinstance(given, Mapping):
        parts = [given.get(name) for name in ("attention_mask", "decoder_attention_mask")]
        padded = any(isinstance(each, Tensor) and not bool(attended(each).all()) for each in parts)
        if is_encoder_decoder(model, given) and (padded or mask == "labels"):
            raise ForgetlessError(
                "which positions of an encoder-decoder count cannot be told inside of it; measure its samples without "
                "padding, one at a time (batch_size=1), or with mask=None, by which all positions count."
            )
        if isinstance(parts[0], Tensor) and parts[0].dim() == 2:
            found = attended(parts[0])
    if mask == "labels":
        labeled = _labeled(model, batch, False)
        found = labeled if found is None else found & labeled
    return None if found is None or bool(found.all()) else found


def padded_decoder(model: nn.Module, batch: Any) -> str | None:
    """The sentence about inputs of a decoder that end in padding, where nothing says that they do; None elsewhere."""
    given = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    padding = getattr(getattr(model, "config", None), "pad_token_id", None)
    if not isinstance(given, Mapping) or padding is None or {"decoder_attention_mask", "labels"} & set(given):
        return None
    ids = given.get("decoder_input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.shape[1] < 2 or not bool((ids[:, -1] == padding).any()):
        return None
    return (
        "decoder_input_ids end in padding and there is no decoder_attention_mask, so the padded positions count too; "
        "give the mask, or the labels (-100 where there is padding), or mask=None if they are to count."
    )


def is_encoder_decoder(model: nn.Module, given: Mapping[Any, Any]) -> bool:
    """Whether a network with these inputs is an encoder and a decoder."""
    told = any(str(key).startswith("decoder_") for key in given)
    return told or getattr(getattr(model, "config", None), "is_encoder_decoder", False) is True


def attended(mask: Tensor) -> Tensor:
    """Where an attention mask lets attention go: bool, of 1 and 0, or what is added to scores (0 or negative)."""
    if mask.is_floating_point() and bool((mask < 0).any()):
        return mask >= 0
    return mask if mask.dtype == torch.bool else mask > 0


def _own(given: Mapping[str, Any], key: str | int, decoding: bool) -> Any:
    """The attention mask of the positions that an output has; a decoder that has none leaves out what has no label."""
    if not decoding or str(key).startswith("encoder_"):
        return given.get("attention_mask")
    mask, labels = given.get("decoder_attention_mask"), given.get("labels")
    return labels != IGNORED if mask is None and isinstance(labels, Tensor) else mask


def _padded(tensor: Tensor, mask: Any, key: str | int) -> Tensor:
    """Zero at padded positions, where the attention mask `[N, T]` fits the tensor `[N, T, …]`."""
    if not isinstance(mask, Tensor) or mask.dim() != 2 or tensor.shape[:2] != mask.shape:
        return tensor
    if tensor.dim() == 2 and not str(key).startswith(_OF_POSITIONS):
        return tensor
    return _zeroed(tensor, attended(mask))


def _labeled(model: nn.Module, batch: Any, decoding: bool) -> Tensor:
    """Where a position has something to predict, `[N, T]`.

    A causal language model predicts at position t what stands at t + 1, and the last position has nothing to predict.
    """
    try:
        labels = batches.labels(batch)
    except ForgetlessError as error:
        raise ForgetlessError(
            f'mask="labels" counts the positions whose label is not {IGNORED}, and the batch has no labels; give them '
            'as "labels" in the dict, or choose positions with mask="auto" or a callable.'
        ) from error
    known = labels != IGNORED
    if decoding or known.dim() != 2 or getattr(model, "loss_type", None) in _ALIGNED:
        return known
    return pad(known[:, 1:], (0, 1))


def _asked(chosen: Mapping[str | int, Tensor], mask: Any, what: str) -> dict[str | int, Tensor]:
    """Zero where a mask that was asked for says so, in every output that has its positions."""
    whole = isinstance(mask, Tensor) and mask.dim() == 2
    fitting = [key for key, each in chosen.items() if whole and each.shape[:2] == mask.shape]
    if not fitting:
        listed = ", ".join(str(tuple(tensor.shape)) for tensor in chosen.values())
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ForgetlessError(
            f"{what} must be [N, T], a number for every position of the output {listed}, not {shape}."
        )
    return {key: _zeroed(each, mask > 0) if key in fitting else each for key, each in chosen.items()}


def _zeroed(tensor: Tensor, counts: Tensor) -> Tensor:
    """The tensor `[N, T, …]`, zero where a position does not count."""
    # Not by a product: NaN at a padded position times 0 is NaN.
    return torch.where(counts.view(*counts.shape, *[1] * (tensor.dim() - 2)), tensor, 0)

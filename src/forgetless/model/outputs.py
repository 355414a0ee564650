"""What F is: the tensors of the model's output whose sensitivity is measured, and their squared norm per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.model import batches
from forgetless.model.masks import Mask, is_encoder_decoder, masked, padded_decoder, refuse_unknown
from forgetless.model.shapes import Float

Forward = Callable[[nn.Module, Any], Any]
Select = str | int | Sequence[str | int] | Callable[[Any], Any] | None


@dataclass(frozen=True)
class Output:
    """F(x; θ), and how to get it.

    Attributes:
        select: which tensors: a name, an index, several of them (their squared norms add), or a callable from the
            model's output to a tensor. By default the logits, else last_hidden_state, else the only tensor.
        forward: (model, batch) → output, where `model(inputs)` is not the way.
        mask: which positions of the tensors count (`masks.masked`).
    """

    select: Select = None
    forward: Forward | None = None
    mask: Mask = "auto"

    def __post_init__(self) -> None:
        refuse_unknown(self.mask)

    def tensors(self, model: nn.Module, batch: Any) -> list[Tensor]:
        """The tensors of F, each `[N, …]`, zero at the positions that do not count.

        Raises:
            ForgetlessError: there is no such output, it is not a float tensor with a row per sample, or the mask does
                not fit it.
        """
        chosen, decoding = self._outputs(model, batch)
        chosen = masked(chosen, self.mask, model, batch, decoding)
        return [torch.view_as_real(each.resolve_conj()) if each.is_complex() else each for each in chosen.values()]

    def counted(self, model: nn.Module, batch: Any) -> dict[str | int, tuple[Tensor, Tensor]]:
        """The tensors of F by name as the model gives them, each beside what of it counts, bool.

        That is `[N, T]` for an output with positions `[N, T, …]`, else the output's own shape.

        Raises:
            ForgetlessError: those of `tensors`.
        """
        chosen, decoding = self._outputs(model, batch)
        alike = {key: each if each.dim() < 3 else each.flatten(2)[..., :1] for key, each in chosen.items()}
        ones = {key: torch.ones_like(each, requires_grad=False) for key, each in alike.items()}
        counts = masked(ones, self.mask, model, batch, decoding)
        return {
            key: (each, (counts[key][..., 0] if each.dim() > 2 else counts[key]) > 0) for key, each in chosen.items()
        }

    def _outputs(self, model: nn.Module, batch: Any) -> tuple[dict[str | int, Tensor], bool]:
        """The tensors of F by name, unmasked, and whether they are a decoder's, beside an encoder's."""
        result = self.result(model, batch)
        chosen = self._chosen(result)
        samples = batches.size(batch)
        for tensor in chosen.values():
            if not tensor.is_floating_point() and not tensor.is_complex():
                raise ForgetlessError(f"the output is {tensor.dtype}, not a float tensor: it has no gradient.")
            if tensor.dim() < 1 or tensor.shape[0] != samples:
                raise ForgetlessError(
                    f"the output has shape {tuple(tensor.shape)} for {samples} samples: its first axis must be the "
                    "sample axis (choose another tensor with output=, or give forward=)."
                )
        return chosen, _decodes(model, batch, result)

    def result(self, model: nn.Module, batch: Any) -> Any:
        """What the model returns for a batch, before tensors of it are chosen."""
        if self.forward is not None:
            return self.forward(model, batch)
        given = batches.inputs(batch)
        return model(**_decoded(model, given, batch)) if isinstance(given, Mapping) else model(given)

    def squared_norms(self, model: nn.Module, batch: Any) -> Float[Tensor, " n"]:
        """`‖F(x_n; θ)‖²` of every sample, `[N]`, at least float32."""
        total = None
        for tensor in self.tensors(model, batch):
            wide = tensor if tensor.element_size() >= 4 else tensor.float()
            norms = wide.reshape(wide.shape[0], -1).square().sum(1)
            total = norms if total is None else total + norms
        assert total is not None
        return total

    def look(self, model: nn.Module, batch: Any) -> list[str]:
        """What should be said of a first batch: members of a tuple that are not used, and padding that may count."""
        said = [batches.left_out(batch) if self.forward is None else None]
        said.append(padded_decoder(model, batch) if self.mask == "auto" else None)
        return [sentence for sentence in said if sentence is not None]

    def _chosen(self, result: Any) -> dict[str | int, Tensor]:
        if callable(self.select):
            return _only_tensor(self.select(result), "what output= returned")
        if self.select is not None:
            keys = [self.select] if isinstance(self.select, (str, int)) else list(self.select)
            return {key: _named(result, key) for key in keys}
        if isinstance(result, Tensor):
            return {"": result}
        for name in ("logits", "last_hidden_state"):
            found = _fields(result).get(name)
            if isinstance(found, Tensor):
                return {name: found}
        return _only_tensor(result, "what forward= returned" if self.forward else "the model's output")


def _decoded(model: nn.Module, given: Mapping[str, Any], batch: Any) -> Mapping[str, Any]:
    """The keywords of an encoder-decoder with its decoder's inputs: the labels, shifted by the model itself."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    shifted = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    told = any(str(key).startswith("decoder_") for key in given)
    if shifted is None or told or not isinstance(labels, Tensor) or labels.dim() != 2:
        return given
    return {**given, "decoder_input_ids": shifted(labels=labels)}


def _decodes(model: nn.Module, batch: Any, result: Any) -> bool:
    """Whether the positions of the output are a decoder's, beside those of an encoder."""
    given = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    return is_encoder_decoder(model, given if isinstance(given, Mapping) else {}) or (
        "encoder_last_hidden_state" in _fields(result)
    )


def _fields(result: Any) -> dict[str | int, Any]:
    if isinstance(result, Mapping):
        return dict(result)
    if hasattr(result, "_asdict"):
        return dict(result._asdict())
    if isinstance(result, (tuple, list)):
        return dict(enumerate(result))
    return {}


def _named(result: Any, key: str | int) -> Tensor:
    fields = _fields(result)
    found = fields.get(key, getattr(result, key, None) if isinstance(key, str) else None)
    if isinstance(key, int) and isinstance(result, Mapping | tuple) and key not in fields:
        found = list(fields.values())[key] if -len(fields) <= key < len(fields) else None
    if not isinstance(found, Tensor):
        raise ForgetlessError(f"the model's output has no tensor {key!r}; it has {_described(result)}.")
    return found


def _only_tensor(result: Any, what: str) -> dict[str | int, Tensor]:
    if isinstance(result, Tensor):
        return {"": result}
    found = {key: value for key, value in _fields(result).items() if isinstance(value, Tensor)}
    if not found and isinstance(result, list) and result and isinstance(result[0], Mapping) and "boxes" in result[0]:
        raise ForgetlessError(
            f"{what} is a list of detections, of which there may be none in a picture; give what the heads compute "
            "before: forward=forgetless.integrations.torchvision.detector_outputs, or a forward= of your own."
        )
    if len(found) != 1:
        raise ForgetlessError(f"{what} is not one tensor; choose with output= or forward= from {_described(result)}.")
    return found


def _described(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"one tensor of shape {tuple(result.shape)}"
    fields = {key: value for key, value in _fields(result).items() if isinstance(value, Tensor)}
    listed = ", ".join(f"{key!r} {tuple(value.shape)}" for key, value in fields.items())
    return listed or f"no tensors (a {type(result).__name__})"

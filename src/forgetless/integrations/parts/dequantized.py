"""A base in 4 or 8 bits (bitsandbytes), computing with its dequantized weights, a few of which are held in float.

Integers have no gradient. What a quantized layer multiplies by is the dequantized weight W, and its importance is that
of W: `g_n = Σ_t d_nt a_ntᵀ` as in any linear layer. Layers that are measured hold W in float as a parameter; the others
make it anew in every forward and every backward pass, so that one W at a time is there beside those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError, brief
from forgetless.model.parameters import canonical

_WEIGHTS = ("Params4bit", "Int8Params")  # of bitsandbytes, which need not be installed
_AGREE = 0.1  # 8 bits round the inputs as well, and 4 bits on some processors compute in bfloat16


def is_quantized(layer: nn.Module) -> bool:
    """Whether the layer keeps its own weight in 4 or 8 bits."""
    return type(layer._parameters.get("weight")).__name__ in _WEIGHTS


def has_quantized(model: nn.Module) -> bool:
    """Whether a linear layer of the model is quantized."""
    return any(_is_linear(each) for each in model.modules())


def _is_linear(layer: nn.Module) -> bool:
    """Whether it is a quantized layer that gradients pass through; those of embeddings end in them."""
    return isinstance(layer, nn.Linear) and is_quantized(layer)


def shape_of(layer: Any) -> tuple[int, int]:
    """The shape [o, i] of a quantized layer's W, which is stored in another."""
    return layer.out_features, layer.in_features


@torch.no_grad()
def weight_of(layer: Any) -> Tensor:
    """W [o, i] of a quantized layer, in the dtype that it comes in.

    Raises:
        ForgetlessError: it is not quantized yet, its scales are lost, its bytes are in another order, or it was not
            made of a linear layer's weight.
    """
    import bitsandbytes.functional as bnb

    weight = layer.weight
    found: Tensor = weight.data
    if type(weight).__name__ == "Params4bit":
        if weight.quant_state is None:
            raise ForgetlessError(
                f"a layer in 4 bits of shape {shape_of(layer)} is not quantized yet, which bitsandbytes does when it "
                "is moved to a device; move the model to its own first (model.to(device))."
            )
        if getattr(weight.quant_state, "packing_format_for_cpu", False):
            raise ForgetlessError(
                f"a layer in 4 bits of shape {shape_of(layer)} was packed for inference on this CPU, and bitsandbytes "
                "does not turn that back exactly; load the model anew, and measure it before it is used in eval mode."
            )
        found = bnb.dequantize_4bit(weight.data, weight.quant_state)
    elif not found.is_floating_point():  # else, with has_fp16_weights=True, it is quantized in every forward pass
        scales = weight.SCB if layer.state.SCB is None else layer.state.SCB
        if scales is None:
            raise ForgetlessError(
                f"a layer in 8 bits of shape {shape_of(layer)} has lost its scales (SCB), which happens where it is "
                "moved or dequantized on a CPU; load the model anew."
            )
        found = bnb.int8_vectorwise_dequant(weight.data, scales.to(weight.device))
    if tuple(found.shape) != shape_of(layer):
        raise ForgetlessError(
            f"a layer in 4 or 8 bits of shape {shape_of(layer)} has dequantized weights of {tuple(found.shape)}, so it "
            "was not made of a linear layer's weight; measure the float network that it comes from."
        )
    return found


class Dequantized(nn.Module):
    """Stands for a quantized layer, which is left unchanged: the same inputs, outputs and bias, with W as `weight`."""

    weight: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self._layer = (layer,)  # in a tuple, so that its integers are no parameters of this module
        self._dtype: torch.dtype | None = getattr(layer, "compute_dtype", None)

    def made(self, dtype: torch.dtype | None = None) -> Tensor:
        """W, in the dtype that the layer computes in or in another."""
        found = weight_of(self._layer[0])
        return found.to(dtype or self._dtype or found.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """`x Wᵀ + b`, computed in the layer's dtype and given in x's."""
        dtype = x.dtype if self._dtype is None or x.dtype == torch.float64 else self._dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return self.product(x.to(dtype), bias).to(x.dtype)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """`x Wᵀ + b` in the dtype of x."""
        return F.linear(x, self.weight.to(x.dtype), bias)


class Held(Dequantized):
    """With W in float as a parameter."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.weight = nn.Parameter(self.made(), requires_grad=False)


class Made(Dequantized):
    """With a W that is made in every forward pass, and in every backward pass again."""

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W."""
        return self.made()

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The same; autograd keeps no W for the backward pass."""
        dtype, device = x.dtype, x.device.type
        if torch.is_autocast_enabled(device) and dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device)  # else autograd would keep the W that autocast makes
        weight = self.made(dtype)
        place = weight.untyped_storage().data_ptr()

        def packed(saved: Tensor) -> Any:
            mine = saved.untyped_storage().data_ptr() == place
            return (saved.shape, saved.stride(), saved.storage_offset()) if mine else saved

        def unpacked(saved: Any) -> Tensor:
            return saved if isinstance(saved, Tensor) else self.made(dtype).as_strided(*saved)

        with torch.autograd.graph.saved_tensors_hooks(packed, unpacked):
            return F.linear(x, weight, bias)


@contextlib.contextmanager
def dequantized(model: nn.Module, held: Collection[nn.Module]) -> Iterator[None]:
    """Inside, every quantized layer of the model computes with its dequantized weights, those of `held` as parameters.

    Raises:
        ForgetlessError: a layer computes something else than its dequantized weights do; nothing has changed then.
    """
    places = [
        (module, name, child)
        for module in model.modules()
        for name, child in module._modules.items()
        if child is not None and _is_linear(child)
    ]
    names = {id(each): canonical(f"{name}.weight") for name, each in model.named_modules()}
    made: dict[int, Dequantized] = {}
    for _, _, child in places:
        if id(child) not in made:
            made[id(child)] = Held(child) if child in held else Made(child)
            _refuse_difference(names[id(child)], child, made[id(child)])
    try:
        for module, name, child in places:
            module._modules[name] = made[id(child)].train(child.training)
        yield
    finally:
        for module, name, child in places:
            module._modules[name] = child


def _refuse_difference(name: str, layer: Any, stand_in: Dequantized) -> None:
    """Look whether both compute the same of two random rows, which ask for gradients as those of a training do.

    bitsandbytes settles the dtypes of a layer and of its bias by the first rows, which these are not to be.
    """
    settled = {name: vars(layer)[name] for name in ("compute_dtype", "compute_type_is_set") if name in vars(layer)}
    bias = None if layer.bias is None else layer.bias.data
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(layer, "compute_dtype", None) or torch.float32
    rows = torch.randn(2, stand_in.in_features, generator=generator).to(layer.weight.device, dtype).requires_grad_()
    try:
        with torch.enable_grad():
            expected, found = layer.forward(rows).detach(), stand_in(rows).detach()
        same = float((found - expected).norm()) <= _AGREE * float(expected.norm())
    except Exception as error:
        raise ForgetlessError(f"{name!r} cannot be run in bitsandbytes: {brief(error)}.") from error
    finally:
        vars(layer).update(settled)
        if bias is not None:
            layer.bias.data = bias
    if not same:
        raise ForgetlessError(
            f"{name!r} computes something else than its dequantized weights do, so that their importance would be that "
            "of another network: measure the float network that it comes from with forgetless.mas; the names are the "
            "same."
        )


def grouped(sizes: Sequence[int], most: int) -> list[list[int]]:
    """The indices of `sizes` in order, in groups of at most `most` together, or one alone where it is larger."""
    found: list[list[int]] = []
    taken = 0
    for index, size in enumerate(sizes):
        if not found or taken + size > most:
            found.append([])
            taken = 0
        found[-1].append(index)
        taken += size
    return found

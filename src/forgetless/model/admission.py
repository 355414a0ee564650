"""Admission: weights that cannot be measured where they are, each refused by name and with a way out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from forgetless.errors import ForgetlessError
from forgetless.model.parameters import canonical, listing
from forgetless.model.sharding import is_sharded


def refuse_places(model: nn.Module) -> None:
    """Refuse weights on several devices, or on none.

    Raises:
        ForgetlessError: as said.
    """
    found: dict[torch.device, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.setdefault(tensor.device, canonical(name))
    hook = next((hook for module in model.modules() if _offloads(hook := getattr(module, "_hf_hook", None))), None)
    if hook is not None:
        raise ForgetlessError(
            "weights of the model are offloaded by accelerate and come to the device only while they are used; load "
            "it on one device (device_map=None)."
        )
    if len(found) > 1:
        listed = ", ".join(f"{name!r} on {device}" for device, name in found.items())
        raise ForgetlessError(f"the model is on several devices: {listed}; move it to one (model.to(device)).")
    for device, name in found.items():
        if device.type == "meta":
            raise ForgetlessError(f"{name!r} is on the meta device and has no values; load the model's weights first.")


def _offloads(hook: object) -> bool:
    """Whether it is a hook of accelerate that moves weights to the device for a pass, or one of several."""
    inner = getattr(hook, "hooks", ())
    return bool(getattr(hook, "offload", False)) or any(_offloads(each) for each in inner)


def refuse_kinds(parameters: Mapping[str, Tensor]) -> None:
    """Refuse trainable weights that torch treats in a way of its own.

    Raises:
        ForgetlessError: made in inference mode, sparse, of a tensor subclass, not leaves of the graph, or two in the
            same memory.
    """
    places: dict[tuple[torch.device, int], str] = {}
    for name, parameter in parameters.items():
        values = parameter.data
        if parameter.is_inference():
            raise ForgetlessError(
                f"{name!r} was made in inference mode and can have no gradient; make or load the model outside of "
                "torch.inference_mode(), or measure a copy of it (copy.deepcopy)."
            )
        if parameter.layout is not torch.strided:
            raise ForgetlessError(
                f"{name!r} is a sparse tensor ({parameter.layout}); make it dense (to_dense()), or leave it out with "
                f"exclude={name!r}."
            )
        if is_sharded(parameter):
            continue
        if is_traceable_wrapper_subclass(values):
            raise ForgetlessError(
                f"{name!r} is a {type(values).__name__}, a tensor that computes in a way of its own (quantized?); "
                f"measure the network with plain weights, or leave it out with exclude={name!r}."
            )
        place = (parameter.device, values.data_ptr())
        if place[1] and place in places:
            raise ForgetlessError(
                f"{places[place]!r} and {name!r} are two parameters in the same memory, so that a step of one moves "
                "the other; tie them as one parameter (b.weight = a.weight), or give each its own (.clone())."
            )
        places[place] = name


def refuse_packed(module: nn.Module) -> None:
    """Refuse layers in 4 bits that a CPU has used for inference.

    Raises:
        ForgetlessError: bitsandbytes has repacked weights, after which a layer passes on no gradients.
    """
    states = {name: getattr(parameter, "quant_state", None) for name, parameter in module.named_parameters()}
    if packed := [canonical(name) for name, each in states.items() if getattr(each, "packing_format_for_cpu", False)]:
        raise ForgetlessError(
            f"bitsandbytes has packed {listing(packed)} for inference on this CPU, after which no gradients pass "
            "through the layer; load the model anew, and measure it before it is used in eval mode."
        )


def unfreezing(module: nn.Module) -> str:
    """What to do with a model in which nothing is trainable."""
    quantized = any(type(each).__module__.startswith(_QUANTIZED) for each in module.modules())
    if quantized or any(not each.is_floating_point() and not each.is_complex() for each in module.parameters()):
        return (
            "its weights are quantized, so measure the float network that they come from, or with adapters the base "
            "(forgetless.integrations.peft.base_importance)"
        )
    return "unfreeze some (requires_grad_(True))"


_QUANTIZED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torchao", "bitsandbytes")


def warn_merged(module: nn.Module) -> None:
    """Say that adapters which are merged into their layer's weights take no part, so that their importance is 0."""
    merged = [
        canonical(name) or type(each).__name__
        for name, each in module.named_modules()
        if getattr(each, "merged", False) is True and any(parameter.requires_grad for parameter in each.parameters())
    ]
    if merged:
        warnings.warn(
            f"the adapters of {listing(merged)} are merged into the weights and take no part in what is computed, so "
            "their importance is 0; unmerge them first (model.train(), or unmerge_adapter() in PEFT).",
            stacklevel=4,
        )


def warn_quantized(module: nn.Module) -> None:
    """Say that linear layers in 4 or 8 bits are left out, where no adapters stand for them."""
    if any(_pairs(each) for each in module.modules()):
        return
    integers = [
        canonical(f"{name}.weight")
        for name, each in module.named_modules()
        if isinstance(each, nn.Linear) and not torch.is_floating_point(each.weight)
    ]
    if integers:
        warnings.warn(
            f"the weights of {listing(integers)} are quantized and have no gradient, so they are not measured: add "
            "LoRA adapters (peft.get_peft_model) and measure with forgetless.integrations.peft.base_importance, which "
            "takes their dequantized weights.",
            stacklevel=4,
        )


def fresh_adapters(module: nn.Module) -> list[str]:
    """The layers with a LoRA adapter in training that changes nothing yet: one of its two matrices is 0."""
    return [canonical(name) for name, each in module.named_modules() if any(_is_fresh(*pair) for pair in _pairs(each))]


def all_fresh(module: nn.Module) -> bool:
    """Whether fresh LoRA adapters are all that learns: then the model without them is the model as it is."""
    return adapters_alone(module) and all(_is_fresh(*pair) for each in module.modules() for pair in _pairs(each))


def adapters_alone(module: nn.Module) -> bool:
    """Whether LoRA adapters that PEFT can switch off are all that training changes, so that the base stays as it is."""
    switched = {id(layer) for each in switches(module) for layer in each.modules()}
    pairs = {id(each): _pairs(each) for each in module.modules()}
    halves = {id(half) for found in pairs.values() for pair in found for half in pair}
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    inside = all(layer in switched for layer, found in pairs.items() if found)
    statistics = any(getattr(each, "running_mean", None) is not None for each in module.modules())  # move in training
    return bool(halves) and inside and not statistics and all(id(each) in halves for each in learning)


def switches(module: nn.Module) -> list[Any]:
    """The models of PEFT at or below a module, which can switch their adapters off."""
    return [each for each in module.modules() if hasattr(each, "peft_config") and hasattr(each, "disable_adapter")]


def warn_fresh(module: nn.Module) -> None:
    """Say that the adapters which are measured are fresh, so that the importance of one half of them is 0."""
    if fresh := fresh_adapters(module):
        warnings.warn(
            f"the LoRA adapters of {listing(fresh)} are fresh (B is 0), so Ω of every A is 0 and protects nothing: "
            "measure the base (forgetless.integrations.peft.base_importance, or forgetless.mas before the model is "
            "wrapped) and protect it with forgetless.DeltaAnchor.",
            stacklevel=4,
        )


def _pairs(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """A and B of each adapter of one of PEFT's LoRA layers."""
    pairs: list[tuple[Any, Any]] = []
    for first, second in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
        a, b = getattr(module, first, None), getattr(module, second, None)
        if isinstance(a, nn.ModuleDict | nn.ParameterDict) and isinstance(b, nn.ModuleDict | nn.ParameterDict):
            pairs += [(getattr(a[name], "weight", a[name]), getattr(b[name], "weight", b[name])) for name in a]
    return pairs


def _is_fresh(a: Tensor, b: Tensor) -> bool:
    trained = a.requires_grad and b.requires_grad
    return trained and bool(a.any()) is not bool(b.any())

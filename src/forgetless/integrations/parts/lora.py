"""PEFT's models: which base weights their adapters move, under which names, and which kinds are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.adapted_layer import (
    Change,
    adapters_of,
    as_matrix,
    base_shape,
    device_of,
    dtype_of,
    effective,
    factor,
    is_plain,
    matrix_shape,
)
from forgetless.integrations.parts.low_rank import AdaptedWeight
from forgetless.model.parameters import canonical, fingerprint, listing, unwrapped
from forgetless.model.sharding import is_sharded


@dataclass(frozen=True)
class LoraModel:
    """A model with LoRA adapters, by the names that its base had before it was wrapped.

    Attributes:
        module: the model.
        layers: base weight's name → PEFT's layer around it.
        copies: name → name in the wrapped model, of what `modules_to_save` copied: the copy in use stands for it.
        parameters: name → parameter, of the whole base, with copies in place of what they are copies of.
    """

    module: nn.Module
    layers: dict[str, Any]
    copies: dict[str, str]
    parameters: dict[str, nn.Parameter]

    @classmethod
    def of(cls, model: nn.Module) -> LoraModel:
        """Read a model.

        Raises:
            ForgetlessError: it has no LoRA adapters, or adapters whose change of the weights is no product of two
                matrices (IA3, prompts, aLoRA, …), is merged already, or is spread over processes.
        """
        module = unwrapped(model)
        _refuse_prompts(module)
        layers = _layers(module)
        if not layers:
            raise ForgetlessError(
                f"{type(module).__name__} has no LoRA adapters: wrap it with peft.get_peft_model first, or protect its "
                "own weights with forgetless.Anchor."
            )
        copies, hidden = _copies(module)
        renamed = {wrapped: name for name, wrapped in copies.items()}
        own = _of_adapters(module)
        parameters = {
            renamed.get(name, name): parameter
            for name, parameter in _every(module).items()
            if id(parameter) not in own and name not in hidden
        }
        return cls(module, layers, copies, parameters)

    def source(self, name: str, found: Collection[str]) -> str | None:
        """Under which of its names a base weight is in `found`: its own, or that of a module that it is tied to."""
        weight = self.layers[name].get_base_layer().weight
        tied = (other for other, parameter in self.parameters.items() if parameter is weight)
        return next((each for each in (name, *tied) if each in found), None)

    def moved(self) -> dict[str, nn.Parameter]:
        """What training can change of the base: adapted weights, copies, and whatever else is trainable."""
        adapted = {id(layer.get_base_layer().weight) for layer in self.layers.values()}
        return {
            name: parameter
            for name, parameter in self.parameters.items()
            if id(parameter) in adapted or name in self.copies or parameter.requires_grad
        }

    def anchored(
        self, name: str, importance: Tensor, compact: bool, parts: Mapping[str, Tensor] | None
    ) -> AdaptedWeight:
        """A base weight with its importance [the weight's shape] and, by its `parts`, Δ*; on the adapters' device.

        Raises:
            ForgetlessError: no adapters change a weight of that name, or a shape does not fit.
        """
        if name not in self.layers:
            raise ForgetlessError(f"no adapter of the model changes {name!r}; adapted are {listing(self.layers)}.")
        layer = self.layers[name]
        if tuple(importance.shape) != base_shape(layer):
            raise ForgetlessError(
                f"the importance of {name!r} has shape {tuple(importance.shape)}, and the weight {base_shape(layer)}."
            )
        device, dtype = device_of(layer), torch.bfloat16 if compact else dtype_of(layer)
        found = AdaptedWeight(name, layer, as_matrix(layer, importance).to(device, dtype).contiguous())
        if parts is not None:
            kept = Change(**{part: tensor.to(device) for part, tensor in parts.items()})
            shapes = [tuple(tensor.shape) for tensor in kept.tensors().values()]
            (rows, columns), rank = matrix_shape(layer), kept.right.shape[0]
            if shapes != [(rows, rank), (rank, columns), (rows,)][: len(shapes)]:
                raise ForgetlessError(f"the change to {name!r} that is kept has shapes {shapes}, which do not fit it.")
            found.kept = kept
        return found

    @contextlib.contextmanager
    def asked(self, names: Collection[str]) -> Iterator[None]:
        """Inside, exactly these parameters require gradients."""
        before = {parameter: parameter.requires_grad for parameter in self.module.parameters()}
        asked = {self.parameters[name] for name in names}
        try:
            for parameter in before:
                parameter.requires_grad_(parameter in asked)
            yield
        finally:
            for parameter, required in before.items():
                parameter.requires_grad_(required)

    def is_fresh(self) -> bool:
        """Whether the adapters change nothing yet."""
        return not any(
            bool(each.a.any()) and bool(each.b.any()) for layer in self.layers.values() for each in adapters_of(layer)
        )

    def scaled(self) -> list[str]:
        """The weights whose rows DoRA scales."""
        return [n for n, layer in self.layers.items() if any(each.magnitude is not None for each in adapters_of(layer))]

    def fingerprints(self, names: Collection[str]) -> dict[str, str]:
        """Those of W + ΔW, of these weights as far as adapters change them; quantized ones are left out."""
        return {
            name: fingerprint(effective(layer))
            for name, layer in self.layers.items()
            if name in names and is_plain(layer)
        }

    def quantized(self) -> list[str]:
        """The base weights in 4 or 8 bits."""
        return [name for name, layer in self.layers.items() if not is_plain(layer)]


_PLAIN = ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d")
_QUANTIZED = ("Linear4bit", "Linear8bitLt")  # around layers of bitsandbytes


def _layers(module: nn.Module) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = {}
    for name, each in module.named_modules():
        if isinstance(each, BaseTunerLayer):
            _refuse_kind(canonical(name), each)
            found[canonical(f"{name}.weight")] = each
    return found


def _refuse_kind(name: str, layer: Any) -> None:
    kind = type(layer).__name__
    lora = type(layer).__module__.startswith("peft.tuners.lora.")
    if not lora or kind not in (*_PLAIN, *_QUANTIZED):
        raise ForgetlessError(
            f"{name!r} has adapters of another kind ({type(layer).__module__}.{kind}): DeltaAnchor protects the base "
            "from LoRA in linear, embedding and convolution layers, where a weight changes by s·B·A; use that, or "
            "leave this layer out of target_modules."
        )
    if not is_plain(layer) and not isinstance(layer.get_base_layer(), nn.Linear):
        raise ForgetlessError(
            f"{name!r} has adapters around a quantized layer that is not linear "
            f"({type(layer.get_base_layer()).__name__}); leave it out of target_modules."
        )
    if getattr(layer.get_base_layer(), "groups", 1) > 1:
        raise ForgetlessError(
            f"{name!r} is a grouped convolution, to which LoRA adds what is no change of its weight; leave it out of "
            "target_modules."
        )
    if layer.merged:
        raise ForgetlessError(f"the adapters of {name!r} are merged into the weight; call unmerge_adapter() first.")
    for adapter in layer.active_adapters:
        _refuse_adapter(name, layer, adapter)


def _refuse_adapter(name: str, layer: Any, adapter: str) -> None:
    a = factor(layer, "A", adapter)
    if a is None:
        return
    variant = layer.lora_variant.get(adapter)
    if variant is not None and not type(variant).__name__.startswith("Dora"):
        raise ForgetlessError(
            f"the adapter {adapter!r} of {name!r} is a variant of LoRA ({type(variant).__name__}) whose change of the "
            "weights is not s·B·A; use LoRA, rsLoRA or DoRA."
        )
    if (
        variant is not None
        and len([each for each in layer.active_adapters if factor(layer, "A", each) is not None]) > 1
    ):
        raise ForgetlessError(
            f"{name!r} has several active adapters, one of them DoRA's ({adapter!r}), which scales the weight itself; "
            "activate one alone (set_adapter), or use LoRA."
        )
    if layer.lora_bias.get(adapter):
        raise ForgetlessError(
            f"the adapter {adapter!r} of {name!r} has a bias (lora_bias=True), which moves the layer's bias without "
            "protection; make it with lora_bias=False."
        )
    if is_sharded(a):
        raise ForgetlessError(
            f"the adapter {adapter!r} of {name!r} is sharded over processes (FSDP2), which DeltaAnchor cannot follow; "
            "train the adapters replicated (DDP)."
        )


def _refuse_prompts(module: nn.Module) -> None:
    configs = [getattr(each, "peft_config", None) or {} for each in module.modules()]
    for adapter, config in (pair for each in configs if isinstance(each, dict) for pair in each.items()):
        if getattr(config, "is_prompt_learning", False) or getattr(config, "is_adaption_prompt", False):
            raise ForgetlessError(
                f"the adapter {adapter!r} learns prompts ({config.peft_type.value}) and changes no weight, so there is "
                "no ΔW to anchor: without the prompt the base answers as before; use LoRA to change it."
            )


def _copies(module: nn.Module) -> tuple[dict[str, str], set[str]]:
    """What `modules_to_save` copied: name → name of the copy in use; and the names that are out of use meanwhile."""
    from peft.utils.other import ModulesToSaveWrapper

    copies, hidden = {}, set()
    for name, each in module.named_modules():
        if not isinstance(each, ModulesToSaveWrapper):
            continue
        used = next((adapter for adapter in each.active_adapters if adapter in each.modules_to_save), None)
        for inside, _ in each.named_parameters(remove_duplicate=False):
            wrapped = canonical(f"{name}.{inside}")
            owner, adapter, _ = (inside + "..").split(".", 2)
            if owner == "original_module":
                if used is None:
                    copies[canonical(f"{name}.{inside.partition('.')[2]}")] = wrapped
                else:
                    hidden.add(wrapped)
            elif adapter == used:
                copies[canonical(f"{name}.{inside.split('.', 2)[2]}")] = wrapped
            else:
                hidden.add(wrapped)
    return copies, hidden


def _of_adapters(module: nn.Module) -> set[int]:
    """The ids of the adapters' own parameters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        id(parameter)
        for each in module.modules()
        if isinstance(each, BaseTunerLayer)
        for attribute in each.adapter_layer_names
        for parameter in getattr(each, attribute).parameters()
    }


def _every(module: nn.Module) -> dict[str, nn.Parameter]:
    return {canonical(name): parameter for name, parameter in module.named_parameters(remove_duplicate=False)}


def refuse_strangers(found: Mapping[str, Tensor], model: LoraModel) -> None:
    """Refuse an importance unless it is one of the model's base.

    Raises:
        ForgetlessError: it is of the adapters themselves, or has names or shapes that the base has not.
    """
    if of_adapters := [name for name in found if ".lora_" in f".{name}"]:
        raise ForgetlessError(
            f"the importance is of the adapters ({listing(of_adapters)}), where fresh ones matter to nothing; measure "
            "the base: forgetless.integrations.peft.base_importance(model, data), or forgetless.mas before wrapping."
        )
    if strangers := [name for name in found if name not in model.parameters]:
        raise ForgetlessError(
            f"the importance does not fit the model, whose base has no {listing(strangers)}; names are those before "
            "the model was wrapped."
        )

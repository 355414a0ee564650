"""Small models with real LoRA adapters, and the penalty on ΔW written densely, from PEFT's own ΔW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from forgetless import Importance


class Net(nn.Module):
    """Integers [n, 4] → embedding → convolution → GPT-2's `Conv1D` → linear head; every kind of adapted weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 5)
        self.filter = nn.Conv2d(1, 3, (2, 3), padding=(0, 1))
        self.mix = Conv1D(4, 15)  # (out, in); its weight is [15, 4]
        self.body = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        pictures = self.filter(self.words(x)[:, None]).tanh()  # [n, 3, 3, 5]
        return self.head(self.body(self.mix(pictures.transpose(1, 2).flatten(2).mean(1)).tanh()).tanh())


def words(seed: int, n: int = 6) -> Tensor:
    return torch.randint(9, (n, 4), generator=torch.Generator().manual_seed(seed))


def wrapped(seed: int = 0, **options: Any) -> peft.PeftModel:
    """A float64 `Net` with fresh adapters."""
    torch.manual_seed(seed)
    options = {"target_modules": ["body", "head"], "r": 2, "lora_alpha": 6, **options}
    return peft.get_peft_model(Net().double(), peft.LoraConfig(**options)).double()


def layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The LoRA layers by the name of their base weight in the base."""
    found = {name.removeprefix("base_model.model."): each for name, each in model.named_modules()}
    return {f"{name}.weight": each for name, each in found.items() if isinstance(each, LoraLayer)}


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: each for name, each in model.named_parameters() if "lora_" in name and each.requires_grad}


def trained(model: nn.Module, seed: int = 1, size: float = 0.4) -> nn.Module:
    """The same model, its A and B somewhere else."""
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in adapters(model).values():
            each.add_(size * torch.randn(each.shape, generator=made, dtype=each.dtype))
    return model


def random_importance(model: nn.Module, seed: int = 2) -> Importance:
    """Ω of every weight under adapters, some of it 0."""
    made = torch.Generator().manual_seed(seed)
    sums = {}
    for name, layer in layers(model).items():
        sums[name] = 8 * torch.rand(layer.get_base_layer().weight.shape, generator=made, dtype=torch.float64)
        sums[name][sums[name] < 1] = 0
    return Importance(sums, 4)


def moved(layer: LoraLayer) -> Tensor:
    """ΔW of all active adapters in the shape of W, by PEFT's own code; differentiable."""
    weight = layer.get_base_layer().weight.detach()
    total = torch.zeros_like(weight)
    for adapter in set(layer.active_adapters) & set(layer.r):
        change = layer.get_delta_weight(adapter)
        if adapter in layer.lora_magnitude_vector:
            magnitude = layer.lora_magnitude_vector[adapter].weight
            by_rows = (weight + change).flatten(1)
            if layer.lora_embedding_A or getattr(layer, "fan_in_fan_out", False):
                by_rows = by_rows.T
            by_rows = magnitude.view(-1, 1) * by_rows / by_rows.norm(dim=1, keepdim=True)
            stored = by_rows.T if layer.lora_embedding_A or getattr(layer, "fan_in_fan_out", False) else by_rows
            change = stored.reshape(weight.shape) - weight
        total = total + change
    return total


def penalty(model: nn.Module, importance: Importance, kept: dict[str, Tensor] | None = None) -> Tensor:
    """`Σ Ω (ΔW − Δ*)²`, densely."""
    omega = importance.mean()
    return sum(
        (omega[name] * (moved(layer) - (0 if kept is None else kept[name])).square()).sum()
        for name, layer in layers(model).items()
        if name in omega
    )


def two_adapters() -> peft.PeftModel:
    model = wrapped()
    model.add_adapter("second", peft.LoraConfig(target_modules=["body"], r=3, lora_alpha=5, use_rslora=True))
    model.base_model.set_adapter(["default", "second"])
    return model.double()


#: What the adapters are → a model with them.
KINDS: dict[str, Callable[[], peft.PeftModel]] = {
    "LoRA": wrapped,
    "rsLoRA": lambda: wrapped(use_rslora=True),
    "dropout": lambda: wrapped(lora_dropout=0.5),
    "rank above the width": lambda: wrapped(r=8),
    "several adapters": two_adapters,
    "Conv1D, fan_in_fan_out": lambda: wrapped(target_modules=["mix"], fan_in_fan_out=True),
    "Embedding": lambda: wrapped(target_modules=["words"]),
    "Conv2d": lambda: wrapped(target_modules=["filter"]),
}
SCALED: dict[str, Callable[[], peft.PeftModel]] = {
    "DoRA": lambda: wrapped(use_dora=True),
    "DoRA, Conv1D": lambda: wrapped(use_dora=True, target_modules=["mix"], fan_in_fan_out=True),
    "DoRA, Embedding": lambda: wrapped(use_dora=True, target_modules=["words"]),
    "DoRA, Conv2d": lambda: wrapped(use_dora=True, target_modules=["filter"]),
}

"""LoRA: adapters learn in the place of a language model's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from forgetless.errors import ForgetlessError

_RANK, _ALPHA = 16, 32


def wrapped(network: nn.Module, seed: int) -> nn.Module:
    """The model with fresh adapters of rank 16, scaled by 2, on all linear layers but the last.

    Args:
        network: a causal language model of transformers.
        seed: decides the adapters' first weights.

    Raises:
        ForgetlessError: PEFT is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ForgetlessError("--lora needs PEFT: pip install 'forgetless[peft]'.") from error
    config = peft.LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(seed)
    made: Any = network
    found = peft.get_peft_model(made, config)
    assert isinstance(found, nn.Module)
    return found


def merged(network: Any) -> nn.Module:
    """The model with what the adapters have learned in its own weights."""
    found = network.merge_and_unload()
    assert isinstance(found, nn.Module)
    return found

"""LoRA: adapters learn in the place of a language model's weights, and what they add to each weight is held back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.lab.finetuning.protected import strength
from forgetless.measure.importance import Importance

FILE = "forgetless.safetensors"  # in a checkpoint's folder
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


def keeper(importance: Importance, chosen: float | str, steps: int) -> Any:
    """A callback of a trainer: a `DeltaAnchor` attached to its optimizer, and saved in its checkpoints.

    Args:
        importance: Ω of the model, measured before it had adapters.
        chosen: λ, or "auto".
        steps: the planned steps, counted in steps at the peak rate.
    """
    from transformers import TrainerCallback

    from forgetless.integrations.peft import DeltaAnchor

    class Keeper(TrainerCallback):
        """Attributes: `anchor`, once training has begun."""

        anchor: DeltaAnchor | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            model, asked = kwargs["model"], strength(chosen, steps)
            self.anchor = DeltaAnchor(model, importance, asked)  # type: ignore[arg-type]
            if state.global_step:
                path = Path(args.output_dir, f"checkpoint-{state.global_step}", FILE)
                dial = None if isinstance(asked, float) else asked
                self.anchor = DeltaAnchor.load(path, model, strength=dial)  # type: ignore[arg-type]
            self.anchor.attach(kwargs["optimizer"])

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.anchor is not None:
                self.anchor.save(Path(args.output_dir, f"checkpoint-{state.global_step}", FILE))

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.anchor is not None:
                self.anchor.detach()

    return Keeper()

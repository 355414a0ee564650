"""`ForgetlessCallback` inside of TRL's `SFTTrainer`: the texts that it takes, also where it packs its own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl")

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

import forgetless
from forgetless.integrations.transformers import FILE, ForgetlessCallback
from tiny_language import language_model, texts, tokenizer

TOKENIZER = tokenizer()
OLD = texts(8, 1)


@pytest.fixture(scope="module")
def expected() -> Tensor:
    """Ω of the old texts, each measured alone."""
    model = language_model()
    found = [forgetless.mas(model, TOKENIZER(text, return_tensors="pt"), progress=False) for text in OLD]
    return flat(found[0].merge(*found[1:]).mean())


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def trained(folder: Path, old: Any, **given: Any) -> tuple[SFTTrainer, forgetless.Anchor]:
    args = SFTConfig(
        str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        max_length=32,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **{"save_strategy": "no", "bf16": False, "gradient_checkpointing": False, "logging_steps": 1, **given},
    )
    callback = ForgetlessCallback(old, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that padding-free wants FlashAttention
        made = SFTTrainer(
            language_model(),
            args,
            train_dataset=Dataset.from_dict({"text": texts(16, 2)}),
            processing_class=TOKENIZER,
            callbacks=[callback],
        )
        made.train()
    assert callback.anchor is not None
    return made, callback.anchor


@pytest.mark.parametrize("packing", [False, True])
def test_texts(tmp_path: Path, expected: Tensor, packing: bool) -> None:
    made, anchor = trained(tmp_path, OLD, packing=packing, save_strategy="steps", save_steps=2)
    torch.testing.assert_close(flat(anchor.importance), expected)
    assert anchor.status().applied == 2
    assert "forgetless/drift" in made.state.log_history[0]
    assert (tmp_path / "checkpoint-2" / FILE).exists()


def test_a_dataset_of_chats(tmp_path: Path) -> None:
    chats = Dataset.from_dict({"messages": [[{"role": "user", "content": text}] for text in OLD]})
    _, anchor = trained(tmp_path, chats, bf16=True, gradient_checkpointing=True)
    assert flat(anchor.importance).any()
    assert anchor.status().applied == 2

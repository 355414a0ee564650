"""Two processes train together, replicated: each measures its part of the old data, and both protect the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import forgetless
import trained_together
from processes import Processes


def agree(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["status"] == second["status"]
    for name in ("importance", "kept", "weights"):
        assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["kept"], first["weights"])


def test_transformers_ddp(two: Processes, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tiny_language import language_model, texts, tokenizer

    two.run(trained_together.loaded, "transformers", "transformers.trainer", "accelerate")
    old = texts(7, 1)
    settings = {"save_strategy": "steps", "save_steps": 2}
    found = two.run(trained_together.transformers, str(tmp_path), old, texts(16, 2), settings)
    agree(*found)
    assert found[0]["status"].steps == 2
    assert found[0]["agreement"] == found[1]["agreement"]
    assert found[0]["files"] == ["checkpoint-2/forgetless.safetensors"]

    words = tokenizer()
    alone = [forgetless.mas(language_model(), words(text, return_tensors="pt"), progress=False) for text in old]
    expected = trained_together.flat(alone[0].merge(*alone[1:]).mean())
    torch.testing.assert_close(found[0]["importance"], expected)


def test_lightning_ddp(two: Processes, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    two.run(trained_together.loaded, "lightning")
    old, new = torch.randn(7, 4), torch.randn(16, 4)
    found = two.run(trained_together.lightning, str(tmp_path), old, new)
    agree(*found)
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    expected = trained_together.flat(forgetless.mas(layer, old, progress=False).mean())
    torch.testing.assert_close(found[0]["importance"], expected)
    assert found[0]["status"].steps == 4


def test_old_answers_under_ddp(two: Processes, tmp_path: Path) -> None:
    """Both go the same way, which is that of one process with the batches of both."""
    pytest.importorskip("transformers")
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    from forgetless.integrations.transformers import ForgetlessCallback
    from tiny_language import language_model, texts, tokenizer

    two.run(trained_together.loaded, "transformers", "transformers.trainer", "accelerate")
    old, new = (texts(16, seed, longest=3) for seed in (1, 2))  # as long as each other: means of means are means
    found = two.run(trained_together.old_answers, str(tmp_path / "two"), old, new, None)
    assert torch.equal(found[0]["weights"], found[1]["weights"])
    assert [each["steps"] for each in found] == [4, 4]
    assert found[0]["files"] == [f"checkpoint-{step}/forgetless.safetensors" for step in (2, 4)]
    words = tokenizer()
    made = Trainer(
        language_model(),
        TrainingArguments(
            str(tmp_path / "one"),
            max_steps=4,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        ),
        data_collator=DataCollatorForLanguageModeling(words, mlm=False),
        train_dataset=[dict(words(text)) for text in new],
        processing_class=words,
        callbacks=[ForgetlessCallback(old, 2.0, method="distillation")],
    )
    made.train()
    alone = trained_together.flat(dict(made.model.named_parameters()))
    torch.testing.assert_close(found[0]["weights"], alone, rtol=1e-3, atol=1e-4)

    try:
        again = two.run(trained_together.old_answers, str(tmp_path / "two"), old, new, 2)
    except AssertionError as error:
        if "don't know how to restore data location" not in str(error):
            raise
        pytest.skip("this transformers resumes nothing that several processes trained on CPUs")
    assert all(torch.equal(each["weights"], found[0]["weights"]) for each in again)

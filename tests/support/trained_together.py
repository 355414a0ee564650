"""What each of several processes does with a trainer: run by `processes`, checked by tests/integrations."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def loaded(rank: int, *packages: str) -> None:
    """Import what takes long, before anybody waits for an answer."""
    for package in packages:
        importlib.import_module(package)


def transformers(rank: int, folder: str, old: list[str], new: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Two steps of a tiny language model by `transformers.Trainer`."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1")
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    from forgetless.integrations.transformers import ForgetlessCallback
    from tiny_language import language_model, tokenizer

    words, callback = tokenizer(), ForgetlessCallback(old, probes=old[:4])
    quiet: dict[str, Any] = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "ddp_backend": "gloo"}
    made = Trainer(
        language_model(),
        TrainingArguments(folder, max_steps=2, per_device_train_batch_size=2, logging_steps=1, **quiet, **settings),
        data_collator=DataCollatorForLanguageModeling(words, mlm=False),
        train_dataset=[dict(words(text)) for text in new],
        processing_class=words,
        callbacks=[callback],
    )
    made.train()
    assert callback.anchor is not None
    return {
        "importance": flat(callback.anchor.importance),
        "kept": flat(callback.anchor.weights),
        "weights": flat(dict(made.model.named_parameters())),
        "status": callback.anchor.status(),
        "agreement": [each["forgetless/agreement"] for each in made.state.log_history if "loss" in each],
        "files": sorted(str(each.relative_to(folder)) for each in Path(folder).rglob("forgetless.safetensors")),
    }


def lightning(rank: int, folder: str, old: Tensor, new: Tensor) -> dict[str, Any]:
    """Four steps of a tiny network by Lightning's `Trainer`."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1")
    import lightning as L
    from torch.utils.data import DataLoader

    from forgetless.integrations.lightning import ForgetlessCallback

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

        def training_step(self, batch: Any, number: int) -> Tensor:
            return self(batch).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    module, callback = Module(), ForgetlessCallback(old[rank::2], probes=old)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    where: dict[str, Any] = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "default_root_dir": folder}
    made = L.Trainer(max_steps=4, enable_checkpointing=False, callbacks=[callback], **quiet, **where)
    made.fit(module, DataLoader(new, batch_size=2))  # type: ignore[arg-type]
    assert callback.anchor is not None
    return {
        "importance": flat(callback.anchor.importance),
        "kept": flat(callback.anchor.weights),
        "weights": flat(dict(module.named_parameters())),
        "status": callback.anchor.status(),
    }


def old_answers(rank: int, folder: str, old: list[str], new: list[str], stop: int | None) -> dict[str, Any]:
    """Four steps of a tiny language model whose old answers are kept; with `stop`, resumed from the step before it."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1")
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    from forgetless.integrations.transformers import ForgetlessCallback
    from tiny_language import language_model, tokenizer

    words, callback = tokenizer(), ForgetlessCallback(old, 2.0, method="distillation")
    quiet: dict[str, Any] = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "ddp_backend": "gloo"}
    saved: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}
    made = Trainer(
        language_model(),
        TrainingArguments(folder, max_steps=4, per_device_train_batch_size=2, **quiet, **saved),
        data_collator=DataCollatorForLanguageModeling(words, mlm=False),
        train_dataset=[dict(words(text)) for text in new],
        processing_class=words,
        callbacks=[callback],
    )
    made.train(resume_from_checkpoint=None if stop is None else f"{folder}/checkpoint-{stop}")
    assert callback.distillation is not None
    return {
        "weights": flat(dict(made.model.named_parameters())),
        "steps": callback.distillation.steps,
        "files": sorted(str(each.relative_to(folder)) for each in Path(folder).rglob("forgetless.safetensors")),
    }


def flat(tensors: dict[str, Any]) -> Tensor:
    """Every number in a row."""
    return torch.cat([tensors[name].detach().flatten() for name in sorted(tensors)])

"""A frozen core in other people's trainers: the ways that docs/freezing.md shows, to the bit what a loop does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgetless.protect.frozen.freeze import FrozenCore
from frozen import same, weights


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """Elements of the one, rows of the others, and the first as a whole."""
    draw = torch.Generator().manual_seed(0)
    masks = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        shape = (1,) * parameter.dim() if not number else parameter.shape[: 1 + number % 2]
        drawn = torch.rand(shape, generator=draw) < (2.0 if not number else 0.6)
        masks[name] = drawn.view(*shape, *(1,) * (parameter.dim() - len(shape))).expand(parameter.shape)
    return masks


def test_transformers_trainer_trains_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

    from tiny_language import language_model, texts, tokenizer

    words = tokenizer()
    rows = [dict(words(text)) for text in texts(16, 2)]

    class Attach(TrainerCallback):
        def __init__(self, core: FrozenCore) -> None:
            self.core = core

        def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
            self.core.attach(optimizer)

    def train(resume: bool) -> tuple[nn.Module, FrozenCore]:
        model = language_model()
        before = weights(model)
        core = FrozenCore(model, masks_of(model))
        made = Trainer(
            model,
            TrainingArguments(
                str(tmp_path), max_steps=4, save_steps=2, save_strategy="steps", per_device_train_batch_size=2,
                learning_rate=1e-2, weight_decay=0.1, use_cpu=True, report_to=[], disable_tqdm=True, seed=3,
                gradient_accumulation_steps=2, save_only_model=False,
            ),
            data_collator=DataCollatorForLanguageModeling(words, mlm=False),
            train_dataset=rows,
            callbacks=[Attach(core)],
        )  # fmt: skip
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2") if resume else None)
        assert same(weights(model), before, core.masks())
        assert not same(weights(model), before)
        return model, core

    whole, core = train(resume=False)
    again, other = train(resume=True)
    assert (core.status().steps, other.status().steps) == (4, 2)
    assert same(weights(whole), weights(again))


def test_lightning(tmp_path: Path) -> None:
    L = pytest.importorskip("lightning")
    from torch.utils.data import DataLoader, TensorDataset

    draw = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 4, generator=draw), torch.randint(0, 3, (16,), generator=draw))

    class Module(L.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
            self.core = FrozenCore(self, masks_of(self))

        def training_step(self, batch: Any, number: int) -> Tensor:
            return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            self.core.attach(optimizer)
            return optimizer

    def loop(module: Any) -> None:
        optimizer = module.configure_optimizers()
        for batch in DataLoader(data, batch_size=2):
            optimizer.zero_grad()
            module.training_step(batch, 0).backward()
            optimizer.step()

    module, by_hand = Module(), Module()
    before = weights(module)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = L.Trainer(
        accelerator="cpu", devices=1, default_root_dir=tmp_path, max_epochs=1, enable_checkpointing=False, **quiet
    )
    trainer.fit(module, DataLoader(data, batch_size=2))
    loop(by_hand)
    assert module.core.status().steps == 8
    assert same(weights(module), before, module.core.masks())
    assert same(weights(module), weights(by_hand))

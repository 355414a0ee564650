"""`ForgetlessCallback` where a model is given to its trainer wrapped by `torch.compile`, whole or a part of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("transformers")
pytest.importorskip("lightning")

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from forgetless import ForgetlessError
from forgetless.integrations import lightning, transformers
from tiny_language import language_model, texts, tokenizer

BACKEND = "aot_eager"
METHODS = ("mas", "distillation")
TOKENIZER = tokenizer()
TOKENS = TOKENIZER(texts(1, 1), return_tensors="pt")["input_ids"]
DRAW = torch.Generator().manual_seed(0)
OLD = torch.randn(12, 4, generator=DRAW)
NEW = DataLoader(TensorDataset(torch.randn(16, 4, generator=DRAW), torch.arange(16) % 3), batch_size=4)


def compiled(model: Any) -> Any:
    return torch.compile(model, backend=BACKEND)


def equal(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def assert_target(anchor: Any, weights: dict[str, Tensor]) -> None:
    """θ* has these names and values."""
    assert anchor.weights.keys() == weights.keys()
    assert all(torch.equal(anchor.weights[name], each) for name, each in weights.items())


# -- transformers


def trained(folder: Path, method: str, how: str, cut: int | None = None) -> tuple[nn.Module, Any]:
    """Six steps, or those after step `cut`, from other weights."""
    model = language_model(0 if cut is None else 9)
    if how == "in place":
        model.compile(backend=BACKEND)
    callback = transformers.ForgetlessCallback(texts(8, 1), 3.0, method=method, probes=texts(4, 1))
    args: dict[str, Any] = {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "save_steps": 2}
    if how == "settings":
        args |= {"torch_compile": True, "torch_compile_backend": BACKEND}
    quiet: dict[str, Any] = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "remove_unused_columns": False}
    trainer = Trainer(
        compiled(model) if how == "wrapped" else model,
        TrainingArguments(str(folder), save_strategy="steps", **args, **quiet),
        train_dataset=[dict(TOKENIZER(text)) for text in texts(32, 2)],
        data_collator=DataCollatorForLanguageModeling(TOKENIZER, mlm=False),
        processing_class=TOKENIZER,
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=None if cut is None else str(folder / f"checkpoint-{cut}"))
    return model, callback


@pytest.mark.parametrize("how", ["wrapped", "settings", "in place"])
@pytest.mark.parametrize("method", METHODS)
def test_a_trainer_of_transformers(tmp_path: Path, method: str, how: str) -> None:
    expected, _ = trained(tmp_path / "plain", method, "plain")
    straight, first = trained(tmp_path / how, method, how)
    resumed, second = trained(tmp_path / how, method, how, cut=2)
    assert equal(straight, expected)
    assert equal(resumed, straight)
    if method == "mas":
        assert_target(second.anchor, dict(language_model().named_parameters()))
    else:
        assert first.distillation.steps == second.distillation.steps == 6
        with torch.no_grad(), second.distillation.before_learning() as teacher:
            assert torch.equal(teacher(TOKENS).logits, language_model()(TOKENS).logits)


def test_a_checkpoint_of_a_model_that_was_wrapped_otherwise_is_refused(tmp_path: Path) -> None:
    """transformers warns of weights that it cannot load, and goes on without them."""
    for before, after in (("plain", "wrapped"), ("wrapped", "plain")):
        trained(tmp_path / before, "mas", before)
        with pytest.raises(ForgetlessError, match=r"given wrapped by torch.compile and is not now, or the other way"):
            trained(tmp_path / before, "mas", after, cut=4)


# -- Lightning


class Module(L.LightningModule):
    def __init__(self, part: Callable[[Any], Any] = lambda layers: layers) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = part(nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: Any, number: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def fitted(folder: Path, method: str, how: str, *, cut: bool = False) -> tuple[nn.Module, Any]:
    """Two epochs, or the second one, from other weights."""
    module = Module(compiled) if how == "a part" else Module()
    if cut:
        with torch.no_grad():
            for each in module.parameters():
                each.add_(0.5)
    if how == "in place":
        module.compile(backend=BACKEND)
    callback = lightning.ForgetlessCallback(OLD, 3.0, method=method, probes=OLD)
    saver = ModelCheckpoint(folder, every_n_train_steps=4, save_top_k=-1, enable_version_counter=False)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    where: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "default_root_dir": folder}
    L.Trainer(callbacks=[callback, saver], max_steps=8, **quiet, **where).fit(
        compiled(module) if how == "wrapped" else module, NEW, ckpt_path=folder / "epoch=0-step=4.ckpt" if cut else None
    )
    return module, callback


@pytest.mark.parametrize("how", ["wrapped", "a part", "in place"])
@pytest.mark.parametrize("method", METHODS)
def test_lightning(tmp_path: Path, method: str, how: str) -> None:
    expected, _ = fitted(tmp_path / "plain", method, "plain")
    straight, first = fitted(tmp_path / how, method, how)
    resumed, second = fitted(tmp_path / how, method, how, cut=True)
    assert equal(straight, expected)
    assert equal(resumed, straight)
    if method == "mas":
        assert_target(second.anchor, dict(Module().named_parameters()))
    else:
        assert first.distillation.steps == second.distillation.steps == 8
        with torch.no_grad(), second.distillation.before_learning() as teacher:
            assert torch.equal(teacher(OLD), Module()(OLD))

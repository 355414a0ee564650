"""`ForgetlessCallback` of trainers whose model has LoRA adapters: its base is measured and protected from them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

import forgetless
from forgetless.integrations.peft import DeltaAnchor
from forgetless.integrations.transformers import ForgetlessCallback
from tiny_language import language_model, texts, tokenizer

TOKENIZER = tokenizer()
OLD = texts(8, 1)
COLLATOR = DataCollatorForLanguageModeling(TOKENIZER, mlm=False)
NEW = [dict(TOKENIZER(text)) for text in texts(32, 2)]


def adapted(seed: int = 0) -> Any:
    model: Any = language_model()
    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"]))


def trainer(folder: Path, *callbacks: TrainerCallback, model: nn.Module | None = None, **given: Any) -> Trainer:
    args = TrainingArguments(
        str(folder),
        **{
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 2,
            "seed": 3,
            **given,
        },
    )
    return Trainer(
        adapted() if model is None else model,
        args,
        train_dataset=NEW,
        data_collator=COLLATOR,
        processing_class=TOKENIZER,
        callbacks=list(callbacks),
    )


def adapters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "lora_" in name}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Attached(TrainerCallback):
    """What a user would write: an anchor of the base, attached to the trainer's optimizer."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        model = language_model()
        loader = torch.utils.data.DataLoader([dict(TOKENIZER(text)) for text in OLD], 8, collate_fn=COLLATOR)
        importance = forgetless.mas(model, loader, progress=False)  # before the model was wrapped
        DeltaAnchor(given["model"], importance, 3.0).attach(given["optimizer"])


def test_it_is_an_anchor_of_the_base_to_the_bit(tmp_path: Path) -> None:
    callback = ForgetlessCallback(OLD, 3.0)
    by_callback, by_hand = trainer(tmp_path, callback), trainer(tmp_path, Attached())
    for made in (by_callback, by_hand):
        made.train()
    assert equal(adapters(by_callback.model), adapters(by_hand.model))
    assert isinstance(callback.anchor, DeltaAnchor)
    assert callback.anchor.status().applied == 6
    assert float(callback.anchor.drift()) > 0
    logged = [each for each in by_callback.state.log_history if "loss" in each]
    assert all(
        {"forgetless/drift", "forgetless/strength", "forgetless/frozen_fraction"} <= set(each) for each in logged
    )


@pytest.mark.parametrize("strength", [3.0, "auto"])
def test_resumed_training_ends_with_the_same_bits(tmp_path: Path, strength: Any) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    whole = ForgetlessCallback(OLD, strength, probes=OLD[:5])
    straight = trainer(tmp_path, whole, **settings)
    straight.train()
    resumed = ForgetlessCallback(["never measured again"], strength, probes=OLD[:5])
    second = trainer(tmp_path, resumed, model=adapted(seed=9), **settings)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert equal(adapters(straight.model), adapters(second.model))
    assert whole.anchor is not None
    assert resumed.anchor is not None
    assert equal(whole.anchor.state_dict(), resumed.anchor.state_dict())
    agreed = [made.state.log_history[-2]["forgetless/agreement"] for made in (straight, second)]
    assert agreed[0] == agreed[1]


def test_a_checkpoint_over_another_base_is_refused(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, ForgetlessCallback(OLD, 1.0), **settings).train()
    other = adapted()
    with torch.no_grad():
        other.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight += 0.1
    with pytest.raises(forgetless.ForgetlessError, match=r"was saved at other weights than the model has now"):
        trainer(tmp_path, ForgetlessCallback(OLD, 1.0), model=other, **settings).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-4")
        )


def test_probes_cannot_be_asked_again_where_the_adapters_had_been_trained(tmp_path: Path) -> None:
    model = adapted()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, ForgetlessCallback(OLD, 1.0, probes=OLD[:4]), model=model, **settings).train()
    with pytest.raises(forgetless.ForgetlessError, match=r"^the adapters had been trained when the model was anchored"):
        trainer(tmp_path, ForgetlessCallback(OLD, 1.0, probes=OLD[:4]), **settings).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-4")
        )


def test_sft_with_a_peft_config(tmp_path: Path) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    callback = ForgetlessCallback(OLD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = trl.SFTTrainer(
            language_model(),
            trl.SFTConfig(str(tmp_path), max_steps=3, use_cpu=True, report_to=[], bf16=False, save_strategy="no"),
            train_dataset=datasets.Dataset.from_dict({"text": texts(16, 2)}),
            processing_class=TOKENIZER,
            peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
            callbacks=[callback],
        )
        made.train()
    assert isinstance(callback.anchor, DeltaAnchor)
    assert callback.anchor.status().steps == 3
    assert set(callback.anchor.importance) == {f"model.layers.{n}.self_attn.q_proj.weight" for n in range(2)}

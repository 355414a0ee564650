"""`ForgetlessCallback(old, method="distillation")` inside of `transformers.Trainer`, with plain models and adapters."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

pytest.importorskip("transformers")

from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

import forgetless
from forgetless import ForgetlessError
from forgetless.files import read_tensors
from forgetless.integrations.transformers import FILE, ForgetlessCallback
from tiny_language import language_model, texts, tokenizer

TOKENIZER = tokenizer()
OLD = texts(8, 1)
COLLATOR = DataCollatorForLanguageModeling(TOKENIZER, mlm=False)
NEW = [dict(TOKENIZER(sentence)) for sentence in texts(32, 2)]
SAVED: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}


def keeping(old: Any = None, strength: Any = "auto", **given: Any) -> ForgetlessCallback:
    return ForgetlessCallback(OLD if old is None else old, strength, method="distillation", **given)


def trainer(
    folder: Path,
    *callbacks: TrainerCallback,
    model: nn.Module | None = None,
    collator: Callable[[list[Any]], Any] = COLLATOR,
    **given: Any,
) -> Trainer:
    """Six steps of a tiny language model."""
    plan: dict[str, Any] = {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-2}
    quiet: dict[str, Any] = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    return Trainer(
        language_model() if model is None else model,
        TrainingArguments(str(folder), **{**plan, **quiet, "logging_steps": 2, "seed": 3, **given}),
        train_dataset=NEW,
        eval_dataset=NEW[:4],
        data_collator=collator,
        processing_class=TOKENIZER,
        callbacks=list(callbacks),
    )


def trained(folder: Path, *callbacks: TrainerCallback, **given: Any) -> Trainer:
    made = trainer(folder, *callbacks, **given)
    made.train()
    return made


def adapted(seed: int = 0, spread: float = 0.0) -> Any:
    """The model with LoRA adapters: fresh ones, or trained ones, whose B is `spread` wide."""
    peft = pytest.importorskip("peft")
    model: Any = language_model()
    torch.manual_seed(seed)
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"]))
    for name, each in model.named_parameters():
        if spread and "lora_B" in name:
            nn.init.normal_(each, std=spread)
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(left: nn.Module, right: nn.Module) -> bool:
    a, b = weights(left), weights(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kept(callback: ForgetlessCallback) -> forgetless.Distillation:
    assert callback.anchor is None
    assert callback.distillation is not None
    return callback.distillation


def divergence(model: nn.Module) -> float:
    """By hand: from what the model answered before training to the old texts, in nats a token."""
    batch = dict(TOKENIZER(OLD, padding=True, return_tensors="pt"))
    with torch.no_grad():
        old, now = (each.eval()(**batch).logits.log_softmax(-1) for each in (language_model(), model))
    counts = batch["attention_mask"]
    return float(((old.exp() * (old - now)).sum(-1) * counts).sum() / counts.sum())


# -- the same as a loop of one's own


@pytest.mark.parametrize("strength", ["auto", 3.0])
def test_it_is_the_plain_loop_to_the_bit(tmp_path: Path, strength: Any) -> None:
    batches = []

    def noting(features: list[Any]) -> Any:
        batches.append(COLLATOR(features))
        return copy.deepcopy(batches[-1])

    settings: dict[str, Any] = {"gradient_accumulation_steps": 2, "lr_scheduler_type": "linear", "max_grad_norm": 0.5}
    settings["optim"] = "adamw_torch_fused"
    rows = [dict(TOKENIZER(text)) for text in OLD]
    made = trained(tmp_path, keeping(rows, strength, seed=4, collate_fn=COLLATOR), collator=noting, **settings)

    model = language_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (6 - step) / 6)
    strength = 1.0 if strength == "auto" else strength
    kept = forgetless.Distillation(model, rows, strength, batch_size=2, collate_fn=COLLATOR, seed=4).attach(optimizer)
    model.train()
    for start in range(0, 12, 2):
        several = batches[start : start + 2]
        _, items = made.get_batch_samples(iter(several), 2, torch.device("cpu"))  # as it counts tokens
        for batch in several:
            model(**batch, num_items_in_batch=items).loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        assert norm > 0.5
        kept.clipped(norm, 0.5)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert equal(made.model, model)
    assert divergence(made.model) < divergence(trained(tmp_path, **settings).model)


def test_without_strength_it_changes_nothing(tmp_path: Path) -> None:
    held = trained(tmp_path, keeping(strength=0.0, probes=OLD[:4]))
    assert equal(trained(tmp_path).model, held.model)
    assert all("forgetless/divergence" not in each for each in held.state.log_history)


# -- old data as people have them


def _datasets(column: str) -> Any:
    datasets = pytest.importorskip("datasets")
    rows = [{"text": text, "source": "old"} if column == "text" else dict(TOKENIZER(text)) for text in OLD]
    return datasets.Dataset.from_list(rows)


FORMS: dict[str, Callable[[], Any]] = {
    "rows": lambda: [{**TOKENIZER(text), "source": "old"} for text in OLD],
    "datasets.Dataset of texts": lambda: _datasets("text"),
    "datasets.Dataset of tokens": lambda: _datasets("tokens"),
    "with empty texts": lambda: [*OLD, "", " "],
    "with rows of empty texts": lambda: [{"text": text} for text in [*OLD, ""]],
}


@pytest.mark.parametrize("form", FORMS)
def test_old_data_in_every_form_give_the_same_training(tmp_path: Path, form: str) -> None:
    expected = trained(tmp_path, keeping(OLD), max_steps=3)
    assert equal(trained(tmp_path, keeping(FORMS[form]()), max_steps=3).model, expected.model)


def test_batches_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [dict(TOKENIZER(text)) for text in OLD]
    parts = [COLLATOR(rows[:5]), COLLATOR(rows[5:])]
    found = [keeping(parts), keeping(DataLoader(rows, batch_size=5, collate_fn=COLLATOR))]  # type: ignore[arg-type]
    assert equal(*(trained(tmp_path, each, max_steps=3).model for each in found))
    assert [kept(each).steps for each in found] == [3, 3]


def test_a_packing_collator_packs_the_old_texts_too(tmp_path: Path) -> None:
    from transformers import DataCollatorWithFlattening

    callback = keeping(batch_size=3)
    trained(tmp_path, callback, collator=DataCollatorWithFlattening(), max_steps=3)
    found = kept(callback)
    assert found.steps == 3
    assert 0 < found.divergence < math.inf


def test_sft(tmp_path: Path) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    callback = keeping()
    quiet: dict[str, Any] = {"use_cpu": True, "report_to": [], "bf16": False, "save_strategy": "no"}
    trl.SFTTrainer(
        language_model(),
        trl.SFTConfig(str(tmp_path), max_steps=3, per_device_train_batch_size=2, **quiet),
        train_dataset=datasets.Dataset.from_dict({"text": texts(16, 2)}),
        processing_class=TOKENIZER,
        callbacks=[callback],
    ).train()
    assert kept(callback).steps == 3
    assert kept(callback).strength == 1.0


# -- checkpoints


def begun(folder: Path, **given: Any) -> Callable[..., Any]:
    """A training that was stopped after four steps; gives what resumes it."""
    trained(folder, keeping(probes=OLD[:5]), **{**SAVED, "max_steps": 6, **given})

    def resume(callback: ForgetlessCallback, model: nn.Module | None = None) -> Trainer:
        made = trainer(folder, callback, model=model, **SAVED)
        made.train(resume_from_checkpoint=str(folder / "checkpoint-4"))
        return made

    return resume


def agreements(made: Trainer) -> list[Any]:
    return [each["forgetless/agreement"] for each in made.state.log_history if "loss" in each]


def test_resumed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    callback = keeping(probes=OLD[:5])
    straight = trained(tmp_path, callback, **SAVED)
    state, _ = read_tensors(tmp_path / "checkpoint-4" / FILE, "distillation")
    begin = language_model().state_dict()
    assert state.keys() == {"steps", "samples", *(f"teacher.{name}" for name in begin)}
    assert all(torch.equal(state[f"teacher.{name}"], value) for name, value in begin.items())
    assert int(state["steps"]) == 4

    resumed = keeping(probes=OLD[:5])
    second = trainer(tmp_path, resumed, model=language_model(seed=9), **SAVED)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert equal(straight.model, second.model)
    assert kept(resumed).steps == kept(callback).steps == 6
    assert kept(resumed).divergence == kept(callback).divergence
    assert agreements(second) == agreements(straight)


@pytest.mark.parametrize("spread", [0.0, 0.3], ids=["fresh", "trained"])
def test_resumed_adapters_end_with_the_same_bits(tmp_path: Path, spread: float) -> None:
    """Fresh ones keep no copy: what the base answers is the target, also when they have been trained since."""
    callback = keeping(strength=5.0, probes=OLD[:5])
    straight = trained(tmp_path, callback, model=adapted(spread=spread), learning_rate=0.2, **SAVED)
    state, _ = read_tensors(tmp_path / "checkpoint-4" / FILE, "distillation")
    assert state.keys() == {"steps", "base", "samples"} if not spread else len(state) > 3
    assert (tmp_path / "checkpoint-4" / FILE).stat().st_size < 10_000 or spread

    resumed = keeping(strength=5.0, probes=OLD[:5])
    second = trainer(tmp_path, resumed, model=adapted(seed=9), learning_rate=0.2, **SAVED)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert equal(straight.model, second.model)
    assert agreements(second) == agreements(straight)
    assert (kept(resumed).state_dict().keys() == {"steps", "base", "samples"}) is (not spread)
    free = trained(tmp_path / "free", model=adapted(spread=spread), learning_rate=0.2)
    assert not equal(free.model, straight.model)
    if not spread:
        with kept(resumed).before_learning():  # the base has the old answers, and they were kept
            assert divergence(second.model) == 0
        assert divergence(second.model) < divergence(free.model)


def test_what_is_resumed_must_be_of_the_same_method(tmp_path: Path) -> None:
    trained(tmp_path / "d", keeping(), **{**SAVED, "max_steps": 2})
    trained(tmp_path / "m", ForgetlessCallback(OLD, 1.0), **{**SAVED, "max_steps": 2})
    for folder, callback, first, own in (
        ("d", ForgetlessCallback(OLD, 1.0), "distillation", "mas"),
        ("m", keeping(), "mas", "distillation"),
    ):
        said = (
            rf'{FILE} is of a training with method="{first}", and ForgetlessCallback was given method="{own}"; resume'
        )
        with pytest.raises(ForgetlessError, match=said):
            trainer(tmp_path / folder, callback, **SAVED).train(resume_from_checkpoint=True)


def test_checkpoints_that_are_refused(tmp_path: Path) -> None:
    trained(tmp_path, keeping(), **{**SAVED, "max_steps": 4})
    file, earlier = (tmp_path / f"checkpoint-{step}" / FILE for step in (4, 2))
    whole = file.read_bytes()

    def refused(said: str, model: nn.Module | None = None) -> None:
        with pytest.raises(ForgetlessError, match=said):
            trainer(tmp_path, keeping(), model=model, **SAVED).train(resume_from_checkpoint=str(file.parent))

    file.write_bytes(earlier.read_bytes())
    refused("saved at other weights than the model has now")
    file.write_bytes(whole[:-9])
    refused(f"{re.escape(str(file))} is damaged|{re.escape(str(file))} cannot be read")
    damaged = bytearray(whole)
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    refused("is damaged")
    file.unlink()
    refused(f"{FILE} is missing, so what the model knew before training is lost")


def test_adapters_over_another_base_are_refused(tmp_path: Path) -> None:
    trained(tmp_path, keeping(), model=adapted(), **{**SAVED, "max_steps": 2})
    other = adapted()
    with torch.no_grad():
        other.base_model.model.model.layers[0].self_attn.k_proj.weight += 0.1
    with pytest.raises(ForgetlessError, match="saved at other weights than the model has now"):
        trainer(tmp_path, keeping(), model=other, **SAVED).train(resume_from_checkpoint=True)


def test_a_second_train_keeps_what_the_first_began_with(tmp_path: Path) -> None:
    callback = keeping()
    made = trained(tmp_path, callback, max_steps=2)
    first = kept(callback)
    inner = made.optimizer.optimizer
    assert not inner._optimizer_step_pre_hooks  # after training the optimizer is free
    made.train()
    assert kept(callback) is first
    assert first.steps == 4
    with first.before_learning() as teacher:
        assert equal(teacher, language_model())


def test_another_model_has_answers_of_its_own(tmp_path: Path) -> None:
    callback = keeping()
    trained(tmp_path, callback, max_steps=1)
    first = kept(callback)
    trained(tmp_path, callback, max_steps=1, model=language_model(seed=5))
    assert kept(callback) is not first


# -- the log


def test_the_figures_are_in_every_log(tmp_path: Path) -> None:
    callback = keeping(strength=2.0, probes=OLD[:6])
    made = trained(tmp_path, callback, eval_strategy="steps", eval_steps=3)
    logged = [each for each in made.state.log_history if "loss" in each]
    own = [{key for key in each if key.startswith("forgetless/")} for each in logged]
    assert own == [{"forgetless/divergence", "forgetless/strength", "forgetless/agreement"}] * 3
    assert logged[-1]["forgetless/divergence"] == kept(callback).divergence > 0
    assert logged[-1]["forgetless/strength"] == 2.0
    judged = [each for each in made.state.log_history if "eval_loss" in each]
    assert len(judged) == 2
    for each in judged:
        joint = math.exp(-each["eval_loss"]) * each["eval_forgetless_agreement"]
        assert math.isclose(each["eval_forgetless_joint"] ** 2, joint)


# -- settings of a trainer


@pytest.mark.parametrize(
    "settings",
    [
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"gradient_accumulation_steps": 4, "max_grad_norm": 0.1},
        {"optim": "adafactor"},
        {"neftune_noise_alpha": 5.0},
        {"torch_compile": True, "torch_compile_backend": "eager"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_work(tmp_path: Path, settings: dict[str, Any]) -> None:
    callback = keeping(strength=20.0)
    held, plain = trained(tmp_path, callback, **settings), trained(tmp_path, **settings)
    assert kept(callback).steps == 6
    assert divergence(held.model) < 0.5 * divergence(plain.model)


def test_it_answers_at_the_trainers_precision(tmp_path: Path) -> None:
    callback = keeping(batch_size=8)
    trained(tmp_path, callback, bf16=True, max_steps=1)
    batch = dict(TOKENIZER(OLD, padding=True, return_tensors="pt"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), kept(callback).before_learning() as teacher:
        assert torch.equal(teacher(**batch).logits, language_model().eval()(**batch).logits.float())


def test_an_optimizer_that_is_swapped_is_refused_before_it_steps(tmp_path: Path) -> None:
    class Swap(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            made.optimizer = torch.optim.SGD(made.model.parameters(), lr=1.0)

    made = trainer(tmp_path, Swap(), keeping())
    with pytest.raises(ForgetlessError, match="the trainer's optimizer was replaced during training"):
        made.train()
    assert made.state.global_step == 1


# -- what is refused


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: keeping(forgetless.Importance({"w": torch.ones(1)}, 1)),
            'method="distillation" shows the model old samples in every step, and an Importance holds none; give',
        ),
        (lambda: keeping("importance.safetensors"), "in every step, and 'importance.safetensors' holds none to read"),
        (lambda: keeping(Path("importance")), "in every step, and 'importance' holds none to read"),
        (lambda: keeping(strength=forgetless.HoldShare()), "HoldShare moves the strength of an anchor, and that of"),
        (lambda: keeping(strength=-1.0), "strength must be a finite number"),
        (lambda: keeping(strength="much"), 'strength must be "auto", a number or a dial'),
        (lambda: keeping(exclude="lm_head"), "'seed' besides, and not 'exclude'; leave that out, or take"),
        (lambda: keeping(()), "there is nothing to protect"),
        (lambda: ForgetlessCallback(OLD, method="ewc"), "method must be one of 'mas', 'distillation', not 'ewc'"),
    ],
)
def test_what_is_refused_at_once(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ForgetlessError, match=re.escape(said)):
        make()


@pytest.mark.parametrize(
    ("old", "said"),
    [
        (lambda: (text for text in OLD), "the old samples can be read only once"),
        (lambda: ["", " "], "all 2 texts of the old data are empty"),
        (lambda: [{"wrong": 1}], "the data collator .* refuses the old data"),
    ],
    ids=["generator", "empty", "collator"],
)
def test_old_data_that_do_not_fit(tmp_path: Path, old: Callable[[], Any], said: str) -> None:
    made = trainer(tmp_path, keeping(old()))
    with pytest.raises(ForgetlessError, match=said):
        made.train()
    assert made.state.global_step == 0


@pytest.mark.parametrize("sharded", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_sharded_training_is_refused(tmp_path: Path, sharded: str) -> None:
    made = trainer(tmp_path, keeping())
    setattr(made, sharded, True)
    with pytest.raises(ForgetlessError, match=r"train with DDP"):
        _begun(made)


def _begun(self: Trainer) -> None:
    """`on_train_begin`, called by a trainer."""
    self.callback_handler.on_train_begin(self.args, self.state, self.control)

"""`ForgetlessCallback` inside of `transformers.Trainer`: what is measured, protected, logged, saved and refused."""

from __future__ import annotations

import copy
import math
import warnings
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
from forgetless.integrations.transformers import FILE, ForgetlessCallback
from tiny_language import language_model, texts, tokenizer

TOKENIZER = tokenizer()
OLD = texts(8, 1)
COLLATOR = DataCollatorForLanguageModeling(TOKENIZER, mlm=False)


def rows(sentences: list[str]) -> list[dict[str, Any]]:
    return [dict(TOKENIZER(sentence)) for sentence in sentences]


NEW = rows(texts(32, 2))


def trainer(folder: Path, *callbacks: TrainerCallback, model: nn.Module | None = None, **given: Any) -> Trainer:
    """Eight steps of a tiny language model."""
    plan: dict[str, Any] = {"max_steps": 8, "per_device_train_batch_size": 2, "learning_rate": 1e-2}
    quiet: dict[str, Any] = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    parts = {key: given.pop(key) for key in ("data_collator", "optimizers", "compute_metrics") if key in given}
    return Trainer(
        language_model() if model is None else model,
        TrainingArguments(str(folder), **{**plan, **quiet, "logging_steps": 2, "seed": 3, **given}),
        train_dataset=NEW,
        eval_dataset=NEW[:4],
        processing_class=TOKENIZER,
        callbacks=list(callbacks),
        **{"data_collator": COLLATOR, **parts},
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def omega(found: forgetless.Importance | ForgetlessCallback) -> Tensor:
    """Every number of Ω in a row."""
    if isinstance(found, ForgetlessCallback):
        assert found.anchor is not None
        tensors = found.anchor.importance
    else:
        tensors = found.mean()
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.fixture(scope="module")
def importance() -> forgetless.Importance:
    """Of the old texts, measured by hand."""
    loader = DataLoader(rows(OLD), batch_size=8, collate_fn=COLLATOR)  # type: ignore[arg-type]
    return forgetless.mas(language_model(), loader, progress=False)


# -- the same as a loop of one's own


def plain_loop(
    made: Trainer, batches: list[Any], importance: forgetless.Importance, strength: Any, accumulated: int
) -> nn.Module:
    """What `made` does, written out: accumulation, clipping, AdamW and a rate that falls linearly to 0."""
    model = language_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (8 - step) / 8)
    forgetless.Anchor(model, importance, strength).attach(optimizer)
    model.train()
    for start in range(0, len(batches), accumulated):
        several = batches[start : start + accumulated]
        _, items = made.get_batch_samples(iter(several), accumulated, torch.device("cpu"))  # as it counts tokens
        for batch in several:
            model(**batch, num_items_in_batch=items).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return model


STRENGTHS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {  # in the callback, and by hand
    "a number": (lambda: 3.0, lambda: 3.0),
    "auto": (lambda: "auto", lambda: forgetless.HoldShare()),
    "a share": (lambda: forgetless.HoldShare(0.9), lambda: forgetless.HoldShare(0.9)),
    "a share, of steps": (lambda: forgetless.HoldShare(0.9, steps=6), lambda: forgetless.HoldShare(0.9, steps=6)),
    "a dial": (lambda: forgetless.DriftBudget(0.5), lambda: forgetless.DriftBudget(0.5)),
}


@pytest.mark.parametrize("strength", STRENGTHS)
def test_it_is_the_plain_loop_to_the_bit(tmp_path: Path, importance: forgetless.Importance, strength: str) -> None:
    batches = []

    def noting(features: list[Any]) -> Any:
        batches.append(COLLATOR(features))
        return copy.deepcopy(batches[-1])

    made = trainer(
        tmp_path,
        ForgetlessCallback(importance, STRENGTHS[strength][0]()),
        data_collator=noting,
        gradient_accumulation_steps=2,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
    )
    made.train()
    by_hand = plain_loop(made, batches[:16], importance, STRENGTHS[strength][1](), 2)
    assert equal(weights(made.model), weights(by_hand))


def test_without_strength_it_changes_nothing(tmp_path: Path) -> None:
    plain, held = trainer(tmp_path), trainer(tmp_path, ForgetlessCallback(OLD, 0.0, probes=OLD[:4]))
    plain.train()
    held.train()
    assert equal(weights(plain.model), weights(held.model))


# -- old data as people have them


def dataset(column: str) -> Any:
    datasets = pytest.importorskip("datasets")
    if column == "text":
        return datasets.Dataset.from_dict({"text": OLD, "source": ["old"] * len(OLD)})
    if column == "messages":
        return datasets.Dataset.from_dict({"messages": [[{"role": "user", "content": text}] for text in OLD]})
    return datasets.Dataset.from_list(rows(OLD))


FORMS: dict[str, Callable[[], Any]] = {
    "texts": lambda: OLD,
    "rows": lambda: rows(OLD),
    "rows with more in them": lambda: [{**row, "source": "old"} for row in rows(OLD)],
    "datasets.Dataset of texts": lambda: dataset("text"),
    "datasets.Dataset of tokens": lambda: dataset("tokens"),
    "a list of batches": lambda: [COLLATOR(rows(OLD[:5])), COLLATOR(rows(OLD[5:]))],
    "a DataLoader": lambda: DataLoader(rows(OLD), batch_size=6, collate_fn=COLLATOR),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("form", FORMS)
def test_old_data_in_every_form_give_the_same_importance(
    tmp_path: Path, importance: forgetless.Importance, form: str
) -> None:
    callback = ForgetlessCallback(FORMS[form](), 1.0)
    trainer(tmp_path, callback, max_steps=1).train()
    torch.testing.assert_close(omega(callback), omega(importance))


def test_chats_pass_the_template(tmp_path: Path) -> None:
    callback = ForgetlessCallback(dataset("messages"), 1.0)
    trainer(tmp_path, callback, max_steps=1).train()
    loader = DataLoader(rows([f"{text} <eos>" for text in OLD]), batch_size=8, collate_fn=COLLATOR)  # type: ignore[arg-type]
    torch.testing.assert_close(omega(callback), omega(forgetless.mas(language_model(), loader, progress=False)))


def test_an_importance_or_its_file(tmp_path: Path, importance: forgetless.Importance) -> None:
    importance.save(tmp_path / "importance.safetensors")
    for given in (importance, tmp_path / "importance.safetensors", str(tmp_path / "importance.safetensors")):
        callback = ForgetlessCallback(given, 1.0)
        trainer(tmp_path, callback, max_steps=1).train()
        assert torch.equal(omega(callback), omega(importance))


def test_what_mas_takes_is_passed_on(tmp_path: Path) -> None:
    callback = ForgetlessCallback(OLD, 1.0, exclude="lm_head")
    trainer(tmp_path, callback, max_steps=1).train()
    assert callback.anchor is not None
    assert "lm_head.weight" not in callback.anchor.weights


@pytest.mark.parametrize("given", [OLD, [{"text": text} for text in OLD]], ids=["texts", "rows"])
def test_a_collate_fn_takes_rows_as_they_are(tmp_path: Path, importance: forgetless.Importance, given: Any) -> None:
    def collate(found: list[Any]) -> Any:
        sentences = [each if isinstance(each, str) else each["text"] for each in found]
        return TOKENIZER(sentences, padding=True, return_tensors="pt")

    callback = ForgetlessCallback(given, 1.0, collate_fn=collate)
    made = trainer(tmp_path, callback, max_steps=1)
    made.processing_class = None
    made.train()
    torch.testing.assert_close(omega(callback), omega(importance))


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layer(pixel_values)
        return {"logits": logits} if labels is None else {"loss": logits.square().mean(), "logits": logits}


SAMPLES = [{"pixel_values": torch.randn(3, generator=torch.Generator().manual_seed(k)), "labels": 0} for k in range(10)]


@pytest.mark.parametrize(
    "settings", [{}, {"torch_compile": True, "torch_compile_backend": "eager"}], ids=["", "compiled"]
)
def test_rows_of_a_classifier_without_a_tokenizer(tmp_path: Path, settings: dict[str, Any]) -> None:
    pictures = torch.stack([each["pixel_values"] for each in SAMPLES])  # type: ignore[misc]
    expected = forgetless.mas(Classifier(), pictures, progress=False)
    callback = ForgetlessCallback(SAMPLES, 1.0)
    args = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, report_to=[], disable_tqdm=True, **settings)
    Trainer(Classifier(), args, train_dataset=SAMPLES, callbacks=[callback]).train()
    torch.testing.assert_close(omega(callback), omega(expected))
    assert callback.anchor is not None
    assert callback.anchor.status().applied == 2


# -- checkpoints


class Stop(TrainerCallback):
    """Ends training after a step, as a lost machine would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("chosen", ["a number", "auto", "a share", "a share, of steps"])
def test_resumed_training_ends_with_the_same_bits(
    tmp_path: Path, importance: forgetless.Importance, chosen: str
) -> None:
    strength = STRENGTHS[chosen][0]
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8}
    whole = ForgetlessCallback(importance, strength(), probes=OLD[:5])
    straight = trainer(tmp_path / "straight", whole, **settings)
    straight.train()
    begin = weights(language_model())
    trainer(tmp_path / "cut", ForgetlessCallback(importance, strength(), probes=OLD[:5]), Stop(4), **settings).train()

    resumed = ForgetlessCallback(["never measured again"], strength(), probes=OLD[:5])
    second = trainer(tmp_path / "cut", resumed, model=language_model(seed=9), **settings)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-4"))

    assert equal(weights(straight.model), weights(second.model))
    assert whole.anchor is not None
    assert resumed.anchor is not None
    assert all(torch.equal(value, begin[name]) for name, value in resumed.anchor.weights.items())
    assert equal(whole.anchor.state_dict(), resumed.anchor.state_dict())
    straight_on, cut = (
        [each["forgetless/agreement"] for each in made.state.log_history if "loss" in each]
        for made in (straight, second)
    )
    assert straight_on == cut


def test_a_checkpoint_without_the_file_is_refused(tmp_path: Path, importance: forgetless.Importance) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    trainer(tmp_path, **settings).train()
    with pytest.raises(forgetless.ForgetlessError, match=r"checkpoint-2/forgetless.safetensors is missing, so"):
        trainer(tmp_path, ForgetlessCallback(importance), **{**settings, "max_steps": 4}).train(
            resume_from_checkpoint=True
        )


def test_a_file_of_another_checkpoint_is_refused(tmp_path: Path, importance: forgetless.Importance) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trainer(tmp_path, ForgetlessCallback(importance), **settings).train()
    (tmp_path / "checkpoint-2" / FILE).replace(tmp_path / "checkpoint-4" / FILE)
    again = trainer(tmp_path, ForgetlessCallback(importance), **{**settings, "max_steps": 6})
    with pytest.raises(forgetless.ForgetlessError, match="saved at other weights than the model has now: it is of"):
        again.train(resume_from_checkpoint=True)


def test_it_is_there_before_a_checkpoint_is_uploaded(tmp_path: Path, importance: forgetless.Importance) -> None:
    made = trainer(tmp_path, ForgetlessCallback(importance), save_strategy="steps", save_steps=2, max_steps=2)
    made.train()
    file = tmp_path / "checkpoint-2" / FILE
    file.unlink()
    made.callback_handler.on_push_begin(made.args, made.state, made.control)
    assert file.exists()


# -- the log


class Reporter(TrainerCallback):
    """Stands before the user's callbacks, as those of TensorBoard and W&B do."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(dict(logs))


def test_the_figures_are_in_every_log(tmp_path: Path, importance: forgetless.Importance) -> None:
    reporter, callback = Reporter(), ForgetlessCallback(importance, 2.0, probes=OLD[:6])
    made = trainer(tmp_path, reporter, callback, max_steps=4)
    made.train()
    figures = {"drift", "strength", "frozen_fraction", "agreement"}
    for logs in (reporter.logs, made.state.log_history):
        trained = [each for each in logs if "loss" in each]
        assert len(trained) == 2
        assert all({f"forgetless/{name}" for name in figures} <= each.keys() for each in trained)
        assert trained[-1]["forgetless/strength"] == 2.0
        assert trained[-1]["forgetless/drift"] > 0
    assert callback.anchor is not None
    assert trained[-1]["forgetless/drift"] == float(callback.anchor.drift())


def test_the_best_model_is_best_in_old_and_new_together(tmp_path: Path, importance: forgetless.Importance) -> None:
    made = trainer(
        tmp_path,
        ForgetlessCallback(importance, 0.1, probes=OLD),
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="forgetless_joint",
    )
    made.train()
    evaluated = {each["step"]: each for each in made.state.log_history if "eval_loss" in each}
    joint = {step: each["eval_forgetless_joint"] for step, each in evaluated.items()}
    for step, each in evaluated.items():
        assert math.isclose(joint[step] ** 2, math.exp(-each["eval_loss"]) * each["eval_forgetless_agreement"])
    best = max(joint, key=lambda step: joint[step])
    assert made.state.best_metric == joint[best]
    assert best != max(evaluated)  # else the last weights would pass too
    assert math.isclose(made.evaluate()["eval_forgetless_joint"], joint[best])


def test_new_skill_names_the_metric(tmp_path: Path, importance: forgetless.Importance) -> None:
    def metrics(predictions: Any) -> dict[str, float]:
        return {"accuracy": 0.25, "points": 7.0, "odd_loss": -1.0, "lost": math.nan}

    callback = ForgetlessCallback(importance, 1.0, probes=OLD[:4], new_skill="eval_accuracy")
    made = trainer(tmp_path, callback, max_steps=1, compute_metrics=metrics)
    made.train()
    found = made.evaluate()
    assert math.isclose(found["eval_forgetless_joint"], math.sqrt(0.25 * found["eval_forgetless_agreement"]))
    for name in ("eval_points", "eval_odd_loss"):
        callback._new_skill = name
        with pytest.raises(forgetless.ForgetlessError, match=rf"'{name}' must be a share in \[0, 1\] or a loss"):
            made.evaluate()
    callback._new_skill = "eval_lost"
    assert math.isnan(made.evaluate()["eval_forgetless_joint"])


# -- settings of a trainer


@pytest.mark.parametrize(
    "settings",
    [
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"gradient_accumulation_steps": 4, "max_grad_norm": 0.1},
        {"lr_scheduler_type": "cosine", "warmup_steps": 2},
        {"optim": "adafactor"},
        {"neftune_noise_alpha": 5.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_work(tmp_path: Path, importance: forgetless.Importance, settings: dict[str, Any]) -> None:
    plain, callback = trainer(tmp_path, **settings), ForgetlessCallback(importance, 1000.0)
    held = trainer(tmp_path, callback, **settings)
    plain.train()
    held.train()
    assert callback.anchor is not None
    status = callback.anchor.status()
    assert (status.steps, status.applied) == (8, 8)
    start = language_model().state_dict()

    def moved(model: nn.Module) -> float:
        return sum(float((value - start[name]).square().sum()) for name, value in weights(model).items())

    assert moved(held.model) < 0.1 * moved(plain.model)


def test_it_measures_at_the_trainers_precision(tmp_path: Path, importance: forgetless.Importance) -> None:
    callback = ForgetlessCallback(OLD, 1.0)
    trainer(tmp_path, callback, max_steps=1, bf16=True).train()
    with torch.autocast("cpu", torch.bfloat16):
        expected = forgetless.mas(language_model(), COLLATOR(rows(OLD)), progress=False)
    error = (omega(callback) - omega(expected)).norm() / omega(expected).norm()
    assert error < 0.01 < (omega(importance) - omega(expected)).norm() / omega(expected).norm() * 10
    assert not torch.equal(omega(callback), omega(importance))


def test_a_second_train_keeps_what_the_first_began_with(tmp_path: Path, importance: forgetless.Importance) -> None:
    callback = ForgetlessCallback(importance, 1.0)
    made = trainer(tmp_path, callback, max_steps=2)
    start = weights(made.model)
    made.train()
    first = callback.anchor
    made.train()
    assert callback.anchor is first
    assert first is not None
    assert all(torch.equal(value, start[name]) for name, value in first.weights.items())
    assert first.status().steps == 4


def test_after_training_the_optimizer_is_free(tmp_path: Path, importance: forgetless.Importance) -> None:
    callback = ForgetlessCallback(importance, 1.0)
    made = trainer(tmp_path, callback, max_steps=1)
    made.train()
    assert callback.anchor is not None
    inner = made.optimizer.optimizer
    assert not inner._optimizer_step_post_hooks
    assert not inner._optimizer_step_pre_hooks
    callback.anchor.penalty()


def test_another_model_is_measured_anew(tmp_path: Path) -> None:
    callback = ForgetlessCallback(OLD, 1.0)
    trainer(tmp_path, callback, max_steps=1).train()
    first = callback.anchor
    trainer(tmp_path, callback, max_steps=1, model=language_model(seed=5)).train()
    assert callback.anchor is not first


# -- what is refused


def test_nothing_to_protect() -> None:
    for nothing in (None, [], ()):
        with pytest.raises(forgetless.ForgetlessError, match="there is nothing to protect: give old data"):
            ForgetlessCallback(nothing)


@pytest.mark.parametrize(
    ("old", "said"),
    [
        (
            lambda: [{"wrong": 1}, {"wrong": 2}],
            r"the data collator \(RemoveColumnsCollator\) refuses the old data: .*input_ids",
        ),
        (lambda: dataset("text").select([]), "the old data hold no samples"),
        (
            lambda: forgetless.mas(nn.Linear(2, 2), torch.ones(1, 2), progress=False),
            "the importance does not fit the model",
        ),
    ],
    ids=["collator", "empty", "another model's"],
)
def test_old_data_that_do_not_fit(tmp_path: Path, old: Callable[[], Any], said: str) -> None:
    made = trainer(tmp_path, ForgetlessCallback(old()))
    with pytest.raises(forgetless.ForgetlessError, match=said):
        made.train()
    assert made.state.global_step == 0


def test_texts_need_a_tokenizer(tmp_path: Path) -> None:
    made = trainer(tmp_path, ForgetlessCallback(OLD))
    made.processing_class = None
    with pytest.raises(forgetless.ForgetlessError, match="the trainer has no tokenizer"):
        made.train()


def test_new_tokens_are_free_and_said(tmp_path: Path, importance: forgetless.Importance) -> None:
    model = language_model()
    model.resize_token_embeddings(40, mean_resizing=False)
    callback = ForgetlessCallback(importance, 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, callback, max_steps=1, model=model).train()
    said = [str(each.message) for each in caught if "importance" in str(each.message)]
    assert len(said) == 1
    assert "'model.embed_tokens.weight' has 8 new rows; 'lm_head.weight' has 8 new rows, which are free" in said[0]
    assert callback.anchor is not None
    found = callback.anchor.importance["lm_head.weight"]
    torch.testing.assert_close(found[:32], importance.mean()["lm_head.weight"])
    assert not found[32:].any()


def test_a_model_that_lost_tokens_is_refused(tmp_path: Path, importance: forgetless.Importance) -> None:
    made = trainer(tmp_path, ForgetlessCallback(importance), model=language_model(vocabulary=40))
    made.model.resize_token_embeddings(30, mean_resizing=False)
    with pytest.raises(forgetless.ForgetlessError, match=r"model.embed_tokens.weight \(32, 16\) instead of \(30, 16\)"):
        made.train()


def test_an_optimizer_that_is_swapped_is_refused_before_it_steps(
    tmp_path: Path, importance: forgetless.Importance
) -> None:
    class Swap(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            made.optimizer = torch.optim.SGD(made.model.parameters(), lr=1.0)

    made = trainer(tmp_path, Swap(), ForgetlessCallback(importance))
    with pytest.raises(forgetless.ForgetlessError, match="the trainer's optimizer was replaced during training"):
        made.train()
    assert made.state.global_step == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: setattr(made, "is_deepspeed_enabled", True), "DeepSpeed's optimizers train copies"),
        (lambda made: setattr(made, "is_fsdp_enabled", True), "does not protect what FSDP shards"),
        (lambda made: setattr(made.state, "is_hyper_param_search", True), "hyperparameter_search"),
        (lambda made: made.add_callback(ForgetlessCallback(OLD)), "two ForgetlessCallbacks"),
    ],
    ids=["deepspeed", "fsdp", "search", "two"],
)
def test_training_that_cannot_be_protected(tmp_path: Path, change: Callable[[Trainer], Any], said: str) -> None:
    """As the trainer would call it: a trainer that really has these would need their packages, or processes."""
    made = trainer(tmp_path, ForgetlessCallback(OLD), save_strategy="steps")
    change(made)
    with pytest.raises(forgetless.ForgetlessError, match=said):
        _begun(made)


def _begun(self: Trainer) -> None:
    """`on_train_begin`, called by a trainer."""
    self.callback_handler.on_train_begin(self.args, self.state, self.control)


def test_outside_of_a_trainer(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    with pytest.raises(forgetless.ForgetlessError, match=r"works inside of a transformers\.Trainer"):
        ForgetlessCallback(OLD).on_train_begin(made.args, made.state, made.control)


def test_old_answers_are_kept_in_a_trainer(tmp_path: Path) -> None:
    """Without the callback: the optimizer is made first, and what is attached to it acts in every step."""
    batch = dict(TOKENIZER(texts(8, 1), return_tensors="pt", padding=True))
    found = {}
    for strength in (0.0, 20.0):
        run = trainer(tmp_path, gradient_accumulation_steps=2)
        run.create_optimizer()
        kept = forgetless.Distillation(run.model, batch, strength, batch_size=8).attach(run.optimizer)
        run.train()
        assert kept.steps == (8 if strength else 0)
        kept.detach()
        kept.strength = 1.0
        found[strength] = float(kept.loss())
    assert found[20.0] < 0.6 * found[0.0]

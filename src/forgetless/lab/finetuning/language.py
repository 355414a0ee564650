"""A causal language model learns new texts, in `transformers.Trainer`."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless import files
from forgetless.errors import ForgetlessError, brief
from forgetless.lab.finetuning import adapters
from forgetless.lab.finetuning.protected import strength
from forgetless.lab.finetuning.samples import Samples
from forgetless.lab.finetuning.training import Figures, Numbers, Tell, Training, timed
from forgetless.measure.importance import Importance
from forgetless.model import batches
from forgetless.protect.distillation import Distillation

_SAVES = 10  # checkpoints in a training
_MOST_LOSS = 700.0  # whose exponential is still a number
_IGNORED = -100  # a label that counts for nothing


class LanguageTraining(Training):
    """The next token's cross-entropy on every token that is no padding."""

    def figures(self) -> Figures:
        """The perplexity of the held-out texts, `exp` of the mean cross-entropy per token."""
        found: Figures = {}
        if self.old is not None:
            found["old_perplexity"] = self._perplexity(self.old)
        found["new_perplexity"] = self._perplexity(self.new)
        return found

    @torch.no_grad()
    def _perplexity(self, samples: Samples) -> float:
        self.network.eval()
        total, count = 0.0, 0
        for inputs in self.batches_of(samples, held=True):
            batch: Any = self.on_device(_labeled(inputs))
            with self.asked():
                losses = _losses(self.network(**batches.inputs(batch)).logits, batch["labels"])
            total += float(losses.double().sum())
            count += int((batch["labels"][:, 1:] != _IGNORED).sum())
        mean = total / max(1, count)
        if not mean < _MOST_LOSS:
            raise ForgetlessError(
                f"the cross-entropy of held-out texts is {mean:g} nats a token, so the model has lost its way; lower "
                f"--lr (now {self.plan.lr:g})."
            )
        return math.exp(mean)

    def train(self, importance: Importance | None, folder: Path, tell: Tell) -> None:
        """AdamW without decay, gradients clipped to norm 1, the rate falling to 0 linearly.

        A GPU that has bfloat16 computes in it.
        """
        from transformers import PrinterCallback

        keeper = self._keeper(importance)
        if self.plan.lora:
            self.network = adapters.wrapped(self.network, self.plan.seed)
        trainer = _trainer()(
            model=self.network,
            args=self._arguments(folder),
            train_dataset=Numbers(self.new.numbers),
            data_collator=self._collate,
            callbacks=[*filter(None, [keeper])],
        )

        def report(step: int, steps: int) -> None:
            self.reached(step, trainer.latest, None if keeper is None else keeper.anchor or keeper.distillation)
            tell("learning", step, steps)

        trainer.add_callback(_progress(report))
        trainer.remove_callback(PrinterCallback)
        with _written(folder):
            trainer.train(resume_from_checkpoint=_latest(folder, protected=keeper is not None))
        kept = None if keeper is None else keeper.anchor or keeper.distillation
        self.strength = None if kept is None else kept.strength
        self.frozen = None if keeper is None or keeper.anchor is None else keeper.anchor.status().frozen_fraction
        self._refuse_nonfinite()

    def _keeper(self, importance: Importance | None) -> Any:
        """The callback that protects; None without protection."""
        from forgetless.integrations.transformers import ForgetlessCallback

        plan = self.plan
        if plan.method == "distillation":
            assert self.old is not None
            old, collate = Numbers(self.old.numbers), self.old_batch
            return ForgetlessCallback(old, plan.strength, method="distillation", collate_fn=collate, seed=plan.seed)
        if importance is None:
            return None
        return ForgetlessCallback(importance, strength(plan.strength, plan.hold))

    def _arguments(self, folder: Path) -> Any:
        from transformers import TrainingArguments

        plan, gpu = self.plan, self.device.type == "cuda"
        return TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=plan.batch_size,
            per_device_eval_batch_size=plan.batch_size,
            learning_rate=plan.lr,
            num_train_epochs=plan.epochs,
            lr_scheduler_type="linear",
            seed=plan.seed,
            save_strategy="steps",
            save_steps=max(1, self.steps // _SAVES),
            save_total_limit=2,
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            remove_unused_columns=False,
            dataloader_pin_memory=gpu,
            use_cpu=not gpu,
            bf16=gpu and torch.cuda.is_bf16_supported(),
        )

    def _collate(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        inputs, _ = self.new.take(list(numbers))
        return _labeled(inputs)

    def _refuse_nonfinite(self) -> None:
        for name, parameter in self.network.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise ForgetlessError(f"the weights {name!r} became NaN or Inf; lower --lr (now {self.plan.lr:g}).")

    def save(self, folder: Path) -> None:
        """The model and its tokenizer; what adapters have learned is in its weights then."""
        self.loaded.save(adapters.merged(self.network) if self.plan.lora else self.network, (), folder)

    def try_step(self, method: str) -> float:
        """AdamW, once."""
        if self.plan.lora and not hasattr(self.network, "peft_config"):
            self.network = adapters.wrapped(self.network, self.plan.seed)
        self.network.train()
        optimizer = torch.optim.AdamW(
            [each for each in self.network.parameters() if each.requires_grad], self.plan.lr, weight_decay=0.0
        )
        if method == "distillation":
            assert self.old is not None
            old, size = Numbers(self.old.numbers), self.plan.batch_size
            Distillation(self.network, old, batch_size=size, collate_fn=self.old_batch).attach(optimizer)
        batch: Any = self.on_device(self._collate(self.new.numbers[: self.plan.batch_size]))

        def step() -> None:
            torch.autograd.backward(self.network(**batch).loss)
            optimizer.step()

        return timed(step)


def _labeled(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the token numbers as labels, but for padding."""
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, _IGNORED)
    return {**inputs, "labels": labels}


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of every next token, 0 at padding: `[N, T, vocabulary]`, `[N, T]` → `[N (T − 1)]`."""
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=_IGNORED, reduction="none"
    )


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Turn what the trainer raises when it cannot write a checkpoint into a sentence."""
    with files.told(folder):
        try:
            yield
        except Exception as error:
            # Of safetensors, which is not loaded here; torch.save has no kind of error of its own.
            if type(error).__name__ != "SafetensorError" and "inline_container" not in str(error):
                raise
            raise ForgetlessError(f"{folder} cannot be written, perhaps the disk is full: {brief(error)}.") from error


def _trainer() -> Any:
    from transformers import Trainer

    class Keeping(Trainer):
        """A trainer that keeps the loss of the latest step, which it tells no callback."""

        latest: Tensor

        def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
            self.latest = super().training_step(*args, **kwargs)
            return self.latest

    return Keeping


def _progress(report: Callable[[int, int], None]) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            report(state.global_step, state.max_steps)

    return Progress()


def _latest(folder: Path, *, protected: bool) -> str | None:
    """The newest checkpoint that was written whole: the files that are written last are there."""
    from forgetless.integrations.transformers import FILE

    last = FILE if protected else "trainer_state.json"
    whole = [each for each in folder.glob(f"checkpoint-*/{last}") if protected or _is_json(each)]
    found = {int(each.parent.name.rpartition("-")[2]): each.parent for each in whole}
    return str(found[max(found)]) if found else None


def _is_json(path: Path) -> bool:
    """Whether a file that the trainer does not write at once is whole."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return True

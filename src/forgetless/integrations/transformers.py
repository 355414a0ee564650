"""`ForgetlessCallback` for `transformers.Trainer`, and the trainers that are made of it (TRL's `SFTTrainer`, …)."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.integrations.parts.held_weights import HeldWeights
from forgetless.integrations.parts.kept_answers import KeptAnswers
from forgetless.integrations.parts.methods import protection, refuse_other_file
from forgetless.integrations.parts.protection import Protection, Reader
from forgetless.integrations.parts.rows import Collate, collated, filled, opened
from forgetless.model.parameters import fingerprint, named
from forgetless.model.sharding import is_sharded
from forgetless.protect.anchor import Anchor
from forgetless.protect.distillation import Distillation
from forgetless.protect.strength.dial import Dial

FILE = "forgetless.safetensors"  # in every checkpoint's folder
JOINT = "eval_forgetless_joint"


class ForgetlessCallback(TrainerCallback):
    """Protects what a model can do while a `transformers.Trainer` teaches it something new.

        trainer = SFTTrainer(model, args, train_dataset=new, callbacks=[ForgetlessCallback(old_texts)])
        trainer.train()

    Before the first step the importance of every parameter is measured on the old data (`forgetless.mas`), with the
    trainer's own data collator, tokenizer, device and precision, and an `Anchor` is attached to its optimizer. Every
    checkpoint holds θ* and Ω (`forgetless.safetensors`), from which training goes on when it is resumed. A second
    `train()` of the same model protects the same θ*. Of a model with LoRA adapters the base is measured and protected
    from what they add to it (`forgetless.DeltaAnchor`).

    With `method="distillation"` nothing is measured: the model's answers to the old data before the first step are a
    target in every step (`forgetless.Distillation`), on as many old samples as a device has new ones in a batch. It
    keeps more, and needs the old data all along. Checkpoints then hold a copy of the old model; where fresh LoRA
    adapters are all that learns, the old model is the base, and there is no copy.

    Logged beside the trainer's own figures: `forgetless/drift`, `forgetless/strength`, `forgetless/frozen_fraction` (of
    distillation `forgetless/divergence` and `forgetless/strength`), and with probes `forgetless/agreement`, the share
    of their answers that are still the same. An evaluation then also has `eval_forgetless_agreement` and
    `eval_forgetless_joint`, the geometric mean `√(q · agreement)` of old and new skill, for `metric_for_best_model`. q
    is the metric `new_skill`, which must be a share in [0, 1]; of a loss it is `exp(−loss)`. Which checkpoint is best
    does not depend on the unit of q.
    """

    def __init__(
        self,
        old: Any,
        strength: float | str | Dial = "auto",
        *,
        method: str = "mas",
        probes: Any = None,
        new_skill: str = "eval_loss",
        collate_fn: Callable[[list[Any]], Any] | None = None,
        **options: Any,
    ) -> None:
        """Nothing is measured before `train()`.

        Args:
            old: unlabeled samples like those whose skill is to be kept: texts, chats, rows like those of the train set
                in a list, a `Dataset` or a `datasets.Dataset`, or batches (a `DataLoader`); or an `Importance`, or the
                path of its file. For "distillation" data that can be read again and again.
            strength: "auto" (`HoldShare()`: most of the movement is held back), λ, or a dial such as `HoldShare(0.9)`;
                of "distillation" "auto" is λ = 1, and there is no dial.
            method: "mas", or "distillation".
            probes: samples of the old use, as for `old`, at most 1,024; asked at every log and evaluation.
            new_skill: the metric of an evaluation that tells what was learned.
            collate_fn: rows as they are → a batch, in place of the trainer's tokenizer and data collator.
            options: what `forgetless.mas` takes besides: `exclude`, `output`, `until`, …; or `forgetless.Distillation`:
                `temperature`, `batch_size`, `output`, `forward`, `mask`, `seed`.

        Raises:
            ForgetlessError: neither data nor an importance, a strength that is none, or what the method does not take.
        """
        self._protection = protection(method, old, strength, probes, options)
        self._new_skill, self._collate_fn = new_skill, collate_fn
        self._trainer: Callable[[], Any] = lambda: None

    @property
    def anchor(self) -> Anchor | DeltaAnchor | None:
        """θ* and Ω, once training has begun; None with another method."""
        return self._protection.anchor if isinstance(self._protection, HeldWeights) else None

    @property
    def distillation(self) -> Distillation | None:
        """The old answers, once training has begun; None with another method."""
        return self._protection.distillation if isinstance(self._protection, KeptAnswers) else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, or read the checkpoint; attach.

        Raises:
            ForgetlessError: training that cannot be protected, old data or an importance that do not fit, or a
                checkpoint without what is kept, or of another method.
        """
        trainer = _caller()
        self._trainer = weakref.ref(trainer)
        _refuse(trainer, self)
        # Of all callbacks the first to see a log, so that what it adds reaches the others (TensorBoard, W&B, …).
        callbacks = trainer.callback_handler.callbacks
        callbacks.remove(self)
        callbacks.insert(0, self)
        model = trainer.model_wrapped
        reader = _reader(trainer, self._collate_fn)
        if state.global_step:
            self._protection.restore(model, _checkpoint(trainer, self._protection), reader)
        elif not self._protection.is_of(model):
            progress = state.is_local_process_zero and not args.disable_tqdm
            self._protection.make(model, reader, _embeddings(trainer.model), progress=progress)
        self._protection.attach(trainer.optimizer)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse an optimizer that has taken the attached one's place; see how far gradients were clipped."""
        if (trainer := self._trainer()) is None:
            return
        self._protection.refuse_swapped(trainer.optimizer)
        if self.distillation is not None and args.max_grad_norm:
            of_trainer = (variables for variables in _stack() if variables.get("self") is trainer)
            norm = next((variables["grad_norm"] for variables in of_trainer if "grad_norm" in variables), None)
            if norm is None:
                raise ForgetlessError(
                    "this release of transformers does not tell how far it clips gradients, by which old answers must "
                    "be shortened too; set max_grad_norm=0, or take another release."
                )
            self.distillation.clipped(norm, args.max_grad_norm)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the figures."""
        if self._protection.kept is None or not logs:
            return
        if "loss" in logs:
            added = self._protection.figures()
        elif any(key.startswith("eval_") for key in logs):
            added = self._evaluated(logs)
        else:
            return
        logs.update(added)
        if state.log_history:
            state.log_history[-1].update(added)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what is kept into the checkpoint."""
        if args.should_save:
            self._protection.save(_folder(args, state) / FILE)

    def on_push_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write it before a checkpoint is uploaded, which comes before `on_save`."""
        if _folder(args, state).is_dir():
            self.on_save(args, state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the optimizer go."""
        self._protection.detach()

    def _evaluated(self, logs: dict[str, Any]) -> dict[str, float]:
        agreement = self._protection.agreement()
        if agreement is None:
            return {}
        found = {"eval_forgetless_agreement": agreement}
        if self._new_skill in logs:
            value = float(logs[self._new_skill])
            skill = math.exp(-value) if self._new_skill.endswith("loss") and value >= 0 else value
            if skill < 0 or skill > 1:  # NaN passes: no checkpoint is best by it
                raise ForgetlessError(
                    f"new_skill={self._new_skill!r} must be a share in [0, 1] or a loss of 0 or more to be joined with "
                    f"the old skill, not {value!r}."
                )
            found[JOINT] = math.sqrt(skill * agreement)
        return found


def _caller() -> Any:
    """The trainer that calls: it hands a callback everything but itself."""
    for variables in _stack():
        if isinstance(trainer := variables.get("self"), Trainer):
            return trainer
    raise ForgetlessError("ForgetlessCallback works inside of a transformers.Trainer: give it to one as a callback.")


def _stack() -> Iterator[dict[str, Any]]:
    """The local variables of the functions that are being run, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back


def _refuse(trainer: Any, callback: ForgetlessCallback) -> None:
    """Refuse training that cannot be protected, by name."""
    if sum(isinstance(each, ForgetlessCallback) for each in trainer.callback_handler.callbacks) > 1:
        raise ForgetlessError(
            "the trainer has two ForgetlessCallbacks; give one of them the old data of both. (Both methods together "
            "need a loop of your own: attach an anchor and a Distillation to one optimizer.)"
        )
    if getattr(trainer, "is_deepspeed_enabled", False):
        raise ForgetlessError(
            "DeepSpeed's optimizers train copies of the weights, which protection cannot follow; train with DDP, or "
            "add anchor.penalty() or distillation.loss() to the loss."
        )
    if trainer.is_fsdp_enabled or any(map(is_sharded, trainer.model.parameters())):
        raise ForgetlessError(
            "ForgetlessCallback does not protect what FSDP shards; train with DDP, or attach an Anchor in a loop of "
            "your own, sharded by fully_shard."
        )
    if trainer.state.is_hyper_param_search and trainer.args.save_strategy != "no":
        raise ForgetlessError(
            'hyperparameter_search keeps the checkpoints of each trial elsewhere; set save_strategy="no".'
        )


def _folder(args: Any, state: Any) -> Path:
    """The checkpoint of the present step."""
    return Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def _checkpoint(trainer: Any, protection: Protection) -> dict[str, Tensor]:
    """What was kept, from the file beside the weights that the model was resumed from.

    Raises:
        ForgetlessError: there is none, it is damaged or of another method, or it was saved at other weights.
    """
    given = (variables.get("resume_from_checkpoint") for variables in _stack())
    folder = next((each for each in given if isinstance(each, str | Path)), None)
    path = Path(folder or _folder(trainer.args, trainer.state), FILE)
    if not path.exists():
        raise ForgetlessError(
            f"{path} is missing, so what the model knew before training is lost and cannot be protected; resume from a "
            "checkpoint that was saved with ForgetlessCallback, or begin anew."
        )
    refuse_other_file(path, protection)
    kept, hashes = protection.read(path, trainer.model)
    parameters = named(trainer.model)
    if any(name in parameters and fingerprint(parameters[name]) != value for name, value in hashes.items()):
        raise ForgetlessError(
            f"{path} was saved at other weights than the model has now: it is of another checkpoint, or the trainer "
            "could not load the weights beside it, as of a model that was given wrapped by torch.compile and is not "
            "now, or the other way round."
        )
    return kept


def _embeddings(model: nn.Module) -> list[nn.Module | None]:
    """The modules that have a row per token."""
    getters = (getattr(model, name, None) for name in ("get_input_embeddings", "get_output_embeddings"))
    return [getter() for getter in getters if getter is not None]


def _reader(trainer: Any, collate_fn: Callable[[list[Any]], Any] | None) -> Reader:
    """From samples as the user has them to batches as the trainer makes them."""
    args, tokenizer = trainer.args, trainer.processing_class
    if collate_fn is not None:
        collate = Collate(collate_fn, as_given=True)
    else:
        columns = getattr(trainer, "_signature_columns", None) if args.remove_unused_columns else None
        collator = trainer.callback_handler.train_dataloader.collate_fn
        collate = Collate(collator, tokenizer, _max_length(trainer), columns)

    def once(data: Any) -> Any:
        data, rows = opened(data)
        if not rows:
            return data
        return collated(data, collate, args.per_device_eval_batch_size, (args.process_index, args.world_size))

    def again(data: Any) -> tuple[Any, dict[str, Any]]:
        data, rows = opened(data)
        size = {"batch_size": args.per_device_train_batch_size}
        return (filled(data, collate), {**size, "collate_fn": collate.together}) if rows else (data, size)

    return Reader(once, again)


def _max_length(trainer: Any) -> int | None:
    """How many tokens of a text the model takes: SFTTrainer's max_length, else the tokenizer's or the model's."""
    limits = (
        getattr(trainer.args, "max_length", None),
        getattr(trainer.processing_class, "model_max_length", None),
        getattr(getattr(trainer.model, "config", None), "max_position_embeddings", None),
    )
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 1 << 30]
    return min(known, default=None)

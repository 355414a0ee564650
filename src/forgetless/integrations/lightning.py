"""`ForgetlessCallback` for Lightning's `Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.integrations.parts.held_weights import HeldWeights
from forgetless.integrations.parts.kept_answers import KeptAnswers
from forgetless.integrations.parts.methods import protection, refuse_other_state
from forgetless.integrations.parts.protection import Reader
from forgetless.integrations.parts.rows import repeated
from forgetless.model import batches
from forgetless.model.outputs import Forward, Output
from forgetless.protect.anchor import Anchor
from forgetless.protect.distillation import Distillation
from forgetless.protect.strength.dial import Dial

_SHARDING = ("DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy", "XLAFSDPStrategy")


class ForgetlessCallback(Callback):
    """Protects what a `LightningModule` can do while a Lightning `Trainer` teaches it something new.

        trainer = L.Trainer(callbacks=[ForgetlessCallback(old_loader)])
        trainer.fit(module, new_loader)

    Before the first step the importance of every parameter is measured on the old data (`forgetless.mas`) at the
    trainer's precision, and an `Anchor` is attached to the optimizers. Checkpoints hold θ* and Ω, from which training
    goes on when it is resumed. A second `fit()` of the same module protects the same θ*.

    With `method="distillation"` nothing is measured: the module's answers to the old data before the first step are a
    target in every step (`forgetless.Distillation`). It keeps more, and needs the old data all along. Checkpoints then
    hold a copy of the old module; where fresh LoRA adapters are all that learns, the old module is the base, and there
    is no copy.

    Logged: `forgetless/drift`, `forgetless/strength`, `forgetless/frozen_fraction` (of distillation
    `forgetless/divergence` and `forgetless/strength`), and with probes `forgetless/agreement`, the share of their
    answers that are still the same; that one after every validation too, for
    `ModelCheckpoint(monitor="forgetless/agreement", mode="max")`.
    """

    def __init__(
        self,
        old: Any,
        strength: float | str | Dial = "auto",
        *,
        method: str = "mas",
        probes: Any = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        **options: Any,
    ) -> None:
        """Nothing is measured before `fit()`.

        Args:
            old: unlabeled samples like those whose skill is to be kept, as `forgetless.mas` takes them (a
                `DataLoader`, a `Dataset`, tensors); or an `Importance`, or the path of its file. For "distillation"
                data that can be read again and again.
            strength: "auto" (`HoldShare()`: most of the movement is held back), λ, or a dial such as `HoldShare(0.9)`;
                of "distillation" "auto" is λ = 1, and there is no dial.
            method: "mas", or "distillation".
            probes: samples of the old use, as for `old`, at most 1,024; asked whenever the trainer logs.
            collate_fn: a list of samples → a batch, where `old` and `probes` are samples.
            options: what `forgetless.mas` takes besides: `forward`, `exclude`, `output`, `until`, …; or
                `forgetless.Distillation`: `temperature`, `batch_size`, `output`, `forward`, `mask`, `seed`.

        Raises:
            ForgetlessError: neither data nor an importance (a `LightningDataModule`), a strength that is none, or what
                the method does not take.
        """
        for data in (old, probes):
            _refuse(data)
        self._protection = protection(method, old, strength, probes, options)
        self._collate_fn, self._batch_size = collate_fn, options.get("batch_size")
        self._loaded: dict[str, Tensor] | None = None

    @property
    def anchor(self) -> Anchor | DeltaAnchor | None:
        """θ* and Ω, once training has begun; None with another method."""
        return self._protection.anchor if isinstance(self._protection, HeldWeights) else None

    @property
    def distillation(self) -> Distillation | None:
        """The old answers, once training has begun; None with another method."""
        return self._protection.distillation if isinstance(self._protection, KeptAnswers) else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, or take the checkpoint's state; attach.

        Raises:
            ForgetlessError: a strategy that shards the weights, old data or an importance that do not fit, or a
                checkpoint without what is kept, or of another method.
        """
        if (strategy := type(trainer.strategy).__name__) in _SHARDING:
            raise ForgetlessError(
                f"ForgetlessCallback cannot protect what {strategy} shards; train with DDP, or write the loop (FSDP2)."
            )
        model: Any = trainer.strategy.model
        with trainer.precision_plugin.forward_context():
            if trainer.ckpt_path:
                if self._loaded is None:
                    raise ForgetlessError(
                        f"{trainer.ckpt_path} holds nothing of ForgetlessCallback, so what the model knew before "
                        "training is lost and cannot be protected; resume from a checkpoint that was saved with it, or "
                        "begin anew."
                    )
                refuse_other_state(str(trainer.ckpt_path), self._loaded, self._protection)
                self._protection.restore(model, self._loaded, self._reader(trainer))
            elif not self._protection.is_of(model):
                progress = trainer.is_global_zero and trainer.progress_bar_callback is not None
                self._protection.make(model, self._reader(trainer), progress=progress)
        self._loaded = None
        self._protection.attach(trainer.optimizers)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Refuse an optimizer that has taken an attached one's place; see how far gradients will be clipped."""
        self._protection.refuse_swapped(trainer.optimizers)
        most, by_norm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm in (None, "norm")
        own = is_overridden("configure_gradient_clipping", pl_module)
        if self.distillation is not None and (most or own) and pl_module.automatic_optimization:
            gradients = [
                each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None
            ]
            norm = torch.nn.utils.get_total_norm(gradients)
            self.distillation.clipped(norm, most if by_norm and not own else None)

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the figures where the trainer logs."""
        if trainer.global_step % trainer.log_every_n_steps == 0 and trainer.global_step:
            with trainer.precision_plugin.forward_context():
                pl_module.log_dict(self._protection.figures())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the agreement with the old answers."""
        if trainer.sanity_checking or self._protection.kept is None:
            return
        with trainer.precision_plugin.forward_context():
            agreement = self._protection.agreement()
        if agreement is not None:
            pl_module.log("forgetless/agreement", agreement)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the optimizers go."""
        self._protection.detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let the optimizers go."""
        self._protection.detach()

    def _reader(self, trainer: Trainer) -> Reader:
        """From samples as the user has them to batches, and to answers, at the trainer's precision."""
        precision = trainer.precision_plugin

        def once(data: Any) -> Iterable[Any]:
            found = batches.of(data, self._batch_size, self._collate_fn)
            return repeated(data, lambda: (precision.convert_input(batch) for batch in found))

        def forward(given: Forward | None) -> Forward:
            def answered(model: nn.Module, batch: Any) -> Any:
                with precision.forward_context():
                    return Output(forward=given).result(model, precision.convert_input(batch))

            return answered

        return Reader(once, lambda data: (data, {"collate_fn": self._collate_fn}), forward)

    def state_dict(self) -> dict[str, Any]:
        """What is kept and where the strength stands, for a checkpoint; of a training that was done, what it had."""
        return self._protection.state() or dict(self._loaded or {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` gave, for the training that goes on."""
        self._loaded = dict(state_dict)


def _refuse(data: Any) -> None:
    if isinstance(data, LightningDataModule):
        raise ForgetlessError(
            f"the old data are a LightningDataModule ({type(data).__name__}), which has several loaders; give one of "
            "them, such as old.train_dataloader() (after old.setup('fit'))."
        )

"""`ForgetlessCallback(old, method="distillation")` inside of Lightning's `Trainer`, with plain modules and adapters."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning")

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision

import forgetless
from forgetless import Distillation, ForgetlessError
from forgetless.integrations.lightning import ForgetlessCallback

DRAW = torch.Generator().manual_seed(0)
OLD = torch.randn(12, 4, generator=DRAW)
X, Y = torch.randn(16, 4, generator=DRAW), torch.randint(0, 3, (16,), generator=DRAW)
NEW = DataLoader(TensorDataset(X, Y), batch_size=2)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))


def adapted() -> Any:
    peft = pytest.importorskip("peft")
    made: Any = layers()
    return peft.get_peft_model(made, peft.LoraConfig(target_modules=["0", "3"], r=2))


class Module(L.LightningModule):
    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = layers() if network is None else network

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: Any, number: int) -> Tensor:
        torch.manual_seed(self.global_step)
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW((each for each in self.parameters() if each.requires_grad), lr=3e-2)


def trainer(folder: Path, *callbacks: Callback, **given: Any) -> L.Trainer:
    """Eight steps on the CPU, without anything on the screen."""
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    where: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "default_root_dir": folder}
    plan: dict[str, Any] = {"max_steps": 8, "enable_checkpointing": False, "log_every_n_steps": 2}
    return L.Trainer(callbacks=list(callbacks), **{**quiet, **where, **plan, **given})


def keeping(old: Any = OLD, strength: Any = "auto", **given: Any) -> ForgetlessCallback:
    return ForgetlessCallback(old, strength, method="distillation", **given)


def kept(callback: ForgetlessCallback) -> Distillation:
    assert callback.anchor is None
    assert callback.distillation is not None
    return callback.distillation


def equal(left: nn.Module, right: nn.Module) -> bool:
    states = left.state_dict(), right.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def divergence(module: nn.Module) -> float:
    with torch.no_grad():
        old, now = (each.eval()(OLD).log_softmax(-1) for each in (layers(), module.float()))
    return float((old.exp() * (old - now)).sum(-1).mean())


class Clipping(Module):
    """Clips by itself."""

    def configure_gradient_clipping(self, optimizer: Any, *given: Any, **more: Any) -> None:
        nn.utils.clip_grad_value_(self.parameters(), 0.02)


CLIPPING: dict[str, tuple[Callable[[], Module], dict[str, Any], Callable[[Any], None], float | None]] = {
    "norm": (Module, {"gradient_clip_val": 0.5}, lambda found: nn.utils.clip_grad_norm_(found, 0.5) and None, 0.5),
    "value": (
        Module,
        {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"},
        lambda found: nn.utils.clip_grad_value_(found, 0.02),
        None,
    ),
    "the module's own": (
        Clipping,
        {"gradient_clip_val": 0.5},
        lambda found: nn.utils.clip_grad_value_(found, 0.02),
        None,
    ),
}


@pytest.mark.parametrize(
    ("old", "clipping"),
    [
        (OLD, "norm"),
        (TensorDataset(OLD), "norm"),
        (DataLoader(OLD, batch_size=5), "norm"),  # type: ignore[arg-type]
        (OLD, "value"),
        (OLD, "the module's own"),
    ],
    ids=["tensor", "Dataset", "DataLoader", "by value", "by the module"],
)
def test_it_is_the_plain_loop_to_the_bit(tmp_path: Path, old: Any, clipping: str) -> None:
    module, settings, clip, most = CLIPPING[clipping]
    held = module()
    trainer(tmp_path, keeping(old, batch_size=5), accumulate_grad_batches=2, max_steps=4, **settings).fit(held, NEW)
    plain = layers()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=3e-2)
    kept = Distillation(plain, old, batch_size=5).attach(optimizer)
    pairs = list(NEW)
    for step, (first, second) in enumerate(zip(pairs[::2], pairs[1::2], strict=True)):
        optimizer.zero_grad()
        for x, y in (first, second):
            torch.manual_seed(step)
            (F.cross_entropy(plain(x), y) / 2).backward()
        norm = nn.utils.get_total_norm([each.grad for each in plain.parameters() if each.grad is not None])
        clip(plain.parameters())
        kept.clipped(norm, most)
        optimizer.step()
    assert equal(held.layers, plain)


def test_without_strength_it_changes_nothing(tmp_path: Path) -> None:
    plain, held = Module(), Module()
    trainer(tmp_path).fit(plain, NEW)
    trainer(tmp_path, keeping(strength=0.0, probes=OLD)).fit(held, NEW)
    assert equal(plain, held)


@pytest.mark.parametrize("network", [layers, adapted], ids=["plain", "adapters"])
def test_resumed_training_ends_with_the_same_bits(tmp_path: Path, network: Callable[[], nn.Module]) -> None:
    whole, straight = keeping(probes=OLD), Module(network())
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1)
    made = trainer(tmp_path, whole, saver, enable_checkpointing=True)
    made.fit(straight, DataLoader(TensorDataset(X, Y), batch_size=4))
    resumed, second = keeping(probes=OLD), Module(network())
    with torch.no_grad():
        for each in second.parameters():
            each.add_(0.5)
    again = trainer(tmp_path, resumed)
    again.fit(second, DataLoader(TensorDataset(X, Y), batch_size=4), ckpt_path=tmp_path / "epoch=0-step=4.ckpt")
    assert equal(straight, second)
    assert kept(resumed).steps == kept(whole).steps == 8
    assert made.callback_metrics["forgetless/agreement"] == again.callback_metrics["forgetless/agreement"]
    assert (kept(whole).state_dict().keys() == {"steps", "base", "samples"}) is (network is adapted)
    for callback in (whole, resumed):
        with kept(callback).before_learning() as teacher:
            torch.testing.assert_close(teacher(OLD), layers().eval()(OLD))


def test_a_checkpoint_without_the_state_or_of_another_method_is_refused(tmp_path: Path) -> None:
    for name, callbacks in (("plain", ()), ("mas", (ForgetlessCallback(OLD, 1.0),)), ("answers", (keeping(),))):
        made = trainer(tmp_path, *callbacks, max_steps=2)
        made.fit(Module(), NEW)
        made.save_checkpoint(tmp_path / f"{name}.ckpt")
    for name, callback, said in (
        ("plain", keeping(), "plain.ckpt holds nothing of ForgetlessCallback, so what the model knew"),
        ("mas", keeping(), 'mas.ckpt is of a training with method="mas", and'),
        ("answers", ForgetlessCallback(OLD), 'answers.ckpt is of a training with method="distillation", and'),
    ):
        with pytest.raises(ForgetlessError, match=said):
            trainer(tmp_path, callback).fit(Module(), NEW, ckpt_path=tmp_path / f"{name}.ckpt")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_it_answers_at_the_trainers_precision(tmp_path: Path, precision: Any) -> None:
    seen = []

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        seen.append(model(x).dtype)
        return model(x)

    plain, held = Module(), Module()
    trainer(tmp_path, precision=precision).fit(plain, NEW)
    trainer(tmp_path, keeping(strength=20.0, forward=forward), precision=precision).fit(held, NEW)
    assert set(seen) == {torch.float64 if precision == "64-true" else torch.bfloat16}
    assert divergence(held) < 0.5 * divergence(plain)


def test_fp16_with_a_gradient_scaler(tmp_path: Path) -> None:
    """Lightning chooses it on a GPU only; its plugin runs on the CPU as well."""
    plain, held, callback = Module(), Module(), keeping(strength=20.0)
    for module, callbacks in ((plain, ()), (held, (callback,))):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # overflows first, so that steps are skipped
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        trainer(tmp_path, *callbacks, plugins=[plugin], max_epochs=6, max_steps=-1).fit(module, NEW)
    assert 0 < kept(callback).steps < 48
    assert divergence(held) < 0.3 * divergence(plain)


def test_the_figures_are_in_the_log(tmp_path: Path) -> None:
    logger, callback = CSVLogger(tmp_path), keeping(strength=2.0, probes=OLD)
    trainer(tmp_path, callback, logger=logger).fit(Module(), NEW)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        logged = [each for each in csv.DictReader(file) if each.get("forgetless/divergence")]
    assert [int(each["step"]) for each in logged] == [1, 3, 5, 7]
    assert float(logged[-1]["forgetless/divergence"]) == pytest.approx(kept(callback).divergence)
    assert float(logged[-1]["forgetless/strength"]) == 2
    assert all(each["forgetless/agreement"] for each in logged)


def test_a_second_fit_keeps_what_the_first_began_with(tmp_path: Path) -> None:
    callback, module = keeping(), Module()
    made = trainer(tmp_path, callback, max_steps=2)
    made.fit(module, NEW)
    first = kept(callback)
    assert not made.optimizers or not made.optimizers[0]._optimizer_step_pre_hooks
    trainer(tmp_path, callback, max_steps=2).fit(module, NEW)
    assert kept(callback) is first
    assert first.steps == 4


def test_an_optimizer_that_is_swapped_is_refused(tmp_path: Path) -> None:
    class Swap(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
            trainer.optimizers = [torch.optim.SGD(pl_module.parameters(), lr=1.0)]

    made = trainer(tmp_path, keeping(), Swap())
    with pytest.raises(ForgetlessError, match="the trainer's optimizer was replaced during training"):
        made.fit(Module(), NEW)
    assert made.global_step == 1


def test_hidden_states_are_no_answers(tmp_path: Path) -> None:
    class Encoder(Module):
        def forward(self, x: Tensor) -> Any:
            return {"last_hidden_state": self.layers(x)}

    with pytest.raises(ForgetlessError, match="last_hidden_state, which holds no logits"):
        trainer(tmp_path, keeping()).fit(Encoder(), NEW)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: keeping("old.pt"), "in every step, and 'old.pt' holds none to read"),
        (lambda: keeping(strength=forgetless.DriftBudget(1.0)), "DriftBudget moves the strength of an anchor"),
        (lambda: keeping(until=0.1), "and not 'until'; leave that out"),
        (lambda: ForgetlessCallback(OLD, method="kl"), "method must be one of 'mas', 'distillation', not 'kl'"),
    ],
)
def test_what_is_refused_at_once(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ForgetlessError, match=re.escape(said)):
        make()

"""`ForgetlessCallback` inside of Lightning's `Trainer`: what is measured, protected, logged, saved and refused."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning")

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision

import forgetless
from forgetless.integrations.lightning import ForgetlessCallback

DRAW = torch.Generator().manual_seed(0)
OLD = torch.randn(12, 4, generator=DRAW)
X, Y = torch.randn(16, 4, generator=DRAW), torch.randint(0, 3, (16,), generator=DRAW)
NEW = DataLoader(TensorDataset(X, Y), batch_size=2)


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: Any, number: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, number: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [{"scheduler": LambdaLR(optimizer, lambda step: 1 - step / 8), "interval": "step"}]


def trainer(folder: Path, *callbacks: Callback, **given: Any) -> L.Trainer:
    """Eight steps on the CPU, without anything on the screen."""
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    where: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "default_root_dir": folder}
    plan: dict[str, Any] = {"max_steps": 8, "enable_checkpointing": False, "log_every_n_steps": 2}
    return L.Trainer(callbacks=list(callbacks), **{**quiet, **where, **plan, **given})


def equal(left: nn.Module, right: nn.Module) -> bool:
    states = left.state_dict(), right.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def noted(logger: CSVLogger) -> list[dict[str, str]]:
    """The lines of the log that have the figures."""
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        return [each for each in csv.DictReader(file) if each["forgetless/drift"]]


def kept(callback: ForgetlessCallback) -> forgetless.Anchor:
    assert callback.anchor is not None
    return callback.anchor


def chosen(strength: Any) -> Any:
    return forgetless.HoldShare(0.9) if strength == "a share" else strength


@pytest.mark.parametrize("strength", [3.0, "auto", "a share"])
def test_it_is_the_plain_loop_to_the_bit(tmp_path: Path, strength: Any) -> None:
    held, callback = Module(), ForgetlessCallback(DataLoader(OLD, batch_size=5), chosen(strength))
    trainer(tmp_path, callback, accumulate_grad_batches=2, gradient_clip_val=0.5, max_epochs=2, max_steps=-1).fit(
        held, NEW
    )

    plain = Module()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    scheduler = LambdaLR(optimizer, lambda step: 1 - step / 8)
    dial = forgetless.HoldShare() if strength == "auto" else chosen(strength)
    importance = forgetless.mas(plain, DataLoader(OLD, batch_size=5), progress=False)  # type: ignore[arg-type]
    forgetless.Anchor(plain, importance, dial).attach(optimizer)
    pairs = list(NEW) * 2
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        optimizer.zero_grad()
        for x, y in (first, second):
            (F.cross_entropy(plain(x), y) / 2).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
    assert equal(held, plain)


def test_without_strength_it_changes_nothing(tmp_path: Path) -> None:
    plain, held = Module(), Module()
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True)
    L.seed_everything(1, verbose=False)
    trainer(tmp_path).fit(plain, loader)
    L.seed_everything(1, verbose=False)
    trainer(tmp_path, ForgetlessCallback(DataLoader(OLD, shuffle=True), 0.0, probes=OLD)).fit(held, loader)  # type: ignore[arg-type]
    assert equal(plain, held)


@pytest.mark.parametrize(
    "old", [OLD, (OLD, None), TensorDataset(OLD), [OLD[:5], OLD[5:]]], ids=["tensor", "tuple", "Dataset", "list"]
)
def test_old_data_as_mas_takes_them(tmp_path: Path, old: Any) -> None:
    callback = ForgetlessCallback(old, 1.0)
    trainer(tmp_path, callback, max_steps=1).fit(Module(), NEW)
    expected = forgetless.mas(Module(), OLD, progress=False).mean()
    for name, found in kept(callback).importance.items():
        torch.testing.assert_close(found, expected[name])


def test_a_collate_fn_makes_batches_of_samples(tmp_path: Path) -> None:
    samples = [{"row": row.tolist()} for row in OLD]

    def collate(found: list[Any]) -> Tensor:
        return torch.tensor([each["row"] for each in found])

    callback = ForgetlessCallback(samples, 1.0, probes=samples, collate_fn=collate)
    trainer(tmp_path, callback, max_steps=1).fit(Module(), NEW)
    expected = forgetless.mas(Module(), OLD, progress=False).mean()
    for name, found in kept(callback).importance.items():
        torch.testing.assert_close(found, expected[name])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_it_measures_at_the_trainers_precision(tmp_path: Path, precision: Any) -> None:
    callback = ForgetlessCallback(OLD, 1e4, probes=OLD)
    module = Module()
    trainer(tmp_path, callback, precision=precision).fit(module, NEW)
    assert kept(callback).status().applied == 8
    exact = forgetless.mas(Module(), OLD, progress=False).mean()
    for name, found in kept(callback).importance.items():
        error = float((found - exact[name]).norm() / exact[name].norm())
        assert error < (1e-6 if precision == "64-true" else 0.03), name
        assert precision == "64-true" or error > 1e-5


def test_fp16_with_a_gradient_scaler(tmp_path: Path) -> None:
    """Lightning chooses it on a GPU only; its plugin runs on the CPU as well."""
    callback = ForgetlessCallback(OLD, 1e4)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # overflows first, so that steps are skipped
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    plain, held = Module(), Module()
    trainer(tmp_path, plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]).fit(plain, NEW)
    trainer(tmp_path, callback, plugins=[plugin], max_epochs=6, max_steps=-1).fit(held, NEW)
    status = kept(callback).status()
    assert 0 < status.applied == status.steps < 48
    start = Module().state_dict()
    moved, free = (sum(float((v - start[n]).norm()) for n, v in m.state_dict().items()) for m in (held, plain))
    assert moved < 0.3 * free


def test_a_compiled_module(tmp_path: Path) -> None:
    plain, compiled = Module(), Module()
    compiled.layers.compile(backend="eager")
    for module in (plain, compiled):
        callback = ForgetlessCallback(OLD, 3.0)
        trainer(tmp_path, callback, max_steps=3).fit(module, NEW)
        assert kept(callback).status().applied == 3
    for left, right in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def test_the_figures_are_in_the_log_and_to_choose_by(tmp_path: Path) -> None:
    logger, callback = CSVLogger(tmp_path), ForgetlessCallback(OLD, 2.0, probes=OLD)
    best = ModelCheckpoint(tmp_path, monitor="forgetless/agreement", mode="max")
    made = trainer(tmp_path, callback, best, logger=logger, enable_checkpointing=True, val_check_interval=4)
    made.fit(Module(), NEW, NEW)
    logged = noted(logger)
    assert [int(each["step"]) for each in logged] == [1, 3, 5, 7]
    assert all(each["forgetless/frozen_fraction"] and each["forgetless/agreement"] for each in logged)
    assert float(logged[-1]["forgetless/strength"]) == 2
    assert float(logged[-1]["forgetless/drift"]) == pytest.approx(float(kept(callback).drift()))
    assert best.best_model_score is not None


@pytest.mark.parametrize("strength", [3.0, "auto", "a share"])
def test_resumed_training_ends_with_the_same_bits(tmp_path: Path, strength: Any) -> None:
    whole, straight = ForgetlessCallback(OLD, chosen(strength), probes=OLD), Module()
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1)
    made = trainer(tmp_path, whole, saver, enable_checkpointing=True)
    made.fit(straight, DataLoader(TensorDataset(X, Y), batch_size=4))

    resumed, second = ForgetlessCallback(torch.full((1, 4), torch.nan), chosen(strength), probes=OLD), Module()
    with torch.no_grad():
        second.layers[0].weight.add_(1)
    again = trainer(tmp_path, resumed)
    again.fit(second, DataLoader(TensorDataset(X, Y), batch_size=4), ckpt_path=tmp_path / "epoch=0-step=4.ckpt")
    assert equal(straight, second)
    start = dict(Module().named_parameters())
    assert all(torch.equal(value, start[name]) for name, value in kept(resumed).weights.items())
    assert made.callback_metrics["forgetless/agreement"] == again.callback_metrics["forgetless/agreement"]


def test_a_checkpoint_without_the_state_is_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_steps=2)
    made.fit(Module(), NEW)
    made.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(forgetless.ForgetlessError, match=r"plain.ckpt holds nothing of ForgetlessCallback, so"):
        trainer(tmp_path, ForgetlessCallback(OLD)).fit(Module(), NEW, ckpt_path=tmp_path / "plain.ckpt")


def test_a_training_that_was_done_is_saved_again_with_what_it_kept(tmp_path: Path) -> None:
    """Lightning loads its checkpoint and begins nothing."""
    made = trainer(tmp_path, ForgetlessCallback(OLD, 1.0))
    made.fit(Module(), NEW)
    made.save_checkpoint(tmp_path / "done.ckpt")
    again = trainer(tmp_path, callback := ForgetlessCallback(OLD, 1.0))
    again.fit(Module(), NEW, ckpt_path=tmp_path / "done.ckpt")
    again.save_checkpoint(tmp_path / "again.ckpt")
    assert callback.anchor is None
    resumed = ForgetlessCallback(torch.full((1, 4), torch.nan), 1.0)
    trainer(tmp_path, resumed, max_steps=9).fit(Module(), NEW, ckpt_path=tmp_path / "again.ckpt")
    begun = dict(Module().named_parameters())
    assert all(torch.equal(value, begun[name]) for name, value in kept(resumed).weights.items())


def test_testing_a_checkpoint_does_not_resume_from_it(tmp_path: Path) -> None:
    callback, module = ForgetlessCallback(OLD, 1.0), Module()
    made = trainer(tmp_path, callback, max_steps=2)
    made.fit(module, NEW)
    made.save_checkpoint(tmp_path / "last.ckpt")
    first = callback.anchor
    made.validate(module, NEW, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    made.fit_loop.epoch_loop.max_steps = 4
    made.fit(module, NEW)
    assert callback.anchor is first
    assert kept(callback).status().steps == 4


def test_after_training_the_optimizer_is_free(tmp_path: Path) -> None:
    callback = ForgetlessCallback(OLD, 1.0)
    made = trainer(tmp_path, callback, max_steps=1)
    made.fit(Module(), NEW)
    assert not made.optimizers or not made.optimizers[0]._optimizer_step_post_hooks
    kept(callback).penalty()


def test_an_anchor_attached_to_lightnings_wrapper_acts_in_the_optimizer_inside(tmp_path: Path) -> None:
    """Lightning's `self.optimizers()` gives a wrapper, whose own attributes go stale."""
    importance = forgetless.mas(Module(), OLD, progress=False)

    class Attaching(Module):
        def on_train_start(self) -> None:
            self.anchor = forgetless.Anchor(self, importance, 3.0).attach(self.optimizers())

    by_hand, called, free = Attaching(), Module(), Module()
    trainer(tmp_path).fit(by_hand, NEW)
    trainer(tmp_path, ForgetlessCallback(importance, 3.0)).fit(called, NEW)
    trainer(tmp_path).fit(free, NEW)
    assert by_hand.anchor.status().applied == 8
    assert equal(called, by_hand)
    assert not equal(called, free)


class TwoOptimizers(Module):
    """Manual optimization: the first layer by one optimizer, the last by another."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.layers[k].parameters(), lr=0.1) for k in (0, 2)]

    def training_step(self, batch: Any, number: int) -> None:
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()


def test_manual_optimization_with_two_optimizers(tmp_path: Path) -> None:
    plain, held = TwoOptimizers(), TwoOptimizers()
    start = copy.deepcopy(dict(plain.named_parameters()))
    trainer(tmp_path, max_steps=16).fit(plain, NEW)
    logger = CSVLogger(tmp_path)
    trainer(tmp_path, ForgetlessCallback(OLD, 1e4), max_steps=16, logger=logger).fit(held, NEW)
    for name, parameter in held.named_parameters():
        moved, free = (float((each - start[name]).norm()) for each in (parameter, dict(plain.named_parameters())[name]))
        assert moved < 0.5 * free, name
    assert len(noted(logger)) == 4


def test_an_optimizer_that_is_swapped_is_refused(tmp_path: Path) -> None:
    class Swap(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
            trainer.optimizers = [torch.optim.SGD(pl_module.parameters(), lr=1.0)]

    made = trainer(tmp_path, ForgetlessCallback(OLD), Swap())
    with pytest.raises(forgetless.ForgetlessError, match="the trainer's optimizer was replaced during training"):
        made.fit(Module(), NEW)
    assert made.global_step == 1


@pytest.mark.parametrize(
    ("old", "said"),
    [
        (lambda: forgetless.mas(nn.Linear(2, 2), torch.ones(1, 2), progress=False), "the importance does not fit"),
        (lambda: torch.full((1, 4), torch.nan), "NaN"),
    ],
    ids=["another model's", "NaN"],
)
def test_old_data_that_do_not_fit(tmp_path: Path, old: Callable[[], Any], said: str) -> None:
    with pytest.raises(forgetless.ForgetlessError, match=said):
        trainer(tmp_path, ForgetlessCallback(old())).fit(Module(), NEW)


def test_a_training_without_an_end(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
            trainer.should_stop = trainer.global_step == 5

    endless, planned = Module(), Module()
    trainer(tmp_path, ForgetlessCallback(OLD), Stop(), max_steps=-1, max_epochs=-1).fit(endless, NEW)
    trainer(tmp_path, ForgetlessCallback(OLD), max_steps=5).fit(planned, NEW)
    assert equal(endless, planned)


def test_a_sharding_strategy_is_refused(tmp_path: Path) -> None:
    """As the trainer would call it: the strategy itself would need several processes."""
    made = trainer(tmp_path)
    callback = ForgetlessCallback(OLD)
    made.strategy.__class__ = type("FSDPStrategy", (type(made.strategy),), {})
    with pytest.raises(forgetless.ForgetlessError, match="cannot protect what FSDPStrategy shards"):
        callback.on_train_start(made, Module())


@pytest.mark.parametrize("given", ["importance", "file"])
def test_an_importance_of_the_network_inside(tmp_path: Path, given: str) -> None:
    """Measured before it was put into a module, with a head that has been replaced since."""
    module = Module()
    module.layers[2] = nn.Linear(16, 5)
    found = forgetless.mas(module.layers, OLD, progress=False)
    if given == "file":
        found.save(tmp_path / "omega.safetensors")
    old = found if given == "importance" else tmp_path / "omega.safetensors"
    module.layers[2] = nn.Linear(16, 3)
    with pytest.raises(forgetless.ForgetlessError, match=r"'?2.weight .*importance.without\('2'\)"):
        trainer(tmp_path, ForgetlessCallback(old, 1.0)).fit(module, NEW)
    callback = ForgetlessCallback(old, 1.0, exclude="2")
    trainer(tmp_path, callback).fit(module, NEW)
    assert kept(callback).importance.keys() == {"layers.0.weight", "layers.0.bias"}


def test_batches_of_one_where_samples_make_no_batch(tmp_path: Path) -> None:
    class Sequences(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, number: int) -> Tensor:
            return OLD[: number + 1]

    def mean(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).mean(1)

    with pytest.raises(forgetless.ForgetlessError, match=r"do not make a batch .*batch_size=1"):
        trainer(tmp_path, ForgetlessCallback(Sequences(), 1.0, forward=mean)).fit(Module(), NEW)
    callback = ForgetlessCallback(Sequences(), 1.0, forward=mean, batch_size=1)
    trainer(tmp_path, callback, max_steps=1).fit(Module(), NEW)
    expected = forgetless.mas(Module(), [OLD[None, : n + 1] for n in range(3)], forward=mean, progress=False).mean()
    for name, found in kept(callback).importance.items():
        torch.testing.assert_close(found, expected[name])


def test_a_data_module_is_not_the_data() -> None:
    with pytest.raises(forgetless.ForgetlessError, match=r"are a LightningDataModule .*old.train_dataloader\(\)"):
        ForgetlessCallback(L.LightningDataModule())

"""`ForgetlessCallback` in Lightning where adapters of PEFT learn: the base inside of the module is protected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning")
pytest.importorskip("peft")

import lightning as L
import peft
from lightning.pytorch.callbacks import ModelCheckpoint

import forgetless
from forgetless.integrations.lightning import ForgetlessCallback

DRAW = torch.Generator().manual_seed(0)
OLD = torch.randn(12, 4, generator=DRAW)
NEW = DataLoader(
    TensorDataset(torch.randn(16, 4, generator=DRAW), torch.randint(0, 3, (16,), generator=DRAW)), batch_size=2
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))


def adapted() -> nn.Module:
    made = network()
    return peft.get_peft_model(made, peft.LoraConfig(target_modules=["0", "2"], r=2))  # type: ignore[arg-type]


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = adapted()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, number: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW((each for each in self.parameters() if each.requires_grad), lr=1e-2)


def fitted(folder: Path, callback: ForgetlessCallback, *more: Any, path: Path | None = None, **given: Any) -> Module:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    where: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "default_root_dir": folder}
    plan: dict[str, Any] = {"max_steps": 4, "enable_checkpointing": bool(more), "accumulate_grad_batches": 2}
    module = Module()
    L.Trainer(callbacks=[callback, *more], **{**quiet, **where, **plan, **given}).fit(module, NEW, ckpt_path=path)
    return module


def equal(left: nn.Module, right: nn.Module) -> bool:
    states = left.state_dict(), right.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("how", ["data", "importance of the base"])
def test_it_is_the_delta_anchor_to_the_bit(tmp_path: Path, how: str) -> None:
    importance = forgetless.mas(network(), OLD, progress=False)
    callback = ForgetlessCallback(OLD if how == "data" else importance, 3.0)
    held = fitted(tmp_path, callback)
    assert isinstance(callback.anchor, forgetless.DeltaAnchor)
    assert callback.anchor.status().applied == 4

    plain = adapted()
    optimizer = torch.optim.AdamW((each for each in plain.parameters() if each.requires_grad), lr=1e-2)
    forgetless.DeltaAnchor(plain, importance, 3.0).attach(optimizer)
    pairs = list(NEW)
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        optimizer.zero_grad()
        for x, y in (first, second):
            (F.cross_entropy(plain(x), y) / 2).backward()
        optimizer.step()
    assert equal(held.network, plain)


def test_resumed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1)
    whole = ForgetlessCallback(OLD, "auto", probes=OLD)
    straight = fitted(tmp_path, whole, saver, max_steps=8)
    again = ForgetlessCallback(torch.full((1, 4), torch.nan), "auto", probes=OLD)
    resumed = fitted(tmp_path, again, path=tmp_path / "epoch=0-step=4.ckpt", max_steps=8)
    assert equal(straight, resumed)
    assert again._protection.agreement() == whole._protection.agreement()
    assert isinstance(again.anchor, forgetless.DeltaAnchor)
    with torch.no_grad(), again.anchor.at_target():  # the answers with which the probes are compared
        torch.testing.assert_close(resumed(OLD), network()(OLD))
    with torch.no_grad():
        assert not torch.allclose(resumed(OLD), network()(OLD))

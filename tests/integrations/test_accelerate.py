"""An `Anchor` in a loop with Accelerate: the optimizer it prepares, its accumulation, and its checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("accelerate")

from accelerate import Accelerator
from accelerate.state import AcceleratorState

import forgetless

DRAW = torch.Generator().manual_seed(0)
OLD = torch.randn(12, 4, generator=DRAW)
NEW = TensorDataset(torch.randn(16, 4, generator=DRAW), torch.randint(0, 3, (16,), generator=DRAW))
STRENGTHS = {"a number": lambda: 3.0, "HoldShare": lambda: forgetless.HoldShare(0.5)}


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """Accelerate keeps the first precision of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))


class Run:
    """A training as people write it: four steps of four batches, two of which are accumulated."""

    def __init__(self, strength: Any, precision: str = "no") -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, mixed_precision=precision)
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scheduler = LambdaLR(optimizer, lambda step: 1 - step / 8)
        self.model, self.optimizer, self.loader, self.scheduler = self.accelerator.prepare(
            model, optimizer, DataLoader(NEW, batch_size=2), scheduler
        )
        importance = forgetless.mas(self.model, OLD, progress=False)
        self.anchor = forgetless.Anchor(self.model, importance, strength).attach(self.optimizer)
        self.accelerator.register_for_checkpointing(self.anchor)

    def epoch(self) -> None:
        for x, y in self.loader:
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(F.cross_entropy(self.model(x), y))
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 0.5)
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()

    def weights(self) -> list[torch.Tensor]:
        return [value.clone() for value in self.accelerator.unwrap_model(self.model).state_dict().values()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_it_is_the_plain_loop_to_the_bit(strength: str) -> None:
    run = Run(STRENGTHS[strength]())
    run.epoch()
    assert run.anchor.status().steps == 4

    plain = network()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    scheduler = LambdaLR(optimizer, lambda step: 1 - step / 8)
    importance = forgetless.mas(plain, OLD, progress=False)
    forgetless.Anchor(plain, importance, STRENGTHS[strength]()).attach(optimizer)
    for number, (x, y) in enumerate(DataLoader(NEW, batch_size=2)):
        (F.cross_entropy(plain(x), y) / 2).backward()
        if number % 2:
            nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert equal(run.weights(), list(plain.state_dict().values()))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_resumed_training_ends_with_the_same_bits(tmp_path: Path, strength: str) -> None:
    straight = Run(STRENGTHS[strength]())
    straight.epoch()
    straight.accelerator.save_state(str(tmp_path))
    straight.epoch()

    resumed = Run(STRENGTHS[strength]())
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            parameter.add_(1)  # whatever it was: weights, θ* and Ω come from the checkpoint
    resumed.anchor.consolidate(forgetless.mas(resumed.model, OLD, progress=False))
    resumed.accelerator.load_state(str(tmp_path))
    resumed.epoch()
    assert equal(straight.weights(), resumed.weights())
    start = dict(network().named_parameters())
    assert all(torch.equal(value, start[name]) for name, value in resumed.anchor.weights.items())
    assert resumed.anchor.strength == straight.anchor.strength


def test_bf16() -> None:
    run = Run(1e4, "bf16")
    run.epoch()
    assert run.anchor.status().applied == 4
    moved = sum(float((a - b).norm()) for a, b in zip(run.weights(), network().state_dict().values(), strict=True))
    free = Run(0.0, "bf16")
    free.epoch()
    far = sum(float((a - b).norm()) for a, b in zip(free.weights(), network().state_dict().values(), strict=True))
    assert moved < 0.3 * far

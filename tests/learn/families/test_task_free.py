"""What is measured of a stream goes on when the network's head has grown."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forgetless import Anchor, Measurement, mas
from forgetless.learn.families.hard_buffer import HardBuffer
from forgetless.learn.families.plateaus import Plateaus
from forgetless.learn.families.task_free import TaskFree


def core() -> TaskFree:
    """Every second loss below 1 is a plateau, once after each above."""
    return TaskFree(Plateaus(window=2, mean=1.0, variance=1.0), HardBuffer(4), "plateau")


def samples(number: int) -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(number)).double()


def grown(model: nn.Linear, outputs: int) -> nn.Linear:
    found = nn.Linear(5, outputs).double()
    with torch.no_grad():
        found.weight[: model.out_features] = model.weight
        found.bias[: model.out_features] = model.bias
    return found


def test_it_measures_by_another_and_rows_that_have_grown_begin_at_zero() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 2).double()
    anchor, stream = Anchor(model, None, 1.0), core()
    assert stream.importance is None
    stream.measure_by(Measurement(model, moving=True))
    events = [stream.observe(anchor, torch.full((4,), loss), samples(0)) for loss in (0.5, 0.25)]
    assert events == [None, "plateau"]
    assert stream.hard.batch is not None
    first = mas(model, stream.hard.batch, progress=False)

    wider = grown(model, 3)
    holder = Anchor(wider, None, 1.0)
    stream.measure_by(Measurement(wider, moving=True))
    assert stream.importance is not None
    assert stream.importance.count == 4
    events = [stream.observe(holder, torch.full((4,), loss), samples(1)) for loss in (9.0, 9.0, 0.5, 0.25)]
    assert events == ["peak", None, None, "plateau"]
    second = mas(wider, stream.hard.batch, progress=False)
    for name, total in second.sums.items():
        expected = total.clone()
        expected[:2] += first.sums[name]
        assert torch.allclose(holder.importance[name], expected / 8, rtol=1e-12)
    assert (stream.steps, stream.updates) == (6, 2)

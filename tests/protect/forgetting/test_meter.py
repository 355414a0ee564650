"""The meter reads while a network is trained, stops it, and returns it to its last good state."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import nn, optim

from forgetless import ForgettingLimitReached, ForgettingMeter
from forgetless.errors import ForgetlessError
from warned import said


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$")


def samples(rows: int = 60, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, inputs):
        return self.layers(inputs)


def answers(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        found = model(inputs).argmax(1)
    model.train(training)
    return found


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int = 60, seed: int = 2) -> int:
    """Learn labels that have nothing to do with what the network answers now; gives the steps taken."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):  # noqa: B007
        inputs = torch.randn(16, 6, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long()).backward()
        optimizer.step()
    return step + 1


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_reading_changes_nothing_in_training():
    models = [Net(), Net()]
    for model, metered in zip(models, (True, False), strict=True):
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        if metered:
            ForgettingMeter(model, samples(), every=3, roll_back=0.01).attach(optimizer)
        train(model, optimizer)
    assert same(state(models[0]), state(models[1]))


def test_what_is_read_is_what_the_network_answers():
    model, probes = Net(), samples()
    old = answers(model, probes)
    labels = (old + torch.arange(60) % 2) % 3
    marks = []
    meter = ForgettingMeter(model, (probes, labels), every=2, on_reading=marks.append)
    assert meter.read().accuracy == 0.5
    optimizer = optim.SGD(model.parameters(), lr=0.2)
    meter.attach(optimizer)
    for step in range(2, 21, 2):
        train(model, optimizer, 2, seed=step)
    assert meter.history == marks
    assert [mark.step for mark in meter.history] == list(range(2, 21, 2))
    now = answers(model, probes)
    found = meter.read()
    assert found.agreement == pytest.approx(float((old == now).double().mean()))
    assert found.accuracy == pytest.approx(float((labels == now).double().mean()))
    assert meter.history[-1].agreement < 1
    assert meter.history[-1].kl > meter.history[0].kl > 0
    meter.detach()
    train(model, optimizer, 4)
    assert meter.history == marks
    assert len(marks) == 10


def test_a_reading_is_over_the_latest_answer_to_every_probe():
    model, probes = Net(), samples(64)
    old = answers(model, probes)
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    meter = ForgettingMeter(model, probes, every=1).attach(optimizer)  # two pieces of 32
    status = torch.ones(64, dtype=torch.bool)
    for step in range(6):
        train(model, optimizer, 1, seed=step)
        part = slice(32 * (step % 2), 32 * (step % 2) + 32)
        status[part] = answers(model, probes)[part] == old[part]
        assert meter.history[-1].agreement == pytest.approx(float(status.double().mean()))


def test_a_meter_stops_training_and_the_with_block_ends_there():
    model, probes = Net(), samples()
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    reached = False
    with ForgettingMeter(model, probes, stop_below=0.8, every=1).attach(optimizer) as meter:
        train(model, optimizer)
        reached = True
    assert not reached
    last = meter.history[-1]
    assert last.agreement < 0.8
    assert all(mark.agreement >= 0.8 for mark in meter.history[:-1])
    assert meter.stopped == (
        f"after {last.step} steps the answers agree on {last.agreement:.3f} of the probes, less than 0.8: "
        "training was stopped."
    )
    assert meter.read().agreement == last.agreement
    steps = len(meter.history)
    train(model, optimizer, 2)  # detached: nobody stops this
    assert len(meter.history) == steps


def test_outside_a_with_block_it_is_an_exception_and_others_pass_through():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    meter = ForgettingMeter(model, samples(), stop_below=0.8, every=1).attach(optimizer)
    with pytest.raises(ForgettingLimitReached, match="training was stopped"):
        train(model, optimizer)
    with pytest.raises(ZeroDivisionError), ForgettingMeter(Net(), samples()):
        _ = 1 / 0
    with pytest.raises(ForgettingLimitReached), ForgettingMeter(Net(), samples()):
        raise ForgettingLimitReached("somebody else's")
    meter.detach()


def test_a_loop_may_ask_instead():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    meter = ForgettingMeter(model, samples(), stop_below=0.8, every=1)
    steps = 0
    while meter.step() and steps < 200:
        train(model, optimizer, 1, seed=steps)
        steps += 1
    assert 0 < steps < 200
    assert meter.stopped


def test_a_stopped_model_is_returned_to_its_last_good_state_weights_and_buffers():
    model, probes = Net(), samples()
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    kept = {0: state(model)}
    meter = ForgettingMeter(
        model,
        probes,
        stop_below=0.8,
        roll_back=True,
        every=2,
        on_reading=lambda mark: kept.update({mark.step: state(model)}),
    )
    with meter.attach(optimizer):
        train(model, optimizer)
    good = [
        mark.step for mark in meter.history[:-1] if mark.step % 4 == 0 and mark.agreement >= 0.8
    ]  # two pieces: a round
    expected = good[-1] if good else 0
    assert same(kept[expected], state(model))
    agreement = meter.read().agreement
    assert agreement >= 0.8
    assert meter.returns == 1
    assert meter.stopped.endswith(
        "training was stopped; weights and buffers are back as they were after step "
        f"{expected}, where {agreement:.3f} agree."
    )


def test_a_model_that_is_rolled_back_goes_on_learning_and_says_so_once():
    model, probes = Net(), samples(20)
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    meter = ForgettingMeter(model, probes, roll_back=0.8, every=1).attach(optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert train(model, optimizer) == 60
    told = said(caught)
    assert meter.returns > 1
    assert meter.stopped is None
    assert len(told) == 1
    assert re.fullmatch(
        r"after \d+ steps the answers agree on 0\.\d+ of the probes, less than 0\.8: weights and buffers are back as "
        r"they were after step \d+, where [01]\.\d+ agree, and training goes on\.",
        told[0],
    )
    assert meter.read().agreement >= 0.8  # with one piece, every state is known


def test_a_head_that_has_grown_since_is_left_alone():
    model = Net()
    meter = ForgettingMeter(model, samples(), stop_below=0.5, roll_back=True)
    model.register_parameter("head", nn.Parameter(torch.ones(3)))
    before = state(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    meter._back()
    after = state(model)
    assert torch.equal(after.pop("head"), before.pop("head") + 1)
    assert same(before, after)


def test_a_meter_may_be_used_again():
    model = Net()
    meter = ForgettingMeter(model, samples(), every=1, stop_below=0.8)
    for _ in range(2):
        optimizer = optim.SGD(model.parameters(), lr=0.3)
        with meter.attach(optimizer):
            train(model, optimizer)
        assert meter.stopped
        assert not optimizer._optimizer_step_post_hooks


def test_the_pace_is_set_by_the_batches_of_the_training():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    meter = ForgettingMeter(model, samples()).attach(optimizer)
    train(model, optimizer, 60)  # 16 samples a step
    assert [mark.step for mark in meter.history] == [17, 34, 51]
    assert meter._probes.rows == 16
    assert meter.cost > 0


def test_bad_input():
    model, probes = Net(), samples()
    for value in (0, -0.1, 1.5, float("nan")):
        with refused(f"stop_below must be a share of the answers in (0, 1], not {value!r}."):
            ForgettingMeter(model, probes, stop_below=value)
    with refused("roll_back must be a share of the answers in (0, 1], not 2.0."):
        ForgettingMeter(model, probes, roll_back=2.0)
    with refused(
        "roll_back=True returns a stopped model to its last good state, and nothing stops it: give stop_below= too, or "
        "the share below which to return, as in roll_back=0.95."
    ):
        ForgettingMeter(model, probes, roll_back=True)
    with refused("every must be a number of steps of 1 or more, not 0."):
        ForgettingMeter(model, probes, every=0)
    with refused(
        "the probes do not fit the model: Net fails on a piece of float32 [4, 5] with RuntimeError: "
        "mat1 and mat2 shapes cannot be multiplied (4x5 and 6x16)."
    ):
        ForgettingMeter(model, torch.zeros(4, 5))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    meter = ForgettingMeter(model, probes).attach(optimizer)
    with refused("the meter is attached already; call detach() first."):
        meter.attach(optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == 1

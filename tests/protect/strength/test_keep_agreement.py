"""Agreement: λ follows the answers, the target is met at the end, and what no strength can keep is said."""

from __future__ import annotations

import math
import re
import warnings

import pytest
import torch
from torch import nn, optim

from forgetless import Anchor, KeepAgreement, mas
from forgetless.errors import ForgetlessError
from warned import said


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$")


class Net(nn.Module):
    """A backbone with an old and a new head."""

    def __init__(self, seed: int = 0, norm: bool = False):
        super().__init__()
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(32)] if norm else []
        self.backbone = nn.Sequential(nn.Linear(6, 32), *middle, nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.old, self.new = nn.Linear(16, 4), nn.Linear(16, 2)

    def forward(self, inputs):
        return self.new(self.backbone(inputs))


def old_use(model, inputs):
    return model.old(model.backbone(inputs))


def samples(rows: int = 128, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed))


def answers(model: nn.Module) -> torch.Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        found = old_use(model, samples()).argmax(1)
    model.train(training)
    return found


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int, seed: int = 4, shift: float = 0.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator) + shift
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), (inputs[:, :2].prod(1) > 0).long()).backward()
        optimizer.step()


def anchored(model: nn.Module, strength, how: str = "pull", exclude: str | tuple[str, ...] = "new"):
    importance = mas(model, samples(), forward=old_use, exclude=exclude, progress=False)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Anchor(model, importance, strength).attach(optimizer, how), optimizer


def dial(target: float = 0.95, **settings) -> KeepAgreement:
    return KeepAgreement(target, samples(), forward=old_use, **settings)


quiet = pytest.mark.filterwarnings("ignore:.*of the answers agreed")


@quiet
@pytest.mark.parametrize(("target", "start"), [(0.8, 1e-4), (0.95, 1.0), (1.0, 1e3)])
def test_the_target_is_met_and_more_is_learned_than_by_holding_everything(target, start):
    model = Net()
    agreement = dial(target, start=start, every=2)
    before = answers(model)
    anchor, optimizer = anchored(model, agreement)
    train(model, optimizer, 100)
    left = agreement.settle()
    assert left == pytest.approx(float((answers(model) == before).double().mean()))
    assert left >= target
    assert anchor.drift() > 0


def test_an_anchor_that_was_loaded_keeps_the_answers_of_its_weights():
    """Whatever the weights are when it is loaded: in the middle of training they have moved."""
    model = Net()
    first, optimizer = anchored(model, 1.0)
    before, state = answers(model), {key: tensor.clone() for key, tensor in first.state_dict().items()}
    train(model, optimizer, 60, shift=0.5)
    first.detach()
    moved = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    agreement = dial(0.9, every=2)
    anchor = Anchor(model, None, agreement)
    anchor.load_state_dict(state)
    assert all(torch.equal(parameter, moved[name]) for name, parameter in model.named_parameters())
    anchor.attach(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(model, optimizer, 10)
        left = agreement.settle()
    assert left == pytest.approx(float((answers(model) == before).double().mean()))
    assert left >= 0.9


def test_without_it_the_answers_are_lost():
    model = Net()
    before = answers(model)
    _, optimizer = anchored(model, 1e-4)
    train(model, optimizer, 150)
    assert (answers(model) == before).double().mean() < 0.8


def test_the_law_of_the_strength():
    """Each observation follows from the answers by the formulas of the docstring."""
    model, probes = Net(), samples()
    agreement = dial(0.9, start=1e-3, every=1)
    old = answers(model)
    anchor, optimizer = anchored(model, agreement)
    optimizer.param_groups[0]["lr"] = 0.3
    status, strength, missed_in_a_row = torch.ones(len(probes), dtype=torch.bool), 1e-3, 0
    for step in range(30):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(model, optimizer, 1, seed=step)
        seen = agreement.history[-1]
        rows = agreement._probes.rows
        part = slice(rows * (step % (128 // rows)), rows * (step % (128 // rows)) + rows)
        if seen.returned < 1:
            status = answers(model) == old
            strength, missed_in_a_row = seen.strength, 0
            continue
        status[part] = answers(model)[part] == old[part]
        missed = 1 - float(status[part].double().mean())
        if missed > 0.1:
            strength *= min(math.exp((missed / 0.1 - 1) / 2), 10)
            missed_in_a_row += 1
            if missed_in_a_row == 4:  # it asked about everything, and the target was met
                status, missed_in_a_row = answers(model) == old, 0
        else:
            missed_in_a_row = 0
            if 1 - float(status.double().mean()) <= 0.05:
                strength *= 0.7
        assert seen.agreement == pytest.approx(float(status.double().mean()))
        assert seen.strength == anchor.strength == pytest.approx(strength)
    strengths = [seen.strength for seen in agreement.history]
    assert min(strengths) < 1e-3 < max(strengths)  # both happened


def test_a_strength_that_is_not_needed_falls_away():
    model = Net()
    agreement = dial(0.5, start=100.0, every=1)
    anchor, optimizer = anchored(model, agreement)
    for group in optimizer.param_groups:
        group["lr"] = 1e-6
    train(model, optimizer, 10)
    assert anchor.strength == pytest.approx(100 * 0.7**10)
    assert all(seen.agreement == 1 and seen.returned == 1 for seen in agreement.history)


def test_the_plasticity_left_is_logged_with_the_rest(caplog):
    model = Net()
    seen = []
    agreement = dial(every=1, start=30.0, on_observation=seen.append)
    anchor, optimizer = anchored(model, agreement)
    with caplog.at_level("INFO", "forgetless"):
        train(model, optimizer, 1)
    assert seen == agreement.history
    assert seen[0].plasticity == 1 - anchor.frozen_fraction()
    assert 0 < seen[0].plasticity < 1
    assert f"step 1: agreement 1.000, strength {seen[0].strength:.3g}, plasticity left" in caplog.text


def test_it_works_in_the_gradient_form_where_no_plasticity_is_known():
    model = Net()
    agreement = dial(every=1, start=1e-3)
    anchor, optimizer = anchored(model, agreement, "gradient")
    train(model, optimizer, 3)
    assert anchor.strength != 1e-3
    assert agreement.history[-1].plasticity is None


def test_going_back_meets_the_target_and_says_how_far_it_went():
    model = Net()
    before = answers(model)
    agreement = dial(0.95, every=1000, start=1e-4)
    _, optimizer = anchored(model, agreement)
    train(model, optimizer, 100)
    lost = float((answers(model) == before).double().mean())
    assert lost < 0.95
    with pytest.warns(UserWarning, match="of the answers agreed") as caught:
        kept = agreement.settle()
    assert kept >= 0.95
    left = agreement.history[-1].returned
    assert 0 < left < 1  # not all of what was learned is gone
    assert said(caught)[0] == (
        f"after training {lost:.3f} of the answers agreed, less than 0.95: the anchored weights went back "
        f"{1 - left:.0%} of the way to θ*, and {kept:.3f} agree now."
    )
    assert agreement.settle() == kept


def test_what_is_lost_through_free_weights_is_named():
    model = Net()
    agreement = KeepAgreement(0.95, samples(), forward=old_use, every=1000)
    importance = mas(model, samples(), forward=old_use, exclude=("old", "new"), progress=False)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    anchor = Anchor(model, importance, agreement).attach(optimizer)
    train(model, optimizer, 1)
    with torch.no_grad():
        model.old.weight.neg_()
    with pytest.warns(UserWarning, match="of the answers agreed") as caught:
        agreement.settle()
    assert "the anchored weights went back 100% of the way to θ*" in said(caught)[0]
    assert said(caught)[0].endswith(
        "the rest is lost through what is not anchored ('old.weight', 'old.bias', 'new.weight', 'new.bias')."
    )
    assert anchor.drift() == 0


@quiet
def test_statistics_are_held_while_attached_and_free_again_afterwards():
    model = Net(norm=True).train()
    before = [buffer.clone() for buffer in model.buffers()]
    anchor, optimizer = anchored(model, dial(every=1))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the running statistics")
        train(model.train(), optimizer, 3, shift=2.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    anchor.detach()
    assert model.backbone[1].training
    train(model, optimizer, 1)
    assert not torch.equal(before[0], next(model.buffers()))


@quiet
@pytest.mark.filterwarnings("ignore:the running statistics")
def test_statistics_that_run_free_go_back_too():
    model = Net(norm=True).train()
    old = answers(model)
    agreement = dial(0.99, every=1000, freeze_batchnorm=False)
    _, optimizer = anchored(model, agreement)
    train(model.train(), optimizer, 100, shift=3.0)
    assert float((answers(model) == old).double().mean()) < 0.99
    assert agreement.settle() >= 0.99


def test_four_misses_in_a_row_send_the_weights_back():
    model = Net()
    agreement = dial(0.95, every=1, start=1e-8)
    _, optimizer = anchored(model, agreement)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    with pytest.warns(UserWarning, match=r"^after \d+ steps, at strength .* the anchored weights went back"):
        train(model, optimizer, 40)
    back = [seen for seen in agreement.history if seen.returned < 1]
    assert back
    assert all(seen.agreement >= 0.95 for seen in back)


@quiet
def test_after_consolidating_the_answers_of_then_are_kept():
    model = Net()
    agreement = dial(0.95, every=2)
    anchor, optimizer = anchored(model, agreement)
    train(model, optimizer, 40)
    anchor.detach()
    with torch.no_grad():
        model.old.bias.add_(torch.tensor([1.0, 0, 0, 0]))
    anchor.consolidate(mas(model, samples(), forward=old_use, exclude="new", progress=False))
    then = answers(model)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    anchor.attach(optimizer)
    train(model, optimizer, 40)
    assert agreement.settle() >= 0.95
    assert (answers(model) == then).double().mean() >= 0.95


def test_with_nothing_to_protect_it_waits():
    model = Net()
    agreement = dial(every=1)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    anchor = Anchor(model, None, agreement).attach(optimizer)
    train(model, optimizer, 3)
    assert agreement.history == []
    anchor.consolidate(mas(model, samples(), forward=old_use, exclude="new", progress=False))
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    anchor.attach(optimizer)
    train(model, optimizer, 3)
    assert len(agreement.history) == 3


def test_two_runs_are_the_same_bits():
    models = [Net(), Net()]
    for model in models:
        _, optimizer = anchored(model, dial())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(model, optimizer, 60)
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_bad_input_changes_nothing():
    for value in (0, -0.1, 1.01, float("nan")):
        with refused(f"the target must be a share of the answers in (0, 1], not {value!r}."):
            KeepAgreement(value, samples())
    for value in (0.0, float("inf"), float("nan")):
        with refused(f"start must be a finite number above 0, not {value!r}."):
            KeepAgreement(0.9, samples(), start=value)
    with refused("every must be a number of steps of 1 or more, not 0."):
        KeepAgreement(0.9, samples(), every=0)
    with refused("settle() is for after training: attach the anchor and take a step first."):
        KeepAgreement(0.9, samples()).settle()
    model = Net()
    importance = mas(model, samples(), forward=old_use, exclude="new", progress=False)
    sentence = (
        "the probes do not fit the model: Net fails on a piece of float32 [4, 5] with RuntimeError: "
        "mat1 and mat2 shapes cannot be multiplied (4x5 and 6x32)."
    )
    with refused(sentence):
        Anchor(model, importance, KeepAgreement(0.9, torch.zeros(4, 5)))
    anchor = Anchor(model, None, KeepAgreement(0.9, torch.zeros(4, 5)))
    with refused(sentence):
        anchor.consolidate(importance)
    assert anchor.weights == {}

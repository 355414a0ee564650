"""HoldShare: when it looks, that units make no difference, and that a training goes on where it stood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn, optim

from forgetless import Anchor, HoldShare, mas
from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))


def importance(model: nn.Module, scale: float = 1.0) -> Importance:
    found = mas(model, torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), progress=False)
    return Importance({name: scale * total for name, total in found.sums.items()}, found.count)


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(16, 6, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), torch.randint(3, (16,), generator=generator)).backward()
        optimizer.step()


def test_it_looks_after_1_2_4_steps_up_to_half_of_the_training():
    model, seen = network(), []
    dial = HoldShare(0.25, steps=40, on_found=seen.append)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    anchor = Anchor(model, importance(model), dial).attach(optimizer)
    assert anchor.strength == 0
    train(model, optimizer, 40)
    assert [found.step for found in dial.history] == [1, 2, 4, 8, 16]
    assert seen == dial.history
    assert anchor.strength == dial.history[-1].strength > 0


def test_of_a_training_of_unknown_length_it_looks_to_its_end():
    model, dial = network(), HoldShare(0.25)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    anchor = Anchor(model, importance(model), dial).attach(optimizer)
    train(model, optimizer, 40)
    assert [found.step for found in dial.history] == [1, 2, 4, 8, 16, 32]
    assert anchor.strength == dial.history[-1].strength > 0
    assert dial.history[0].strength > 4 * dial.history[-1].strength


def test_an_anchor_holds_a_share_of_the_movement_by_default():
    strengths = []
    for strength in ("auto", HoldShare(0.65, of="movement")):
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)
        anchor = Anchor(model, importance(model), strength).attach(optimizer)
        train(model, optimizer, 9)
        strengths.append(anchor.strength)
    model = network()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    anchor = Anchor(model, importance(model)).attach(optimizer)
    train(model, optimizer, 9)
    assert anchor.strength == strengths[0] == strengths[1] > 0


@pytest.mark.parametrize("chosen", [0.7, (0.6, 64, "movement"), (0.6, None, "movement"), (0.4, 64, "weights")])
def test_a_state_brings_its_own_way_of_choosing_to_the_default(chosen):
    def strength() -> float | HoldShare:
        return chosen if isinstance(chosen, float) else HoldShare(chosen[0], steps=chosen[1], of=chosen[2])

    def trained(anchor: Anchor, steps: int, first: int) -> float:
        optimizer = optim.AdamW(models[anchor].parameters(), lr=1e-2)
        anchor.attach(optimizer)
        train(models[anchor], optimizer, steps, first)
        anchor.detach()
        return anchor.strength

    model, models = network(), dict[Anchor, nn.Module]()
    begun = Anchor(model, importance(model), strength())
    models[begun] = model
    stood, state = trained(begun, 5, 0), begun.state_dict()
    ends = []
    for way in (strength(), "auto"):
        twin = network()
        twin.load_state_dict(model.state_dict())
        anchor = Anchor(twin, None, way)
        models[anchor] = twin
        anchor.load_state_dict(state)
        assert anchor.strength == stood
        ends.append(trained(anchor, 30, 5))
    assert ends[0] == ends[1]
    assert (ends[1] == stood) is isinstance(chosen, float)


def test_a_term_of_the_loss_cannot_choose_its_strength():
    model = network()
    for strength, name in (("auto", 'strength="auto"'), (HoldShare(0.25, steps=8), "HoldShare")):
        with pytest.raises(ForgetlessError, match=f"^{name} chooses the strength in the steps of an optimizer"):
            Anchor(model, importance(model), strength).penalty()


def test_a_training_of_one_step_is_looked_at_once():
    model = network()
    dial = HoldShare(steps=1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    Anchor(model, importance(model), dial).attach(optimizer)
    train(model, optimizer, 3)
    assert [found.step for found in dial.history] == [1]


def test_steps_that_moved_nothing_do_not_use_up_its_looks():
    """A rate that rises from 0 moves nothing in the first step, which is all that a training of three looks at."""
    model, dial = network(), HoldShare(steps=1.5)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 2)
    anchor = Anchor(model, importance(model), dial).attach(optimizer)
    for step in range(4):
        train(model, optimizer, 1, step)
        schedule.step()
    assert [found.step for found in dial.history] == [2]
    assert anchor.status().applied == 2


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_the_scale_of_the_importance_makes_no_difference(scale):
    ends = []
    for by in (1.0, scale):
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)
        Anchor(model, importance(model, by), HoldShare(0.5, steps=30)).attach(optimizer)
        train(model, optimizer, 30)
        ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-6)


def test_more_share_keeps_the_weights_nearer():
    moved = []
    for share in (0.05, 0.5, 1.0):
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        anchor = Anchor(model, importance(model), HoldShare(share, steps=60)).attach(optimizer)
        train(model, optimizer, 60)
        moved.append(float(anchor.drift()))
    assert moved[0] > 1.5 * moved[1] > 3 * moved[2] > 0, moved


@pytest.mark.parametrize("through_file", [False, True])
def test_a_training_goes_on_to_the_same_bits(tmp_path: Path, through_file: bool):
    def begun() -> tuple[nn.Module, optim.Optimizer]:
        model = network()
        return model, optim.AdamW(model.parameters(), lr=1e-2)

    whole, optimizer = begun()
    Anchor(whole, importance(whole), HoldShare(0.4, steps=64)).attach(optimizer)
    train(whole, optimizer, 40)

    first, optimizer = begun()
    anchor = Anchor(first, importance(first), HoldShare(0.4, steps=64)).attach(optimizer)
    train(first, optimizer, 11)
    weights, moments = {k: v.clone() for k, v in first.state_dict().items()}, optimizer.state_dict()
    anchor.save(tmp_path / "a.safetensors")
    state = {name: tensor.clone() for name, tensor in anchor.state_dict().items()}

    second, optimizer = begun()
    second.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    dial = HoldShare(0.4, steps=64)
    if through_file:
        anchor = Anchor.load(tmp_path / "a.safetensors", second, strength=dial)
    else:
        anchor = Anchor(second, None, dial)
        anchor.load_state_dict(state)
    anchor.attach(optimizer)
    train(second, optimizer, 29, first=11)
    assert [found.step for found in dial.history] == [16, 32]
    for mine, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_new_task_is_looked_at_anew():
    model = network()
    dial = HoldShare(0.25, steps=8)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, importance(model), dial).attach(optimizer)
    train(model, optimizer, 8)
    anchor.consolidate(importance(model))
    train(model, optimizer, 8)
    assert [found.step for found in dial.history] == [1, 2, 4, 1, 2, 4]


def test_an_optimizer_without_a_form_is_refused_before_anything_is_attached():
    model = network()
    optimizer = optim.Rprop(model.parameters())
    for strength, name in ((HoldShare(steps=10), "HoldShare"), ("auto", 'strength="auto"')):
        with pytest.raises(ForgetlessError, match=f"^{name} cannot find a strength for Rprop, of whose steps no form"):
            Anchor(model, importance(model), strength).attach(optimizer)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"share": 0, "steps": 3}, r"the share must be in \(0, 1\], not 0\."),
        ({"share": 1.1, "steps": 3}, r"the share must be in \(0, 1\], not 1\.1\."),
        ({"of": "layers"}, r"of must be 'movement' or 'weights', not 'layers'\."),
        ({"steps": 0}, r"steps must be a finite number above 0, not 0\."),
        ({"steps": float("inf")}, r"steps must be a finite number above 0, not inf\."),
        ({"steps": float("nan")}, r"steps must be a finite number above 0, not nan\."),
    ],
)
def test_bad_settings(options, sentence):
    with pytest.raises(ForgetlessError, match=f"^{sentence}$"):
        HoldShare(**options)

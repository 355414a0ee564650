"""What the callbacks share, without a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless
from forgetless.integrations.parts.held_weights import HeldWeights
from forgetless.integrations.parts.protection import Reader
from forgetless.protect.strength.dial import at_target

OLD = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def made(model: nn.Module, strength: Any = 2.0, **measuring: Any) -> HeldWeights:
    protection = HeldWeights(OLD, strength, OLD, measuring)
    protection.make(model, Reader())
    return protection


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (model(OLD) - 1).square().mean().backward()
        optimizer.step()


def test_auto_holds_back_half_of_the_movement() -> None:
    model = network()
    protection = made(model, "auto")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    protection.attach(optimizer)
    train(model, optimizer)
    assert protection.anchor is not None
    expected = network()
    by_hand = torch.optim.Adam(expected.parameters(), lr=1e-2)
    importance = forgetless.mas(expected, OLD, progress=False)
    forgetless.Anchor(expected, importance, forgetless.HoldShare()).attach(by_hand)
    train(expected, by_hand)
    assert torch.equal(model.weight, expected.weight)


@pytest.mark.parametrize("strength", ["strong", -1.0, float("nan")])
def test_strengths_that_are_none(strength: Any) -> None:
    with pytest.raises(forgetless.ForgetlessError, match="strength must be"):
        HeldWeights(OLD, strength, None, {})


@pytest.mark.parametrize("strange", ["strenght", "temperature"])
def test_an_option_that_nothing_takes_is_refused_at_once(strange: str) -> None:
    said = f"takes 'form', .*'exclude', .*'progress' besides .*, and not '{strange}'; leave that out"
    with pytest.raises(forgetless.ForgetlessError, match=said):
        HeldWeights(OLD, "auto", None, {strange: 2.0})


def test_auto_goes_on_as_it_began() -> None:
    """Also where that was for a number of steps: another default wrote such a file."""
    model = network()
    first = made(model, forgetless.HoldShare(0.9, steps=8))
    second = HeldWeights(OLD, "auto", None, {})
    assert first.anchor is not None
    second.restore(model, first.anchor.state_dict(), Reader())
    assert second.anchor is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    second.attach(optimizer)
    train(model, optimizer, 1)
    state = second.anchor.state_dict()
    assert (float(state["dial.share"]), float(state["dial.steps"])) == (pytest.approx(0.9), 8)
    by_hand = network()
    expected = made(by_hand, forgetless.HoldShare(0.9, steps=8))
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-2)
    expected.attach(optimizer)
    train(by_hand, optimizer, 1)
    assert expected.anchor is not None
    assert float(state["strength"]) == float(expected.anchor.state_dict()["strength"]) > 0


def test_a_restored_one_compares_with_the_answers_at_the_beginning() -> None:
    model = network()
    first = made(model)
    assert first.anchor is not None
    state = {name: tensor.clone() for name, tensor in first.anchor.state_dict().items()}
    with torch.no_grad():
        model.weight.neg_()
    moved = model.weight.detach().clone()
    second = HeldWeights(OLD, 5.0, OLD, {})
    second.restore(model, state, Reader())
    assert torch.equal(model.weight, moved)
    assert second.anchor is not None
    assert second.anchor.strength == 5.0  # as it is written now, and not as it was
    assert second.agreement() == first.agreement() != 1.0


def test_inside_of_at_target_the_weights_are_those_kept() -> None:
    model = network()
    protection = made(model)
    assert protection.anchor is not None
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    with at_target(protection.anchor.anchored()):
        assert torch.equal(model.weight, start)
    assert torch.equal(model.weight, start + 1)


def test_figures() -> None:
    model = network()
    protection = made(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    protection.attach(optimizer)
    train(model, optimizer)
    names = {"drift", "strength", "frozen_fraction", "agreement"}
    assert protection.figures().keys() == {f"forgetless/{name}" for name in names}
    protection.detach()
    assert "forgetless/frozen_fraction" not in protection.figures()


def test_it_is_of_one_model() -> None:
    model = network()
    protection = made(model)
    assert protection.is_of(model)
    assert protection.is_of(torch.compile(model))  # type: ignore[arg-type]
    assert not protection.is_of(network())


def test_swapped_optimizers() -> None:
    model = network()
    protection = made(model)
    one, other = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))

    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer, self.param_groups = optimizer, optimizer.param_groups

        def step(self) -> None:
            self.optimizer.step()

    wrapped = Wrapper(one)
    protection.attach(wrapped)
    protection.refuse_swapped(wrapped)
    protection.refuse_swapped(one)
    wrapped.optimizer = other
    for replaced in (other, wrapped, [one, other]):
        with pytest.raises(forgetless.ForgetlessError, match="was replaced during training"):
            protection.refuse_swapped(replaced)


def test_the_random_numbers_stay_as_they_are() -> None:
    def drawing(data: Tensor) -> Any:
        torch.rand(3)
        return (torch.rand(0) if part is None else part for part in data.split(2))

    torch.manual_seed(1)
    expected = torch.rand(2)
    model = network()
    torch.manual_seed(1)
    protection = HeldWeights(OLD, 1.0, OLD, {})
    protection.make(model, Reader(drawing))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("old", ["a text to be kept", "old.txt"])
def test_a_text_is_no_file_of_an_importance(tmp_path: Path, old: str) -> None:
    (tmp_path / "old.txt").write_text("a text")
    given = str(tmp_path / old) if old.endswith(".txt") else old
    made = HeldWeights(given, 1.0, None, {})
    with pytest.raises(forgetless.ForgetlessError, match=r"names the file of an importance, .* is none; .*\[text\]"):
        made.make(nn.Linear(2, 2), Reader())

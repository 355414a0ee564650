"""`PathIntegral`: SI's path integral against its definition, whatever else happens in the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import forgetless
from exactness import worst
from forgetless import Anchor, ForgetlessError, Importance, PathIntegral
from forgetless.measure import reference

STEPS = 7
Make = Callable[[Any], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda p: SGD(p, lr=0.1),
    "SGD with momentum and decay": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda p: Adam(p, lr=0.01),
    "AdamW, foreach": lambda p: AdamW(p, lr=0.01, foreach=True),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def batches(steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(8, 4).double(), torch.randn(8, 2).double()) for _ in range(steps)]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def clip(model: nn.Module) -> Any:
    return nn.utils.clip_grad_norm_(model.parameters(), 0.05)


def train(model: nn.Module, optimizer: Optimizer, steps: list[tuple[Tensor, Tensor]], clipped: bool = False) -> None:
    for batch in steps:
        optimizer.zero_grad()
        loss(model, batch).backward()
        if clipped:
            clip(model)
        optimizer.step()


def defined(make: Make, steps: list[tuple[Tensor, Tensor]], clipped: bool = False) -> Importance:
    model = network()
    between = (lambda: clip(model)) if clipped else (lambda: None)
    losses = [lambda batch=batch: loss(model, batch) for batch in steps]
    return reference.path(model, make(model.parameters()), losses, between=between)


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_its_definition(name: str, clipped: bool) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    path = PathIntegral(model).attach(optimizer)
    train(model, optimizer, batches(), clipped)
    expected = defined(OPTIMIZERS[name], batches(), clipped)
    found = path.importance()
    assert worst(found, expected) < 1e-12
    assert found.estimator == "path-integral"
    assert found.count == 1
    assert worst(path.importance(), expected) < 1e-12  # asking changes nothing


def test_takes_the_gradient_of_the_step_where_told_to() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    path = PathIntegral(model, gradient="step").attach(optimizer)
    train(model, optimizer, batches(), clipped=True)
    ways = path.state()
    # Plain SGD goes against its own gradient: ω = Σ η g² of the clipped one, whose norm is 0.05 at every step.
    total = sum(float(way.sum()) for name, way in ways.items() if name.startswith("work."))
    assert total == pytest.approx(STEPS * 0.1 * 0.05**2, rel=1e-4)  # clipping adds an ε


def test_accumulated_gradients_count_whole() -> None:
    model, steps = network(), batches()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    path = PathIntegral(model).attach(optimizer)
    for x, y in steps:
        optimizer.zero_grad()
        for part in range(4):
            half = slice(2 * part, 2 * part + 2)
            (loss(model, (x[half], y[half])) / 4).backward()
        optimizer.step()
    assert worst(path.importance(), defined(lambda p: SGD(p, lr=0.1, momentum=0.9), steps)) < 1e-12


@pytest.mark.parametrize("anchor_first", [True, False])
def test_the_pull_is_part_of_the_way_in_whatever_order(anchor_first: bool) -> None:
    model, steps = network(), batches()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    omega = forgetless.mas(model, steps[0][0], progress=False)
    with torch.no_grad():
        anchor = Anchor(model, omega, strength=1.0)
        for parameter in model.parameters():
            parameter.add_(0.1)
    path = PathIntegral(model)
    for attach in (anchor.attach, path.attach) if anchor_first else (path.attach, anchor.attach):
        attach(optimizer)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in steps:
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        train(model, optimizer, [batch])
        for name, p in model.named_parameters():
            assert p.grad is not None
            expected[name] -= p.grad * (p.detach() - before[name])
    ways = path.state()
    for name, value in expected.items():
        assert torch.allclose(ways[f"work.{name}"], value, rtol=1e-10, atol=1e-14), name


def test_a_parameter_that_moves_without_a_gradient_adds_nothing() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    path = PathIntegral(model).attach(optimizer)
    train(model, optimizer, batches(1))
    before = path.state()
    optimizer.zero_grad(set_to_none=False)
    (model[0].weight ** 2).sum().backward()  # the others move by their momentum alone
    optimizer.step()
    after = path.state()
    assert torch.equal(after["work.2.weight"], before["work.2.weight"])
    assert not torch.equal(after["work.0.weight"], before["work.0.weight"])


def test_goes_on_from_its_state_to_the_same_bits() -> None:
    steps = batches()
    whole_model = network()
    whole_optimizer = SGD(whole_model.parameters(), lr=0.1)
    whole = PathIntegral(whole_model).attach(whole_optimizer)
    train(whole_model, whole_optimizer, steps)

    first = network()
    optimizer = SGD(first.parameters(), lr=0.1)
    path = PathIntegral(first).attach(optimizer)
    train(first, optimizer, steps[:3])
    second = network()
    second.load_state_dict(first.state_dict())
    resumed = PathIntegral(second)
    resumed.load_state(path.state())
    optimizer = SGD(second.parameters(), lr=0.1)
    resumed.attach(optimizer)
    train(second, optimizer, steps[3:])
    for name, total in whole.importance().sums.items():
        assert torch.equal(resumed.importance().sums[name], total)


def test_restart_begins_a_new_path() -> None:
    model, steps = network(), batches()
    optimizer = SGD(model.parameters(), lr=0.1)
    path = PathIntegral(model).attach(optimizer)
    train(model, optimizer, steps[:3])
    path.restart()
    assert all(not bool(total.any()) for total in path.importance().sums.values())
    train(model, optimizer, steps[3:])
    assert all(bool(total.any()) for total in path.importance().sums.values())


def test_detached_it_follows_no_more_and_leaves_no_hook() -> None:
    model, steps = network(), batches()
    optimizer = SGD(model.parameters(), lr=0.1)
    path = PathIntegral(model).attach(optimizer)
    train(model, optimizer, steps[:3])
    before = path.state()
    path.detach()
    assert not optimizer._optimizer_step_pre_hooks
    assert all(not parameter._post_accumulate_grad_hooks for parameter in model.parameters())
    after_importance = path.importance()
    train(model, optimizer, steps[3:])
    assert torch.equal(path.state()["start.0.weight"], before["start.0.weight"])
    assert after_importance.count == 1
    path.attach(optimizer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_adds_up_in_float32_or_wider(dtype: torch.dtype) -> None:
    model = network().to(dtype)
    optimizer = SGD(model.parameters(), lr=0.1)
    path = PathIntegral(model).attach(optimizer)
    train(model, optimizer, [(x.to(dtype), y.to(dtype)) for x, y in batches()])
    assert {total.dtype for total in path.importance().sums.values()} == {torch.float32}


def test_what_is_left_out_is_left_out() -> None:
    model = network()
    assert list(PathIntegral(model, exclude="2").importance().sums) == ["0.weight", "0.bias"]


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = network()


Wrapped.__name__ = "DistributedDataParallel"


class Compiled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


Compiled.__name__ = "OptimizedModule"
AVERAGES = r'averages gradients after the backward pass; use PathIntegral\(model, gradient="step"\)'


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PathIntegral(network(), damping=0.0), "damping must be positive and finite, not 0.0"),
        (lambda: PathIntegral(network(), damping=float("nan")), "damping must be positive and finite, not nan"),
        (lambda: PathIntegral(network(), gradient="batch"), 'gradient must be "loss" or "step", not \'batch\''),
        (lambda: PathIntegral(nn.Tanh()), "Tanh has no trainable parameter whose path could be followed"),
        (lambda: PathIntegral(Wrapped()), AVERAGES),
        (lambda: PathIntegral(Compiled(Wrapped())), AVERAGES),
        (
            lambda: PathIntegral(network()).attach(SGD([nn.Parameter(torch.zeros(1))], lr=0.1)),
            "this SGD holds none of the parameters of the path",
        ),
    ],
)
def test_refuses(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ForgetlessError, match=sentence):
        make()


def test_refuses_to_be_attached_twice_and_other_states() -> None:
    model = network()
    path = PathIntegral(model).attach(SGD(model.parameters(), lr=0.1))
    with pytest.raises(ForgetlessError, match=r"attached already; detach\(\) it first"):
        path.attach(SGD(model.parameters(), lr=0.1))
    with pytest.raises(ForgetlessError, match="the state does not fit the path: it lacks"):
        path.load_state({})


def test_says_where_training_has_diverged() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=1e300)
    path = PathIntegral(model).attach(optimizer)
    train(model, optimizer, batches())
    with pytest.raises(ForgetlessError, match=r"the path of '0\.weight' holds NaN or Inf: training has diverged"):
        path.importance()

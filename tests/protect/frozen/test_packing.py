"""Optimizers that step on the free elements alone: equal to a loop over single elements, resumed to the bit."""

from __future__ import annotations

import copy
import pickle
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from forgetless.protect.frozen import packing
from forgetless.protect.frozen.freeze import FrozenCore
from forgetless.protect.frozen.share import Elements
from frozen import Make, element_by_element, loss, network, random_masks, same, trained, weights

MAKES: dict[str, Make] = {
    "SGD": partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "SGD, Nesterov": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": partial(optim.Adam, lr=0.1, weight_decay=0.1),
    "AdamW": partial(optim.AdamW, lr=0.1, weight_decay=0.1),
    "AdamW, amsgrad": partial(optim.AdamW, lr=0.1, amsgrad=True, foreach=True),
    "AdamW, fused": partial(optim.AdamW, lr=0.1, weight_decay=0.1, fused=True),
    "NAdam": partial(optim.NAdam, lr=0.1),
    "RAdam": partial(optim.RAdam, lr=0.1),
    "Adamax": partial(optim.Adamax, lr=0.1),
    "RMSprop": partial(optim.RMSprop, lr=0.01, momentum=0.9, centered=True),
    "Adagrad": partial(optim.Adagrad, lr=0.1, initial_accumulator_value=0.1),
    "Adadelta": partial(optim.Adadelta, lr=1.0),
    "ASGD": partial(optim.ASGD, lr=0.1, weight_decay=0.1),
    "Rprop": optim.Rprop,
}


@settings(max_examples=40)
@given(name=st.sampled_from(sorted(MAKES)), seed=st.integers(0, 99), share=st.sampled_from([0.2, 0.6, 0.95]))
def test_it_is_training_element_by_element(name, seed, share):
    compare(name, seed, share)


def compare(name: str, seed: int, share: float) -> None:
    model = network(seed)
    masks = random_masks(model, seed, share)
    before, expected = weights(model), element_by_element(model, masks, MAKES[name], 4)
    core = FrozenCore(model, masks)
    optimizer = MAKES[name](model.parameters())
    core.attach(optimizer)
    trained(model, optimizer, 4)
    assert same(weights(model), before, masks)
    for parameter, now in weights(model).items():
        torch.testing.assert_close(now, expected[parameter], rtol=1e-10, atol=1e-12)
    for parameter, value in model.named_parameters():
        free = int((~masks[parameter]).sum())
        sizes = {each.numel() for each in optimizer.state.get(value, {}).values() if isinstance(each, Tensor)}
        assert sizes <= {1, free}, parameter
    assert [each for group in optimizer.param_groups for each in group["params"]] == list(model.parameters())


@pytest.mark.parametrize("name", MAKES)
def test_every_optimizer_once(name):
    compare(name, 5, 0.5)


def test_planted_faults_are_seen(monkeypatch):
    monkeypatch.setattr(packing.Packing, "_hand_over", lambda *_: None)
    with pytest.raises(AssertionError):
        compare("AdamW", 5, 0.5)
    monkeypatch.undo()
    true = Elements.scatter
    monkeypatch.setattr(Elements, "scatter", lambda self, tensor, packed: true(self, tensor, packed.flip(0)))
    with pytest.raises(AssertionError):
        compare("AdamW", 5, 0.5)


def test_a_lion_of_timm():
    timm = pytest.importorskip("timm.optim")
    model = network()
    masks = random_masks(model, 2)
    before = weights(model)
    core = FrozenCore(model, masks)
    optimizer = timm.Lion(model.parameters(), lr=0.01, weight_decay=0.1)
    core.attach(optimizer)
    trained(model, optimizer, 3)
    assert same(weights(model), before, masks)
    with pytest.raises(ForgetlessError, match="Lion with caution=True scales by a mean over the tensor"):
        core.attach(timm.Lion(model.parameters(), lr=0.01, caution=True))


# -- resuming


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adagrad", "AdamW, fused"])
@pytest.mark.parametrize("attached_first", [True, False])
@pytest.mark.parametrize("steps", [0, 3])
def test_training_resumes_to_the_bit(name, attached_first, steps, tmp_path):
    model = network(dtype=torch.float32)
    masks = random_masks(model, 7)
    core = FrozenCore(model, masks)
    optimizer = MAKES[name](model.parameters())
    core.attach(optimizer)
    trained(model, optimizer, steps)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint")
    core.save(tmp_path / "core")
    trained(model, optimizer, 3, steps)

    other = network(1, torch.float32)
    held = torch.load(tmp_path / "checkpoint")
    given = copy.deepcopy(held["optimizer"])
    other.load_state_dict(held["model"])
    again = MAKES[name](other.parameters())
    if attached_first:
        FrozenCore.load(tmp_path / "core", other).attach(again)
        again.load_state_dict(held["optimizer"])
    else:
        again.load_state_dict(held["optimizer"])
        FrozenCore.load(tmp_path / "core", other).attach(again)
    assert given["param_groups"] == held["optimizer"]["param_groups"]  # what was given is not changed
    assert all(packing.MARK not in group for group in again.param_groups)
    trained(other, again, 3, steps)
    assert same(weights(model), weights(other))
    left, right = (each.state_dict()["state"] for each in (optimizer, again))
    assert left.keys() == right.keys()
    assert all(
        torch.equal(left[k][key], right[k][key]) for k in left for key in left[k] if isinstance(left[k][key], Tensor)
    )


@pytest.mark.parametrize("attached_first", [True, False])
def test_a_state_of_another_core_is_refused(attached_first):
    """Also where as many elements are free, so that nothing else could tell."""
    masks = {"mix.weight": torch.eye(4, dtype=torch.bool)}
    model = network()
    optimizer = optim.Adam(model.parameters())
    FrozenCore(model, masks).attach(optimizer)
    trained(model, optimizer, 1)
    state = optimizer.state_dict()
    other = network()
    again = optim.Adam(other.parameters())
    core = FrozenCore(other, {"mix.weight": masks["mix.weight"].flip(0)})
    first, second = core.attach, again.load_state_dict
    given: tuple[Any, Any] = (again, state)
    if not attached_first:
        first, second, given = again.load_state_dict, core.attach, (state, again)
    first(given[0])
    with pytest.raises(ForgetlessError, match="the optimizer's state was saved with another frozen core"):
        second(given[1])


@pytest.mark.parametrize("name", ["AdamW, fused", "AdamW", "SGD", "Rprop"])
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_what_leaves_the_optimizer_is_safe_without_a_core(name, way):
    """It has the parameters' shapes, so that nothing reads beyond it; the core's part is 0."""
    model = network(dtype=torch.float32)
    masks = random_masks(model, 7)
    optimizer = MAKES[name](model.parameters())
    core = FrozenCore(model, masks)
    core.attach(optimizer)
    trained(model, optimizer, 2)
    if way == "state_dict":
        again = MAKES[name](copy.deepcopy(model).parameters())
        again.load_state_dict(optimizer.state_dict())
    else:
        again = copy.deepcopy(optimizer) if way == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    parameters = again.param_groups[0]["params"]
    packed = False
    for parameter, mask, own in zip(parameters, masks.values(), model.parameters(), strict=True):
        for key, value in again.state.get(parameter, {}).items():
            held = optimizer.state[own][key]
            packed |= value.shape != held.shape
            if value.dim():
                assert value.shape == parameter.shape
                assert not value[mask].any()
                assert torch.equal(value[~mask].flatten(), held.flatten())
        parameter.grad = torch.ones_like(parameter)
    assert packed
    again.step()
    assert all(bool(torch.isfinite(each).all()) for each in parameters)
    core.remove()
    copied = copy.deepcopy(optimizer)
    assert "__getstate__" not in vars(optimizer)
    assert "__getstate__" not in vars(copied)


class Failing(optim.SGD):
    """Raises in the middle of a step when it is told to."""

    fails = False

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if closure is not None:
            with torch.enable_grad():
                closure()
        if self.fails:
            raise RuntimeError("out of memory")
        return super().step()


@pytest.mark.parametrize("then", ["zero_grad", "zero_grad(set_to_none=False)", "again", "more", "save"])
@pytest.mark.parametrize("closure", [False, True])
def test_after_a_step_that_failed_it_goes_on_as_plain_training_does(then, closure):
    found = []
    for frozen in (True, False):
        model = network()
        masks = {name: mask & ~mask.all() for name, mask in random_masks(model, 5).items()}
        optimizer = Failing(model.parameters(), lr=0.1, momentum=0.9)
        core = FrozenCore(model, masks)  # the gradients of the core are 0 in both
        if frozen:
            core.attach(optimizer, elementwise=True)
        trained(model, optimizer, 1)
        optimizer.zero_grad()
        optimizer.fails = True
        if not closure:
            loss(model, 1).backward()
        again = (lambda model=model: loss(model, 1).backward()) if closure else None
        with pytest.raises(RuntimeError, match="out of memory"):
            optimizer.step(again)
        optimizer.fails = False
        if then == "save":
            assert optimizer.state_dict()["param_groups"][0]["params"] == [0, 1, 2, 3]
        if then.startswith("zero_grad"):
            optimizer.zero_grad(set_to_none=then == "zero_grad")
        if then != "again":
            loss(model, 2).backward()
            assert optimizer.param_groups[0]["params"] == list(model.parameters())
        optimizer.step()
        found.append((weights(model), {name: each.grad for name, each in model.named_parameters()}))
    for left, right in zip(*found, strict=True):
        for name, each in left.items():
            torch.testing.assert_close(each, right[name], rtol=1e-12, atol=1e-14)


def test_gradients_are_there_before_and_after_a_step():
    model = network()
    optimizer = optim.Adam(model.parameters())
    FrozenCore(model, random_masks(model, 5)).attach(optimizer)
    loss(model, 0).backward()
    before = {name: (each.grad, each.grad.clone()) for name, each in model.named_parameters() if each.grad is not None}
    optimizer.step()
    for name, parameter in model.named_parameters():
        if name in before:
            assert parameter.grad is before[name][0]
            assert torch.equal(parameter.grad, before[name][1])


def test_state_from_before_is_packed_and_after_remove_unpacked():
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    trained(model, optimizer, 2)
    full = copy.deepcopy(optimizer.state_dict())
    masks = random_masks(model, 9)
    core = FrozenCore(model, masks)
    core.attach(optimizer)
    for name, parameter in model.named_parameters():
        held = optimizer.state.get(parameter)
        number = [n for n, _ in model.named_parameters()].index(name)
        if masks[name].all():
            assert held is None
        elif masks[name].any():
            kept = full["state"][number]["exp_avg"][~masks[name]]
            assert torch.equal(held["exp_avg"].flatten(), kept.flatten())
    before = weights(model)
    optimizer.load_state_dict(full)  # that of a training without a core is packed as well
    trained(model, optimizer, 2, 2)
    assert same(weights(model), before, masks)
    core.remove()
    for parameter in model.parameters():
        assert all(v.shape == parameter.shape for k, v in optimizer.state.get(parameter, {}).items() if k != "step")
    trained(model, optimizer, 1, 4)
    assert not any(torch.equal(weights(model)[name], before[name]) for name in before)
    assert core.status().steps == 2


# -- the ways in which people step


def test_closures_and_one_that_fails():
    model = network()
    masks = random_masks(model, 5)
    expected = element_by_element(model, masks, MAKES["AdamW"], 2)
    core = FrozenCore(model, masks)
    optimizer = MAKES["AdamW"](model.parameters())
    core.attach(optimizer)
    for step in range(2):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            value = loss(model, step)
            value.backward()
            return value

        def failing() -> Tensor:
            raise KeyError("data")

        with pytest.raises(KeyError):
            optimizer.step(failing)
        assert optimizer.param_groups[0]["params"] == list(model.parameters())
        assert optimizer.step(closure=closure) is not None
    for name, now in weights(model).items():
        torch.testing.assert_close(now, expected[name], rtol=1e-10, atol=1e-12)


class Searching(optim.SGD):
    """Calls its closure twice, as one that searches along a line does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for _ in range(2):
            with torch.enable_grad():
                value = closure()
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(group["lr"] * parameter.grad)
        return value


def test_a_closure_that_is_called_twice_sees_the_weights_as_they_are_by_then():
    model, plain = network(), network()
    masks = random_masks(model, 5)
    core = FrozenCore(model, masks)
    optimizer = Searching(model.parameters(), lr=0.1)
    with pytest.raises(ForgetlessError, match="whether Searching treats every element by itself is not known here"):
        core.attach(optimizer)
    core.attach(optimizer, elementwise=True)

    def closure() -> Tensor:
        model.zero_grad()
        value = loss(model, 0)
        value.backward()
        return value

    optimizer.step(closure)
    FrozenCore(plain, masks)
    other = optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(2):
        other.zero_grad()
        loss(plain, 0).backward()
        other.step()
    for name, now in weights(plain).items():
        torch.testing.assert_close(weights(model)[name], now, rtol=1e-12, atol=1e-12)


def test_groups_several_optimizers_a_schedule_and_accumulation():
    model = network()
    masks = random_masks(model, 5)
    core = FrozenCore(model, masks)
    first = optim.AdamW([{"params": [model.tokens.weight]}, {"params": [model.scale], "lr": 0.3}], lr=0.1)
    second = optim.SGD([model.mix.weight], lr=0.1, momentum=0.9)
    core.attach({"first": first, "second": [second]})
    second.add_param_group({"params": [model.mix.bias], "lr": 0.2})
    schedules = [optim.lr_scheduler.ExponentialLR(each, 0.9) for each in (first, second)]
    before = weights(model)
    for step in range(4):
        for part in range(2):
            (loss(model, 2 * step + part) / 2).backward()
        for each, schedule in zip((first, second), schedules, strict=True):
            each.step()
            each.zero_grad()
            schedule.step()
    assert same(weights(model), before, masks)
    assert all(not torch.equal(before[n], w) for n, w in weights(model).items() if not masks[n].all())
    assert core.status().steps == 8
    assert second.param_groups[1]["params"] == [model.mix.bias]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_loss_scaling_skips_changes_nothing(fused):
    model = network(dtype=torch.float32)
    masks = random_masks(model, 5)
    core = FrozenCore(model, masks)
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1, fused=fused)
    core.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step(factor: float) -> None:
        optimizer.zero_grad()
        scaler.scale(loss(model, 0) * factor).backward()
        scaler.step(optimizer)
        scaler.update()

    before = weights(model)
    step(1.0)
    after = weights(model)
    step(float("inf"))
    assert same(weights(model), after)
    step(1.0)
    assert same(weights(model), before, masks)
    assert not same(weights(model), after)


def test_an_infinite_gradient_in_the_core_skips_no_step():
    weight = nn.Parameter(torch.ones(3))
    core = FrozenCore(nn.ParameterList([weight]), {"0": torch.tensor([True, False, False])})
    optimizer = optim.SGD([weight], lr=0.1)
    core.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((weight * torch.tensor([float("inf"), 1, 2])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    torch.testing.assert_close(weight.detach(), torch.tensor([1.0, 0.9, 0.8]))


def test_other_hooks_see_the_models_parameters_after_the_step():
    model = network()
    optimizer = optim.Adam(model.parameters())
    seen = []
    optimizer.register_step_post_hook(
        lambda o, *_: seen.append(o.param_groups[0]["params"] == list(model.parameters()))
    )
    FrozenCore(model, random_masks(model, 5)).attach(optimizer)
    trained(model, optimizer, 1)
    assert seen == [True]


# -- what is refused, and what works beside


class Muon(optim.SGD):
    """Named as one that orthogonalizes."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return super().step(closure)


class Adam8bit(optim.Adam):
    __module__ = "bitsandbytes.optim"


REFUSED: dict[str, tuple[Make, str]] = {
    "Muon": (partial(Muon, lr=0.1), "Muon orthogonalizes whole matrices, so it cannot step on single elements or rows"),
    "Adafactor": (optim.Adafactor, "Adafactor keeps means over rows and columns"),
    "LBFGS": (optim.LBFGS, "LBFGS searches along a line for all parameters together"),
    "8 bits": (Adam8bit, "Adam8bit keeps its state in 8 bits, in blocks"),
    "differentiable": (partial(optim.SGD, lr=0.1, differentiable=True), "cannot be differentiated through"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_optimizers_that_look_at_more_than_an_element(what):
    make, sentence = REFUSED[what]
    model = network()
    core = FrozenCore(model, {"mix.weight": torch.eye(4, dtype=torch.bool)})
    given = [model.mix.weight] if what == "Muon" else model.parameters()
    optimizer = make(given)
    for vouched in (False, True):
        with pytest.raises(ForgetlessError, match=sentence):
            core.attach(optimizer, elementwise=vouched)
    assert not optimizer._optimizer_step_pre_hooks
    core.attach(optim.SGD(model.parameters(), lr=0.1))  # nothing was attached


def test_every_optimizer_of_torch_is_compared_above_or_refused_by_name():
    compared = {getattr(make, "func", make) for make in MAKES.values()}
    kinds = [each for each in vars(optim).values() if isinstance(each, type) and issubclass(each, optim.Optimizer)]
    others = {each for each in kinds if each is not optim.Optimizer} - compared
    assert len(compared) + len(others) >= 14
    for kind in others:
        model = network()
        core = FrozenCore(model, {"mix.weight": torch.eye(4, dtype=torch.bool)})
        with pytest.raises(
            ForgetlessError, match=rf"^{kind.__name__} .*, so it cannot step on single elements or rows"
        ):
            core.attach(kind([model.mix.weight]))


class SAM(optim.Optimizer):
    """Sharpness-aware minimization as it is commonly written: up along the gradient, then a step from where it was."""

    def __init__(self, parameters: Any, base: Make, rho: float = 0.05) -> None:
        super().__init__(parameters, {"rho": rho})
        self.base_optimizer = base(self.param_groups)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def step(self, closure: Any) -> None:  # type: ignore[override]
        parameters = [each for group in self.param_groups for each in group["params"] if each.grad is not None]
        norm = torch.stack([each.grad.norm() for each in parameters]).norm()
        before = [each.clone() for each in parameters]
        for each in parameters:
            each.add_(each.grad * self.param_groups[0]["rho"] / norm)
        with torch.enable_grad():
            closure()
        for each, was in zip(parameters, before, strict=True):
            each.copy_(was)
        self.base_optimizer.step()


def test_sharpness_aware_minimization_goes_up_and_down_the_free_elements_alone():
    model, by_hand = network(3), network(3)
    masks = {name: mask for name, mask in random_masks(model, 3).items() if mask.any()}
    before, core = weights(model), FrozenCore(model, masks)
    optimizer = SAM(model.parameters(), partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1))
    core.attach(optimizer)
    free = [~masks.get(name, torch.zeros(each.shape, dtype=torch.bool)) for name, each in by_hand.named_parameters()]
    momentum = [torch.zeros_like(each) for each in by_hand.parameters()]
    for step in range(3):

        def closure(step: int = step) -> None:
            optimizer.zero_grad()
            loss(model, step).backward()

        closure()
        optimizer.step(closure)
        held = list(by_hand.parameters())
        up = [each * kept for each, kept in zip(torch.autograd.grad(loss(by_hand, step), held), free, strict=True)]
        norm = torch.stack([each.norm() for each in up]).norm()
        with torch.no_grad():
            was = [each.clone() for each in held]
            for each, way in zip(held, up, strict=True):
                each.add_(0.05 * way / norm)
        down = torch.autograd.grad(loss(by_hand, step), held)
        with torch.no_grad():
            for each, old, way, kept, moment in zip(held, was, down, free, momentum, strict=True):
                moment.mul_(0.9).add_((way + 0.1 * old) * kept)
                each.copy_(old - 0.1 * moment)
    assert same(weights(model), before, masks)
    for name, expected in by_hand.named_parameters():
        torch.testing.assert_close(weights(model)[name], expected.detach(), rtol=1e-10, atol=1e-12)
    sizes = [each["momentum_buffer"].numel() for each in optimizer.base_optimizer.state.values() if each]
    assert sum(sizes) == sum(int(kept.sum()) for kept in free)


@pytest.mark.parametrize("make", [optim.Adafactor, partial(optim.AdamW, weight_decay=0.1)])
def test_whole_tensors_are_left_alone_by_every_optimizer(make):
    model = network()
    core = FrozenCore(model, {"tokens.weight": torch.ones(7, 4, dtype=torch.bool)})
    optimizer = make(model.parameters())
    core.attach(optimizer)
    before = weights(model)
    trained(model, optimizer, 3)
    assert same(weights(model), before, core.masks())
    with pytest.raises(ForgetlessError, match="the core is attached to this optimizer already"):
        core.attach(optimizer)


@pytest.mark.parametrize("anchored_first", [True, False])
def test_an_anchor_beside_it(anchored_first):
    """With whole tensors it works; with parts of them it is refused, by either."""
    model = network()
    found = Importance({name: torch.rand_like(p) for name, p in model.named_parameters()}, 1.0)
    for masks, fine in (
        ({"tokens.weight": torch.ones(7, 4, dtype=torch.bool)}, True),
        ({"mix.weight": torch.eye(4, dtype=torch.bool)}, False),
    ):
        core, anchor = FrozenCore(model, masks), Anchor(model, found, 1.0)
        optimizer = optim.Adam(model.parameters(), lr=0.1)

        def both(core: FrozenCore = core, anchor: Anchor = anchor, optimizer: Any = optimizer) -> None:
            first, second = (anchor, core) if anchored_first else (core, anchor)
            first.attach(optimizer)
            second.attach(optimizer)

        if fine:
            both()
            before = weights(model)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                trained(model, optimizer, 3)
            assert same(weights(model), before, masks)
        else:
            with pytest.raises(ForgetlessError, match="protect with one of the two"):
                both()
        anchor.detach()
        core.remove()

"""Wrappers: whose step moves the weights, and where training with the pull on it ends."""

from __future__ import annotations

import copy
import warnings

import jaxtyping
import pytest
import torch
from torch import Tensor, nn, optim

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from forgetless.protect.optimizers.inner import Inner

CENTER, CURVATURE, OMEGA, STRENGTH = (
    torch.tensor([1.0, -2.0, 3.0]),
    torch.tensor([0.5, 1.0, 2.0]),
    torch.tensor([1.0, 0.1, 3.0]),
    0.4,
)


@pytest.fixture(autouse=True)
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def network() -> nn.Module:
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(3))
    return model


def gradient(model: nn.Module) -> Tensor:
    return CURVATURE * (model.w.detach() - CENTER)


def anchored(model: nn.Module, optimizer: object, **options) -> Anchor:
    return Anchor(model, Importance({"w": OMEGA}, 1.0), STRENGTH).attach(optimizer, **options)


OPTIMUM = CURVATURE * CENTER / (CURVATURE + 2 * STRENGTH * OMEGA)


class SAM(optim.Optimizer):
    """First and second step of davda54/sam (MIT)."""

    def __init__(self, parameters, base, rho=0.05, **options):
        super().__init__(parameters, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        norm = torch.stack([p.grad.norm() for g in self.param_groups for p in g["params"]]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.data.clone()
                p.add_(p.grad * group["rho"] / (norm + 1e-12))

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old"]
        self.base_optimizer.step()

    def step(self, closure=None):
        raise RuntimeError("call first_step and second_step")


def test_two_phase_optimizers_end_where_the_gradient_after_the_ascent_balances_the_penalty():
    model = network()
    sam = SAM(model.parameters(), optim.SGD, rho=0.1, lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        anchored(model, sam)
        for _ in range(600):
            model.w.grad = gradient(model)
            sam.first_step()
            model.w.grad = gradient(model)
            sam.second_step()
    found = gradient(model)
    ascended = found + CURVATURE * 0.1 * found / found.norm()
    assert (ascended + 2 * STRENGTH * OMEGA * model.w.detach()).abs().max() < 1e-5


def test_one_that_shows_no_inner_optimizer_is_refused_by_name():
    class ClosedSAM(optim.SGD):
        def first_step(self):
            pass

        def second_step(self):
            pass

    model = network()
    with pytest.raises(ForgetlessError, match=r"^ClosedSAM moves the weights in first_step\(\) and second_step\(\)"):
        anchored(model, ClosedSAM(model.parameters(), lr=0.1))


class Plain:
    """A wrapper that is no optimizer: Lightning's, DeepSpeed's."""

    def __init__(self, optimizer):
        self._optimizer = optimizer

    def step(self):
        return self._optimizer.step()


class Bare(optim.Optimizer):
    """An Optimizer without hooks of its own: Accelerate's."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)

    def step(self, closure=None):
        return self.optimizer.step()


class Fabric(optim.Optimizer):
    """A copy of the optimizer's attributes under a class made for it: Lightning Fabric's."""

    def __init__(self, optimizer):
        self.__dict__.update(optimizer.__dict__)
        self._inside = optimizer
        self.__class__ = type("Fabric" + type(optimizer).__name__, (Fabric, type(optimizer)), {})

    optimizer = property(lambda self: self._inside)

    def step(self, closure=None):
        return self._inside.step()


@pytest.mark.parametrize("wrap", [Plain, Bare, Fabric, lambda each: Plain(Bare(each)), lambda each: [each]])
@pytest.mark.parametrize("how", ["pull", "gradient"])
def test_a_wrapper_stands_for_the_optimizer_inside(wrap, how):
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapped = wrap(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        anchored(model, wrapped, how=how)
        for _ in range(500):
            model.w.grad = gradient(model)
            (optimizer if isinstance(wrapped, list) else wrapped).step()
    torch.testing.assert_close(model.w.detach(), OPTIMUM, rtol=1e-4, atol=1e-5)


def test_lookaheads_fast_and_slow_weights_meet_at_the_penalized_optimum():
    lookahead = pytest.importorskip("timm.optim").Lookahead
    model = network()
    optimizer = lookahead(optim.SGD(model.parameters(), lr=0.1), alpha=0.5, k=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        anchored(model, optimizer)
        for _ in range(900):
            model.w.grad = gradient(model)
            optimizer.step()
    torch.testing.assert_close(model.w.detach(), OPTIMUM, rtol=1e-4, atol=1e-5)


def test_optimizers_in_gradient_hooks_are_attached_together():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    start = copy.deepcopy(model.state_dict())
    each = {parameter: optim.SGD([parameter], lr=0.1) for parameter in model.parameters()}

    def stepped(parameter: nn.Parameter) -> None:
        each[parameter].step()
        each[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(stepped)
    importance = Importance({name: torch.ones_like(p) for name, p in model.named_parameters()}, 1.0)
    Anchor(model, importance, 1e9).attach(each)
    for _ in range(3):
        model(torch.randn(8, 3)).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), start[name], rtol=0, atol=1e-6)


def test_an_averaged_copy_follows_the_pulled_weights():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    average = optim.swa_utils.AveragedModel(model, multi_avg_fn=optim.swa_utils.get_ema_multi_avg_fn(0.9))
    anchored(model, optimizer)
    for _ in range(600):
        model.w.grad = gradient(model)
        optimizer.step()
        average.update_parameters(model)
    torch.testing.assert_close(average.module.w.detach(), OPTIMUM, rtol=1e-4, atol=1e-5)


def test_copies_of_the_weights_are_refused():
    model = network()
    with pytest.raises(ForgetlessError, match=r"if it trains copies of them \(ZeRO, offloading, master weights\)"):
        anchored(model, Plain(optim.SGD([model.w.detach().clone().requires_grad_()], lr=0.1)))


@pytest.mark.parametrize("other", [None, 3, "sgd", [], {}])
def test_what_is_no_optimizer_is_refused(other):
    with pytest.raises(ForgetlessError, match=r"^attach\(\) takes a torch\.optim\.Optimizer, not "):
        Inner(other)


def test_a_failure_with_one_of_several_attaches_none():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    good, bad = optim.SGD(model[0].parameters(), lr=0.1), optim.Rprop(model[1].parameters())
    importance = Importance({name: torch.ones_like(p) for name, p in model.named_parameters()}, 1.0)
    with pytest.raises(ForgetlessError, match=r"^Rprop takes longer steps"):
        Anchor(model, importance, 1.0).attach([good, bad], how="pull")
    assert not good._optimizer_step_post_hooks

"""The pull in training: every optimizer, every strength, and what happens to an optimizer in its life."""

from __future__ import annotations

import copy
import logging
import os
import re
import warnings

import jaxtyping
import pytest
import torch
from torch import Tensor, nn, optim

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.protect import anchored_parameter
from forgetless.protect.anchor import Anchor
from forgetless.protect.optimizers import native
from peak import Peak
from warned import said


@pytest.fixture
def unchecked():
    """Without the tests' own checks of annotations: many steps are taken here, and wrong types tried."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(inputs)))

    def learn(self, optimizer: optim.Optimizer, steps: int = 6, start: int = 0) -> None:
        for step in range(start, start + steps):
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(step)
            loss = (self(torch.randn(7, 5, generator=generator).to(self.last.weight.dtype)) - 1).square().mean()
            (-loss if optimizer.param_groups[0].get("maximize") else loss).backward()
            optimizer.step()


def measured(model: nn.Module, seed: int = 1) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    return Importance({name: torch.rand(p.shape, generator=generator) for name, p in model.named_parameters()}, 1.0)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(one: nn.Module, other: nn.Module, **tolerance) -> None:
    for (name, mine), theirs in zip(weights(one).items(), weights(other).values(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$")


# ---------------------------------------------------------------------------------------------- every optimizer


class Signs(optim.Optimizer):
    """A third party's: sign of the gradient."""

    def __init__(self, params, lr=0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * parameter.grad.sign()


OPTIMIZERS = [
    (optim.SGD, {}),
    (optim.SGD, {"momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (optim.SGD, {"momentum": 0.9, "maximize": True, "foreach": True}),
    (optim.SGD, {"momentum": 0.9, "fused": True}),
    (optim.SGD, {"lr": torch.tensor(0.05)}),
    (optim.Adam, {}),
    (optim.Adam, {"amsgrad": True, "foreach": True}),
    (optim.Adam, {"fused": True, "maximize": True}),
    (optim.Adam, {"lr": torch.tensor(0.05), "weight_decay": 0.1}),
    (optim.AdamW, {}),
    (optim.AdamW, {"amsgrad": True, "fused": True}),
    (optim.NAdam, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    (optim.NAdam, {"foreach": True}),
    (optim.RAdam, {"betas": (0.9, 0.8)}),
    (optim.RAdam, {"decoupled_weight_decay": True, "weight_decay": 0.1, "foreach": True}),
    (optim.Adamax, {}),
    (optim.Adamax, {"foreach": True, "maximize": True}),
    (optim.RMSprop, {"momentum": 0.5}),
    (optim.RMSprop, {"centered": True, "foreach": True}),
    (optim.Adagrad, {"lr_decay": 0.1}),
    (optim.Adagrad, {"fused": True}),
    (optim.Adadelta, {}),
    (optim.ASGD, {}),
    (Signs, {}),
]
named = pytest.mark.parametrize(
    ("cls", "options"),
    [pytest.param(cls, o, id=f"{cls.__name__}-{'-'.join(f'{k}={v}' for k, v in o.items())}") for cls, o in OPTIMIZERS],
)


@named
@pytest.mark.filterwarnings("ignore:how .* scales gradients")
def test_a_step_is_the_optimizers_own_and_then_the_pull(cls, options):
    """Against a twin pulled by hand, each by the s of the docstrings; with the compiled pass and without."""
    ends = []
    for compact, compiled in ((False, True), (False, False), (True, True), (True, False)):
        model, twin = Net(), Net()
        optimizer, plain = (cls(net.parameters(), **{"lr": 0.05, **options}) for net in (model, twin))
        anchor = Anchor(model, measured(model), strength=2.0, l2sp=0.3, compact=compact).attach(optimizer, how="pull")
        start = weights(model)
        with pytest.MonkeyPatch.context() as patch:
            if not compiled:
                patch.setattr(native, "_pull", None)
            for step in range(7):  # RAdam's rectification sets in at its sixth
                model.learn(optimizer, 1, step)
                twin.learn(plain, 1, step)
                for name, parameter in twin.named_parameters():
                    omega = anchor.importance[name].double()
                    s = (4 * omega + 0.3) * answer(plain, parameter)
                    pulled = (parameter.detach().double() + s * start[name].double()) / (1 + s)
                    parameter.data.copy_(pulled)
        assert_same(model, twin, rtol=2e-4, atol=2e-5)
        ends.append(model)
    assert_same(ends[0], ends[1], rtol=1e-5, atol=2e-6)
    assert_same(ends[2], ends[3], rtol=1e-5, atol=2e-6)


def answer(optimizer: optim.Optimizer, parameter: nn.Parameter) -> float | Tensor:
    """r / D from the formulas in the papers, in float64."""
    group, state = optimizer.param_groups[0], optimizer.state[parameter]
    lr = float(group["lr"])
    state = {key: value.double() for key, value in state.items() if isinstance(value, Tensor)}
    step = float(state.get("step", 0))
    if isinstance(optimizer, optim.SGD):
        mu = group["momentum"]
        return lr * (1 - group["dampening"] if mu else 1) / (1 - mu)
    if isinstance(optimizer, optim.NAdam):
        mu, after = (0.9 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1))
        product = float(state["mu_product"])
        taken = (1 - mu) / (1 - product) + after * (1 - 0.9**step) / (1 - product * after)
        return lr * taken / ((state["exp_avg_sq"] / (1 - 0.999**step)).sqrt() + group["eps"])
    if isinstance(optimizer, optim.RAdam):
        beta2 = group["betas"][1]
        most = 2 / (1 - beta2) - 1
        rho = most - 2 * step * beta2**step / (1 - beta2**step)
        if rho <= 5:
            return lr
        rectified = ((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho)) ** 0.5
        return lr * rectified * (1 - beta2**step) ** 0.5 / (state["exp_avg_sq"].sqrt() + group["eps"])
    if isinstance(optimizer, optim.Adam):
        second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
        return lr / ((second / (1 - 0.999**step)).sqrt() + group["eps"])
    if isinstance(optimizer, optim.Adamax):
        return lr / state["exp_inf"]
    if isinstance(optimizer, optim.RMSprop):
        second = state["square_avg"] - (state["grad_avg"] ** 2 if group["centered"] else 0)
        return lr / (1 - group["momentum"]) / (second.clamp_min(0).sqrt() + group["eps"])
    if isinstance(optimizer, optim.Adagrad):
        return lr / (1 + (step - 1) * group["lr_decay"]) / (state["sum"].sqrt() + group["eps"])
    if isinstance(optimizer, optim.Adadelta):
        return lr * ((state["acc_delta"] + group["eps"]) / (state["square_avg"] + group["eps"])).sqrt()
    if isinstance(optimizer, optim.ASGD):
        return lr / (1 + group["lambd"] * lr * (step - 1)) ** group["alpha"]
    return lr


def test_a_double_precision_model_is_pulled_in_double_precision():
    model, twin = Net().double(), Net().double()
    optimizer, plain = (optim.SGD(net.parameters(), lr=0.1) for net in (model, twin))
    Anchor(model, measured(model), strength=2.0).attach(optimizer, how="pull")
    start = weights(twin)
    model.learn(optimizer, 1)
    twin.learn(plain, 1)
    for name, parameter in twin.named_parameters():
        s = 0.4 * measured(twin).sums[name].double()
        parameter.data.copy_((parameter.data + s * start[name]) / (1 + s))
    assert_same(model, twin, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_are_pulled_in_float32(dtype):
    model = Net().to(dtype)
    start = weights(model)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    Anchor(model, measured(model), strength=1.5).attach(optimizer, how="pull")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    moved = weights(model)
    optimizer.step()
    for name, parameter in model.named_parameters():
        s = 0.3 * measured(model).sums[name]
        expected = (moved[name].float() + s * start[name].float()) / (1 + s)
        assert torch.equal(parameter.detach(), expected.to(dtype)) or torch.allclose(
            parameter.detach().float(), expected, rtol=torch.finfo(dtype).eps, atol=0
        )
        assert not torch.equal(parameter.detach(), moved[name])


def test_an_unknown_optimizer_is_named_with_its_form_and_what_that_means():
    model = Net()
    for optimizer in (Signs(model.parameters()),):
        name = type(optimizer).__name__
        with pytest.warns(UserWarning, match="not known here") as caught:
            anchor = Anchor(model, measured(model), 1.0).attach(optimizer, how="pull")
        assert said(caught) == [
            f"how {name} scales gradients is not known here, so the pull is s = 2·lr·strength·Ω: its balance with the "
            "gradients is not the optimum of the penalized loss, and where lr is not what scales the steps it is far "
            "too strong or too weak; attach(optimizer, how='gradient') seeks that optimum, and may diverge."
        ]
        anchor.detach()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e8])
def test_an_unknown_optimizer_ends_where_its_form_says(strength):
    """`u / η = (2 λ Ω)(θ − θ*)` for its own step −u: here the sign of the gradient."""
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = Signs(model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Anchor(model, Importance({"w": torch.tensor([1.0, 2.0, 0.5])}, 1.0), strength).attach(optimizer, how="pull")
    for _ in range(200):
        model.w.grad = torch.tensor([3.0, -0.1, 1e-9], dtype=torch.float64)
        optimizer.step()
    found = 2 * strength * torch.tensor([1.0, 2.0, 0.5]).double() * model.w.detach()
    if strength >= 1:
        torch.testing.assert_close(found, torch.tensor([-1.0, 1.0, -1.0]).double(), rtol=2e-1, atol=0)
    assert torch.isfinite(model.w).all()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda p: optim.LBFGS(p),
            "LBFGS compares losses inside its step, so the penalty must be in them: "
            "add anchor.penalty() to the loss in its closure instead.",
        ),
        (
            lambda p: optim.SGD(p, lr=0.1, momentum=1.0),
            "a momentum of 1.0 never forgets a gradient, so no pull can balance it; use one below 1.",
        ),
        (
            lambda p: optim.SGD(p, lr=0.1, differentiable=True),
            "the pull cannot be differentiated through, as differentiable=True asks; "
            "add anchor.penalty() to the loss instead.",
        ),
        (
            lambda p: without_rate(Signs(p)),
            "Signs keeps no learning rate in its groups to measure a pull by; "
            "attach(optimizer, how='gradient') needs none.",
        ),
    ],
    ids=["LBFGS", "momentum", "differentiable", "rate"],
)
def test_what_cannot_be_followed_is_refused_and_nothing_is_attached(make, sentence):
    model = Net()
    optimizer = make(model.parameters())
    anchor = Anchor(model, measured(model), 1.0)
    with refused(sentence):
        anchor.attach(optimizer, how="pull")
    assert not optimizer._optimizer_step_post_hooks
    assert anchor.penalty().item() == 0  # so it is not attached


def without_rate(optimizer: optim.Optimizer) -> optim.Optimizer:
    optimizer.param_groups[0]["lr"] = None
    return optimizer


@pytest.mark.usefixtures("unchecked")
def test_lbfgs_with_the_penalty_in_its_closure_finds_the_optimum():
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    omega, center = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([1.0, -2.0, 3.0]).double()
    anchor = Anchor(model, Importance({"w": omega}, 1.0), strength=4.0)
    optimizer = optim.LBFGS(
        model.parameters(), line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-14
    )

    def closure():
        optimizer.zero_grad()
        loss = (model.w - center).square().sum() / 2 + anchor.penalty()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    torch.testing.assert_close(model.w.detach(), center / (1 + 8 * omega), rtol=1e-7, atol=0)


# --------------------------------------------------------------------------------------------- finite everywhere

STEPS = int(os.environ.get("GRID_STEPS", "5"))  # GRID_STEPS=100 takes minutes, and every strength
RATES = [10.0**e for e in range(-4, 1)]
STRENGTHS = [10.0**e for e in (range(-3, 9) if "GRID_STEPS" in os.environ else (-3, -1, 1, 3, 5, 8))]


class Mlp(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))

    def batch(self, generator: torch.Generator) -> Tensor:
        return torch.randn(8, 6, generator=generator)


class Convnet(nn.Sequential):
    """Batch norm's statistics are held."""

    def __init__(self) -> None:
        convolutions = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        super().__init__(*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 4))
        self.eval()

    def batch(self, generator: torch.Generator) -> Tensor:
        return torch.randn(8, 1, 6, 6, generator=generator)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 4)

    def batch(self, generator: torch.Generator) -> Tensor:
        return torch.randint(0, 11, (8, 5), generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.table(tokens)).mean(1))


WAYS = {
    "sgd": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "sgd accumulated on a schedule": (optim.SGD, {"momentum": 0.9, "weight_decay": 1e-4}),
    "sgd scaled in bfloat16": (optim.SGD, {"momentum": 0.9}),
    "adamw": (optim.AdamW, {}),
    "adam scaled and fused in bfloat16": (optim.Adam, {"fused": True}),
}


def train(net: type[nn.Module], way: str, lr: float, strength: float | None) -> nn.Module:
    """`STEPS` steps on random labels; without an anchor if the strength is None."""
    torch.manual_seed(0)
    model = net()
    cls, options = WAYS[way]
    optimizer = cls(model.parameters(), lr=lr, **options)
    if strength is not None:
        Anchor(model, measured(model), strength).attach(optimizer, how="pull")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, enabled="scaled" in way)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=STEPS + 1) if "schedule" in way else None
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for _ in range(2 if "accumulated" in way else 1):
            with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in way):
                outputs = model(model.batch(generator))
            labels = torch.randint(0, 4, (8,), generator=generator)
            scaler.scale(nn.functional.cross_entropy(outputs.float(), labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        if schedule is not None:
            schedule.step()
    return model


def finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:the pull stops")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("net", [Mlp, Convnet, Transformer])
def test_it_is_finite_wherever_plain_training_is(net, way):
    rates = [lr for lr in RATES if finite(train(net, way, lr, None))]
    assert len(rates) >= 4
    broken = [(lr, strength) for lr in rates for strength in STRENGTHS if not finite(train(net, way, lr, strength))]
    assert broken == []


@pytest.mark.usefixtures("unchecked")
def test_the_gradient_form_is_not_finite_there():
    """The fault that the grid is there to catch."""
    model = Mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with pytest.warns(UserWarning, match="will diverge"):
        Anchor(model, measured(model), 1e4).attach(optimizer, how="gradient")
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.ones(2, 6)).sum().backward()
        optimizer.step()
    assert not finite(model)


# ------------------------------------------------------------------------------------------ the three forms agree


INPUTS = torch.randn(64, 5, generator=torch.Generator().manual_seed(9)).double()
TARGETS = torch.sin(INPUTS @ torch.ones(5, 3).double())


def learned(how: str, model: nn.Module, optimizer: optim.Optimizer, steps: int, seed: int | None = None) -> Tensor:
    """All weights after training on all samples, or on batches drawn with a seed."""
    anchor = Anchor(model, measured(model), strength=0.1)
    if how != "loss":
        anchor.attach(optimizer, how=how)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = slice(None) if generator is None else torch.randint(0, 64, (16,), generator=generator)
        optimizer.zero_grad()
        loss = (model(INPUTS[rows]) - TARGETS[rows]).square().sum(1).mean()
        (loss + anchor.penalty() if how == "loss" else loss).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}], ids=str)
def test_with_sgd_all_forms_end_at_the_same_weights(options):
    ends = {}
    for how in ("pull", "gradient", "loss"):
        torch.manual_seed(0)
        model = nn.Linear(5, 3).double()
        start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        ends[how] = learned(how, model, optim.SGD(model.parameters(), lr=0.05, **options), 400)
    assert (ends["loss"] - start).norm() > 0.5
    assert (ends["gradient"] - ends["loss"]).abs().max() < 1e-12
    assert (ends["pull"] - ends["loss"]).abs().max() < 1e-7


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "lr"), [(optim.SGD, 0.02), (optim.Adam, 0.01)])
def test_with_batches_they_agree_within_the_spread_of_seeds(cls, lr):
    runs = {}
    for how in ("pull", "gradient", "loss"):
        nets = [Net().double() for _ in range(3)]
        runs[how] = [learned(how, net, cls(net.parameters(), lr=lr), 100, seed) for seed, net in enumerate(nets)]
    middle = {how: torch.stack(ends).mean(0) for how, ends in runs.items()}
    spread = max(float((a - b).norm()) for a in runs["loss"] for b in runs["loss"])
    for how in ("pull", "gradient"):
        assert (middle[how] - middle["loss"]).norm() < spread


# ------------------------------------------------------------------------------------------ an optimizer's life


def test_a_wrapper_without_hooks_stands_for_the_optimizer_inside():
    class Wrapper(optim.Optimizer):  # as Accelerate's
        def __init__(self, optimizer: optim.Optimizer) -> None:
            self.optimizer = optimizer

        @property
        def param_groups(self):
            return self.optimizer.param_groups

        def zero_grad(self):
            self.optimizer.zero_grad()

        def step(self):
            self.optimizer.step()

    model, twin = Net(), Net()
    optimizers = [optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in (model, twin)]
    wrapper = Wrapper(optimizers[0])
    Anchor(model, measured(model), strength=2.0).attach(wrapper)
    Anchor(twin, measured(twin), strength=2.0).attach(optimizers[1])
    model.learn(wrapper)
    twin.learn(optimizers[1])
    assert_same(model, twin, rtol=0, atol=0)


def test_each_group_is_pulled_at_its_own_rate():
    model, twin = Net(), Net()
    optimizer = optim.SGD(
        [{"params": model.first.parameters(), "lr": 0.01}, {"params": model.last.parameters(), "momentum": 0.5}],
        lr=0.1,
    )
    Anchor(model, measured(model), strength=2.0).attach(optimizer, how="pull")
    first = optim.SGD(twin.first.parameters(), lr=0.01)
    last = optim.SGD(twin.last.parameters(), lr=0.1, momentum=0.5)
    Anchor(twin, measured(twin), strength=2.0).attach(first).attach(last)
    for step in range(5):
        model.learn(optimizer, 1, step)
        for each in (first, last):
            each.zero_grad()
        twin.learn(last, 1, step)
        first.step()
    assert_same(model, twin)


def test_a_head_added_later_is_free_and_an_anchored_parameter_added_later_is_held():
    model = Net()
    optimizer = optim.SGD(model.first.parameters(), lr=0.1)
    start = weights(model)
    Anchor(model, measured(model), strength=1e8).attach(optimizer, how="pull")
    model.head = nn.Linear(8, 2)
    begun = weights(model.head)
    optimizer.add_param_group({"params": model.head.parameters()})
    optimizer.add_param_group({"params": model.last.parameters()})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, was in begun.items():
        torch.testing.assert_close(model.head.get_parameter(name).detach(), was - 0.1)
    for name, was in start.items():
        torch.testing.assert_close(model.get_parameter(name).detach(), was, rtol=0, atol=1e-6)


def test_a_parameter_taken_out_of_the_optimizer_is_left_alone():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, measured(model), strength=3.0).attach(optimizer, how="pull")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    optimizer.param_groups[0]["params"] = list(model.first.parameters())
    moved = weights(model)
    optimizer.step()
    assert torch.equal(model.last.weight.detach(), moved["last.weight"])
    assert not torch.equal(model.first.weight.detach(), moved["first.weight"])
    assert set(anchor.frozen_fraction().per_layer) == {"first"}


def test_frozen_parameters_are_left_alone():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    Anchor(model, measured(model), strength=3.0).attach(optimizer, how="pull")
    model.first.requires_grad_(False)
    with torch.no_grad():
        model.first.weight += 1
    moved = weights(model)
    model.learn(optimizer)
    assert torch.equal(model.first.weight.detach(), moved["first.weight"])


@pytest.mark.parametrize("how", ["pull", "gradient"])
@pytest.mark.parametrize(
    ("cls", "options"),
    [(optim.SGD, {"momentum": 0.9}), (optim.AdamW, {}), (optim.NAdam, {}), (optim.RMSprop, {"momentum": 0.5})],
)
def test_a_state_loaded_in_the_middle_goes_on_to_the_same_bits(cls, options, how):
    def begun() -> tuple[Net, optim.Optimizer]:
        model = Net()
        optimizer = cls(model.parameters(), lr=0.01, **options)
        Anchor(model, measured(model), strength=2.0).attach(optimizer, how=how)
        return model, optimizer

    through, optimizer = begun()
    through.learn(optimizer, 8)
    model, optimizer = begun()
    model.learn(optimizer, 4)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    model.learn(optimizer, 3, start=40)  # astray, and back
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    model.learn(optimizer, 4, start=4)
    assert_same(model, through, rtol=0, atol=0)


@pytest.mark.parametrize("how", ["pull", "gradient"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: optim.Adagrad(p, lr=0.1),
        pytest.param(lambda p: optim.SparseAdam(p, lr=0.1)),
    ],
)
def test_sparse_gradients(make, how):
    """Rows without a gradient are pulled as well, as the penalty in the loss would."""
    torch.manual_seed(0)
    table = nn.Embedding(6, 2, sparse=True)
    start = table.weight.detach().clone()
    optimizer = make(list(table.parameters()))
    if how == "gradient" and isinstance(optimizer, optim.SparseAdam):
        return  # which takes no dense gradients; see the next test
    anchor = Anchor(table, Importance({"weight": torch.ones(6, 2)}, 1.0), strength=0.3).attach(optimizer, how=how)
    for _ in range(3):
        optimizer.zero_grad()
        table(torch.tensor([1, 1, 4])).sum().backward()
        optimizer.step()
    with torch.no_grad():
        table.weight[0] += 1
    table.weight.grad = None
    table(torch.tensor([1])).sum().backward()
    before = float(anchor.drift())
    optimizer.step()
    assert table.weight[0, 0] < start[0, 0] + 1
    assert torch.equal(table.weight[5].detach(), start[5])
    assert float(anchor.drift()) != before


def test_sparse_adam_takes_no_gradient_form():
    table = nn.Embedding(6, 2, sparse=True)
    optimizer = optim.SparseAdam(list(table.parameters()))
    with refused(
        "SparseAdam takes sparse gradients only and the penalty's is dense: attach(optimizer, how='pull') instead."
    ):
        Anchor(table, Importance({"weight": torch.ones(6, 2)}, 1.0), 1.0).attach(optimizer, how="gradient")
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("l2sp", [0.0, 0.2])
def test_several_tasks_in_one_anchor_end_where_all_their_penalties_together_do(l2sp):
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    anchors, places, omegas, strengths = [], [], [], [0.5, 3.0, 40.0]
    for strength in strengths:
        place, omega = (torch.rand(4, generator=generator, dtype=torch.float64) for _ in range(2))
        with torch.no_grad():
            model.w.copy_(place)
        anchors.append(Anchor(model, Importance({"w": omega}, 1.0), strength, l2sp=l2sp))
        places.append(place)
        omegas.append(omega)
    merged = anchors[0].merge(*anchors[1:])
    center = torch.tensor([1.0, -2.0, 3.0, 0.0]).double()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    merged.attach(optimizer, how="pull")
    for _ in range(1000):
        model.w.grad = model.w.detach() - center
        optimizer.step()
    firm = [2 * strength * omega + l2sp for strength, omega in zip(strengths, omegas, strict=True)]
    optimum = (center + sum(f * p for f, p in zip(firm, places, strict=True))) / (1 + sum(firm))
    torch.testing.assert_close(model.w.detach(), optimum, rtol=1e-10, atol=0)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_moves_nothing(fused):
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=0.01, fused=fused)
    Anchor(model, measured(model), strength=5.0).attach(optimizer, how="pull")
    model.learn(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    before = weights(model)
    optimizer.zero_grad()
    scaler.scale(model(torch.ones(2, 5)).sum() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    for name, was in before.items():
        assert torch.equal(model.get_parameter(name).detach(), was)
    optimizer.zero_grad()
    scaler.scale(model(torch.ones(2, 5)).sum()).backward()
    scaler.step(optimizer)
    assert not torch.equal(model.first.weight.detach(), before["first.weight"])


def test_a_skip_that_only_a_device_knows_of_moves_nothing_either():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, measured(model), strength=5.0).attach(optimizer, how="pull")
    with torch.no_grad():
        model.first.weight += 1
    moved = weights(model)
    (pull,) = anchor._attached
    for *_, move in pull.moves(5.0):
        move.apply(torch.ones(1))
    assert_same(model, model)
    assert torch.equal(model.first.weight.detach(), moved["first.weight"])


def test_accumulation_and_scaling_make_no_difference():
    ends = []
    for parts, scale in ((1, 1.0), (3, 1.0), (1, 2.0**12)):
        model = Net()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        Anchor(model, measured(model), strength=2.0).attach(optimizer, how="pull")
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
        for step in range(4):
            optimizer.zero_grad()
            inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
            for part in inputs.chunk(parts):
                scaler.scale((model(part) - 1).square().mean() / parts).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append(model)
    assert_same(ends[0], ends[1], rtol=1e-5, atol=1e-6)
    assert_same(ends[0], ends[2], rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------------------------------- learned nothing


def test_the_share_stopped_is_logged_early_and_at_every_power_of_ten(caplog):
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    Anchor(model, measured(model), 1.0).attach(optimizer, how="pull")
    with caplog.at_level(logging.INFO, "forgetless"):
        model.learn(optimizer, 25)
    assert [record.getMessage() for record in caplog.records] == [
        "after 1 steps the pull stops 0 % of the anchored weights",
        "after 10 steps the pull stops 0 % of the anchored weights",
    ]


def test_a_network_that_can_learn_nothing_is_warned_of_once_also_after_a_warm_up():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=1e-6)
    anchor = Anchor(model, measured(model), strength=200.0).attach(optimizer, how="pull")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(optimizer, 9)
        optimizer.param_groups[0]["lr"] = 0.1
    with pytest.warns(UserWarning, match="hardly learn") as caught:
        model.learn(optimizer, 95)
    share = round(100 * anchor.frozen_fraction())
    assert share > 90
    assert said(caught) == [
        f"the pull stops {share} % of the anchored weights (s > 1): at strength 200 they can hardly learn anything; "
        "anchor.frozen_fraction() shows the layers."
    ]


# -------------------------------------------------------------------------------------------------------- memory


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p)])
@pytest.mark.parametrize("how", ["pull", "gradient"])
def test_temporaries_are_no_larger_than_the_largest_layer(make, how, monkeypatch):
    monkeypatch.setattr(native, "_pull", None)
    monkeypatch.setattr(anchored_parameter, "_PIECE", 4096)
    model = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 200), nn.Linear(200, 10))
    optimizer = make(model.parameters())
    anchor = Anchor(model, measured(model), 1.0).attach(optimizer, how=how)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    (attachment,) = anchor._attached
    with Peak() as peak:
        attachment._add() if how == "gradient" else attachment(optimizer, (), {})
    largest = 4 * max(parameter.numel() for parameter in model.parameters())
    assert 0 < peak.most < largest
    assert peak.most <= 4 * 4 * 4096 + 4096  # whatever the layers: a few pieces


# --------------------------------------------------------------------------------------------- decay towards θ*


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("form", ["pull", "gradient", "loss"])
@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_decay_is_weight_decay_towards_the_anchor(form, strength):
    """The optimum of `½ (θ−c)² + λ Ω (θ−θ*)² + w/2 (θ−θ*)²`; what does not matter is held as well."""
    model = nn.Module()
    start, center = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.0, -1.0, 5.0]).double()
    model.w = nn.Parameter(start.clone())
    model.free = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    omega = torch.tensor([0.0, 1.0, 0.2]).double()
    anchor = Anchor(model, Importance({"w": omega}, 1.0), strength, l2sp=0.5)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    if form != "loss":
        anchor.attach(optimizer, how=form)
    for _ in range(400):
        optimizer.zero_grad()
        loss = (model.w - center).square().sum() / 2 + (model.free - 7).square().sum() / 2
        (loss + anchor.penalty() if form == "loss" else loss).backward()
        optimizer.step()
    firm = 2 * strength * omega + 0.5
    torch.testing.assert_close(model.w.detach(), (center + firm * start) / (1 + firm), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model.free.detach(), torch.full((2,), 7.0).double())


def test_decay_can_be_changed_while_attached_and_counts_in_held():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, measured(model), strength=0.0).attach(optimizer, how="pull")
    assert anchor.frozen_fraction() == 0
    anchor.l2sp = 1000.0
    assert anchor.frozen_fraction() == 1
    start = weights(model)
    with pytest.warns(UserWarning, match="the pull stops 100 %"):
        model.learn(optimizer, 1)
    for name, was in start.items():
        torch.testing.assert_close(model.get_parameter(name).detach(), was, rtol=0, atol=1e-2)

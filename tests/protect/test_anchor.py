"""The anchor's quantities, its two forms, its life over a sequence of tasks, and what bad input gets."""

from __future__ import annotations

import gc
import math
import os
import re
import warnings
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.model.parameters import fingerprints, trainable
from forgetless.protect.anchor import Anchor
from forgetless.protect.optimizers.pull import Pull
from forgetless.protect.status import Status
from forgetless.protect.strength.hold_share import HoldShare
from optimizers import Rotating
from warned import said


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(3, 4)
        self.last = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, inputs):
        return self.last(torch.relu(self.first(inputs))) * self.scale


def measured(model: nn.Module, seed: int = 0, exclude: str | tuple[str, ...] = ()) -> Importance:
    """An importance as a measurement would return it, with arbitrary values."""
    generator = torch.Generator().manual_seed(seed)
    named = trainable(model, exclude)
    sums = {name: 8 * torch.rand(p.shape, generator=generator) for name, p in named.items()}
    return Importance(sums, 8.0, weights=fingerprints(named))


def moved(model: nn.Module, seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return model


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int = 3, seed: int = 2, term=None) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(torch.randn(5, 3, generator=generator)) - 1).square().mean()
        (loss if term is None else loss + term()).backward()
        optimizer.step()


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture
def unchecked():
    """Without the tests' own checks of annotations, which would refuse wrong types before the package does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$")


# ------------------------------------------------------------------------------------------------ quantities


def test_penalty_is_eq_3_and_differentiable():
    model = Net()
    importance = measured(model)
    anchor = Anchor(model, importance, strength=0.7)
    before = values(model)
    assert anchor.penalty().item() == 0
    moved(model)
    penalty = anchor.penalty()
    expected = sum(
        0.7 * (omega * (p.detach() - before[name]) ** 2).sum()
        for (name, p), omega in zip(model.named_parameters(), importance.mean().values(), strict=True)
    )
    assert penalty.shape == ()
    torch.testing.assert_close(penalty.detach(), expected)
    penalty.backward()
    for name, parameter in model.named_parameters():
        gradient = 2 * 0.7 * importance.mean()[name] * (parameter.detach() - before[name])
        torch.testing.assert_close(parameter.grad, gradient)


def test_with_nothing_to_protect_the_penalty_is_zero_and_the_pull_moves_nothing():
    model, twin = Net(), Net()
    penalty = Anchor(model, None, 1.0).penalty()
    assert penalty.item() == 0
    assert penalty.shape == ()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, None, strength=5.0).attach(optimizer)
    train(model, optimizer)
    train(twin, optim.SGD(twin.parameters(), lr=0.1))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert anchor.drift() == 0
    assert anchor.frozen_fraction() == 0


def test_a_penalty_in_double_precision_stays_there():
    model = Net().double()
    anchor = Anchor(model, measured(model), 1.0)
    moved(model)
    assert anchor.penalty().dtype == torch.float64
    assert anchor.weights["first.weight"].dtype == torch.float64


def test_bfloat16_weights_are_held_in_float32():
    model = Net().bfloat16()
    anchor = Anchor(model, measured(model), strength=3.0)
    assert {tensor.dtype for tensor in anchor.weights.values()} == {torch.float32}
    moved(model)
    penalty = anchor.penalty()
    assert penalty.dtype == torch.float32
    penalty.backward()
    assert model.first.weight.grad.dtype == torch.bfloat16


def test_drift_has_no_strength_in_it_and_adds_up_over_layers():
    model = Net()
    anchor = Anchor(model, measured(model), strength=3.0)
    assert anchor.drift() == 0
    moved(model)
    drift = anchor.drift()
    assert isinstance(drift, float)
    assert set(drift.per_layer) == {"first", "last", "scale"}
    assert sum(drift.per_layer.values()) == pytest.approx(drift)
    assert 3 * drift == pytest.approx(anchor.penalty().item(), rel=1e-6)


def test_held_is_the_share_of_weights_with_s_above_one():
    model = Net()
    importance = measured(model, exclude="last")
    anchor = Anchor(model, importance, strength=1.0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    held = anchor.attach(optimizer).frozen_fraction()
    stopped = {name: (2 * 0.1 * omega / (1 - 0.9) > 1) for name, omega in importance.mean().items()}
    assert float(held) == pytest.approx(sum(int(s.sum()) for s in stopped.values()) / 17)
    first = (stopped["first.weight"].sum() + stopped["first.bias"].sum()) / 16
    assert held.per_layer["first"] == pytest.approx(first.item())
    assert set(held.per_layer) == {"first", "scale"}
    over = {name: 10 * (2 * 0.1 * omega / (1 - 0.9)) > 1 for name, omega in importance.mean().items()}
    assert (
        float(held) < float(anchor.frozen_fraction(10)) == pytest.approx(sum(int(s.sum()) for s in over.values()) / 17)
    )
    anchor.strength = 0.0
    assert anchor.frozen_fraction() == 0
    anchor.strength = 1e8
    assert anchor.frozen_fraction() == 1


def test_held_counts_what_adam_has_not_stepped_as_free():
    model = Net()
    optimizer = optim.Adam(model.parameters())
    anchor = Anchor(model, measured(model), strength=1e8).attach(optimizer)
    assert anchor.frozen_fraction() == 0
    train(model, optimizer, steps=1)
    assert anchor.frozen_fraction() == 1


# ----------------------------------------------------------------------------------------------- over tasks


def test_consolidate_adds_means_and_moves_the_anchor():
    model = Net()
    first = measured(model, seed=0)
    anchor = Anchor(model, first, 1.0)
    moved(model)
    sums = {name: 4 * torch.ones_like(p) for name, p in trainable(model, "last").items()}
    anchor.consolidate(Importance(sums, 2.0))
    torch.testing.assert_close(anchor.importance["first.weight"], first.mean()["first.weight"] + 2)
    torch.testing.assert_close(anchor.importance["last.weight"], first.mean()["last.weight"])
    assert all(torch.equal(anchor.weights[name], p) for name, p in model.named_parameters())
    assert anchor.drift() == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.booleans())
def test_earlier_tasks_fade_by_gamma(gammas, compact):
    model = Net()
    tasks = [measured(model, seed=seed) for seed in range(len(gammas) + 1)]
    anchor = Anchor(model, tasks[0], 1.0, compact=compact)
    expected = {name: mean.double() for name, mean in tasks[0].mean().items()}
    for task, gamma in zip(tasks[1:], gammas, strict=True):
        anchor.consolidate(task, gamma)
        expected = {name: gamma * expected[name] + mean.double() for name, mean in task.mean().items()}
    for name, importance in anchor.importance.items():
        torch.testing.assert_close(importance.double(), expected[name], rtol=0.02 if compact else 1e-5, atol=1e-7)


@pytest.mark.parametrize("gamma", [-0.1, 1.5, float("nan")])
def test_a_gamma_out_of_range_is_refused_and_changes_nothing(gamma):
    model = Net()
    anchor = Anchor(model, measured(model), 1.0)
    before = {name: importance.clone() for name, importance in anchor.importance.items()}
    moved(model)
    with pytest.raises(ForgetlessError, match=f"^{re.escape(f'gamma must be between 0 and 1, not {gamma!r}.')}$"):
        anchor.consolidate(measured(model), gamma)
    assert all(torch.equal(anchor.importance[name], each) for name, each in before.items())
    assert anchor.drift() > 0


def test_an_attached_anchor_pulls_to_the_new_place_after_consolidate():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, None, strength=1e8).attach(optimizer)
    moved(model)
    place = values(model)
    anchor.consolidate(measured(model))
    train(model, optimizer)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), place[name], rtol=0, atol=1e-5)


def test_a_sequence_of_tasks_with_a_new_head_and_a_new_optimizer_each():
    model = Net()
    model.heads = nn.ModuleDict()
    anchor = Anchor(model, None, strength=1.0)
    for task in ("a", "b", "c"):
        model.heads[task] = nn.Linear(4, 2)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        anchor.attach(optimizer)
        train(model, optimizer)
        anchor.consolidate(measured(model, exclude="heads"))
    assert not any(name.startswith("heads") for name in anchor.importance)
    anchor.detach()
    assert not optimizer._optimizer_step_post_hooks


def test_one_optimizer_for_all_tasks_may_be_attached_to_for_each():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, None, 1.0)
    for _ in range(3):
        anchor.attach(optimizer)
        anchor.consolidate(measured(model))
    assert sum(isinstance(hook, Pull) for hook in optimizer._optimizer_step_post_hooks.values()) == 1


def test_grown_rows_and_columns_are_free():
    model = Net()
    anchor = Anchor(model, measured(model), strength=1e8)
    old = values(model)
    wide = nn.Linear(5, 3)
    with torch.no_grad():
        wide.weight[:2, :4] = model.last.weight
        wide.bias[:2] = model.last.bias
    start, model.last = wide.weight.detach().clone(), wide
    optimizer = optim.SGD(model.last.parameters(), lr=0.1)
    anchor.attach(optimizer)
    wide.weight.grad, wide.bias.grad = torch.ones_like(wide.weight), torch.ones_like(wide.bias)
    optimizer.step()
    torch.testing.assert_close(wide.weight[:2, :4].detach(), old["last.weight"], atol=1e-6, rtol=0)
    free = torch.ones(3, 5, dtype=torch.bool)
    free[:2, :4] = False
    torch.testing.assert_close(wide.weight[free].detach(), start[free] - 0.1)
    assert anchor.drift() == pytest.approx(0, abs=1e-9)

    before = dict(anchor.importance)
    anchor.consolidate(Importance({"last.weight": torch.ones(3, 5)}, 1.0))
    expected = torch.ones(3, 5)
    expected[:2, :4] += before["last.weight"]
    torch.testing.assert_close(anchor.importance["last.weight"], expected)
    torch.testing.assert_close(anchor.weights["last.weight"], wide.weight.detach())


def test_removed_parameters_are_skipped():
    model = Net()
    anchor = Anchor(model, measured(model), strength=2.0)
    model.last = nn.Identity()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor.attach(optimizer)
    train(model, optimizer)
    anchor.consolidate(measured(model))
    anchor.detach()
    assert anchor.penalty().item() == 0
    assert "last.weight" in anchor.importance  # in case it comes back


def test_a_layer_of_another_kind_under_the_same_name_is_refused():
    model = Net()
    anchor = Anchor(model, measured(model), 1.0)
    model.last = nn.Conv2d(4, 2, 1)
    with refused("'last.weight' has shape (2, 4, 1, 1) and was anchored with (2, 4): it is not the same parameter."):
        anchor.drift()


def test_names_are_those_of_the_bare_model():
    model = Net()
    importance = measured(model)
    wrapped = nn.Module()
    wrapped.module = model
    anchor = Anchor(wrapped, importance, 1.0)
    assert set(anchor.weights) == set(importance.sums)


def test_frozen_parameters_may_be_measured_and_anchored():
    model = Net()
    importance = measured(model)
    model.first.requires_grad_(False)
    anchor = Anchor(model, importance, 1.0)
    assert "first.weight" in anchor.weights


# ------------------------------------------------------------------------------------------ the two forms


def test_the_two_lines_of_the_readme_keep_working_when_the_anchor_is_not_kept():
    model = Net()
    place = values(model)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    Anchor(model, measured(model), strength=1e8).attach(optimizer)
    gc.collect()
    train(model, optimizer, steps=5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), place[name], rtol=0, atol=1e-5)


def test_attach_returns_the_anchor_and_detach_leaves_no_hook():
    model, twin = Net(), Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, measured(model), 1.0)
    assert anchor.attach(optimizer) is anchor
    anchor.detach()
    anchor.detach()
    assert not optimizer._optimizer_step_post_hooks
    train(model, optimizer)
    train(twin, optim.SGD(twin.parameters(), lr=0.1))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_the_two_forms_refuse_each_other_until_detached():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, measured(model), 1.0).attach(optimizer)
    with refused("penalty() would protect twice: the anchor is attached to an optimizer; call detach() first."):
        anchor.penalty()
    anchor.detach()
    anchor.penalty()
    with refused(
        "attach() would protect twice: penalty() is in the loss already; use one of the two, or call detach() first."
    ):
        anchor.attach(optimizer)
    assert not optimizer._optimizer_step_post_hooks
    anchor.detach()
    anchor.attach(optimizer)


def test_attaching_twice_is_refused():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor = Anchor(model, measured(model), 1.0).attach(optimizer)
    for again in (optimizer, optim.SGD(model.last.parameters(), lr=0.1)):
        with refused(
            "the anchor is attached already to an optimizer (SGD) with these parameters; call detach() first."
        ):
            anchor.attach(again)
    assert sum(isinstance(hook, Pull) for hook in optimizer._optimizer_step_post_hooks.values()) == 1
    assert not again._optimizer_step_post_hooks


def test_optimizers_that_share_nothing_may_both_be_attached():
    model = Net()
    place = values(model)
    one = optim.SGD(model.first.parameters(), lr=0.1)
    two = optim.SGD([*model.last.parameters(), model.scale], lr=0.1)
    anchor = Anchor(model, measured(model), strength=1e8).attach(one).attach(two)
    train(model, one)
    train(model, two)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), place[name], rtol=0, atol=1e-5)
    assert set(anchor.frozen_fraction().per_layer) == {"first", "last", "scale"}


def test_an_optimizer_of_other_parameters_is_refused():
    model = Net()
    stranger = optim.SGD(Net().parameters(), lr=0.1)
    sentence = (
        "; make it from the parameters of the anchored model, or, if it trains copies of them (ZeRO, offloading, "
        "master weights), add anchor.penalty() to the loss."
    )
    with refused(
        "the optimizer holds none of the anchored parameters "
        "('scale', 'first.weight', 'first.bias', 'last.weight', 'last.bias')" + sentence
    ):
        Anchor(model, None, 1.0).attach(stranger)
    with refused(
        "the optimizer holds none of the anchored parameters ('scale', 'first.weight', 'first.bias')" + sentence
    ):
        Anchor(model, measured(model, exclude="last"), 1.0).attach(optim.SGD(model.last.parameters(), lr=0.1))
    assert not stranger._optimizer_step_post_hooks


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_optimizer_is_refused():
    with refused("attach() takes a torch.optim.Optimizer, not Net."):
        Anchor(Net(), None, 1.0).attach(Net())


def test_the_strength_can_be_moved_while_attached():
    model, twin = Net(), Net()
    optimizers = [optim.SGD(net.parameters(), lr=0.1) for net in (model, twin)]
    anchor = Anchor(model, measured(model), strength=4.0).attach(optimizers[0])
    Anchor(twin, measured(twin), strength=9.0).attach(optimizers[1])
    anchor.strength = 9.0
    for net, optimizer in zip((model, twin), optimizers, strict=True):
        train(net, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("strength", [-1, float("nan"), float("inf"), "much", None])
def test_a_strength_that_is_no_strength_is_refused(strength):
    sentence = f"the strength must be a finite number of 0 or more, not {strength!r}."
    with refused(sentence):
        Anchor(Net(), None, strength)
    anchor = Anchor(Net(), None, 2.0)
    with refused(sentence):
        anchor.strength = strength
    assert anchor.strength == 2


def test_an_importance_for_another_model_is_refused_and_nothing_changes():
    model = Net()
    anchor = Anchor(model, measured(model), 1.0)
    before = {key: tensor.clone() for key, tensor in anchor.state_dict().items()}
    other = Importance({"first.weight": torch.ones(4, 7), "middle.weight": torch.ones(2)}, 1.0)
    sentence = (
        "the importance does not fit the model: it has 'middle.weight' besides, "
        "differs in shape: first.weight (4, 7) instead of (4, 3)."
    )
    with refused(sentence):
        Anchor(model, other, 1.0)
    moved(model)
    with refused(sentence):
        anchor.consolidate(other)
    assert all(torch.equal(tensor, before[key]) for key, tensor in anchor.state_dict().items())


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_importance_is_refused():
    with refused("an importance is what forgetless.mas returns, not dict."):
        Anchor(Net(), {"first.weight": torch.ones(4, 3)}, 1.0)


def test_weights_that_are_not_finite_are_refused_by_name():
    model = Net()
    importance = measured(model)
    anchor = Anchor(model, importance, 1.0)
    with torch.no_grad():
        model.first.bias[1] = torch.nan
    with refused("'first.bias' has NaN or Inf: such weights cannot be anchored."):
        anchor.consolidate(importance)
    assert torch.isfinite(anchor.weights["first.bias"]).all()


@pytest.mark.usefixtures("unchecked")
def test_an_importance_measured_at_other_weights_warns_once():
    model = Net()
    importance = measured(model)
    with torch.no_grad():
        model.first.weight += 1
    with pytest.warns(UserWarning, match="other weights") as caught:
        Anchor(model, importance, 1.0)
    assert said(caught) == [
        "the importance was measured at other weights than the model has now: 'first.weight' differs; "
        "measure it again unless that is meant."
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Anchor(model, measured(model), 1.0)


# ---------------------------------------------------------------------------------------------------- files


@given(seed=st.integers(0, 100), strength=st.floats(0, 1e8))
@settings(max_examples=10, deadline=None)
def test_an_anchor_survives_its_file(seed, strength, tmp_path_factory):
    path = tmp_path_factory.mktemp("anchor") / "anchor.safetensors"
    model = Net()
    anchor = Anchor(model, measured(model, seed), strength)
    moved(model)
    anchor.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Anchor.load(path, model)
    assert loaded.strength == strength
    assert loaded.drift() == anchor.drift()
    assert loaded.state_dict().keys() == anchor.state_dict().keys()
    assert all(torch.equal(t, loaded.state_dict()[k]) for k, t in anchor.state_dict().items())


def test_an_anchor_with_nothing_to_protect_survives_its_file(tmp_path):
    Anchor(Net(), None, 3.0).save(tmp_path / "a")
    assert Anchor.load(tmp_path / "a", Net()).strength == 3


@pytest.mark.usefixtures("unchecked")
def test_loading_for_other_weights_warns_once(tmp_path):
    Anchor(Net(), measured(Net()), 1.0).save(tmp_path / "a")
    with pytest.warns(UserWarning, match="other weights") as caught:
        Anchor.load(tmp_path / "a", moved(Net()))
    assert len(said(caught)) == 1
    assert said(caught)[0].startswith(
        f"{tmp_path / 'a'} was saved at other weights than the model has now: 'scale', 'first.weight', "
    )


def test_loading_for_another_model_names_what_differs(tmp_path):
    Anchor(Net(), measured(Net()), 1.0).save(tmp_path / "a")
    other = Net()
    other.last, other.scale = nn.Linear(4, 5), None
    with refused(
        f"the anchor in {tmp_path / 'a'} does not fit the model: it has 'scale' besides, "
        "differs in shape: last.weight (2, 4) instead of (5, 4); last.bias (2,) instead of (5,)."
    ):
        Anchor.load(tmp_path / "a", other)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "importance.safetensors"
    measured(Net()).save(path)
    with pytest.raises(ForgetlessError, match=r"importance\.safetensors .* it holds 'importance'"):
        Anchor.load(path, Net())
    with pytest.raises(ForgetlessError, match="none does not exist"):
        Anchor.load(tmp_path / "none", Net())
    Anchor(Net(), measured(Net()), 1.0).save(tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-5])
    with pytest.raises(ForgetlessError, match="cut is damaged"):
        Anchor.load(tmp_path / "cut", Net())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("strength"), "the anchor's state lacks its 'strength'."),
        (
            lambda state: state.update(strength=torch.tensor(-1.0)),
            "the strength must be a finite number of 0 or more, not -1.0.",
        ),
        (
            lambda state: state.update(other=torch.zeros(1)),
            "unexpected key 'other' in the anchor's state.",
        ),
        (
            lambda state: state.pop("importance.scale"),
            "the importance in the anchor's state does not fit its weights: it lacks 'scale'.",
        ),
        (
            lambda state: state["weights.scale"].fill_(torch.inf),
            "the anchor's state has NaN or Inf for 'scale'.",
        ),
        (
            lambda state: state["importance.scale"].fill_(-1),
            "the anchor's state has a negative importance for 'scale'.",
        ),
        (
            lambda state: [state.update({f"{kind}.x": torch.ones(1)}) for kind in ("weights", "importance")],
            "the anchor does not fit the model, which has no 'x'.",
        ),
    ],
)
def test_a_damaged_state_is_refused_and_nothing_changes(change, sentence, tmp_path):
    anchor = Anchor(Net(), measured(Net()), 1.0)
    state = {key: tensor.clone() for key, tensor in anchor.state_dict().items()}
    before = {key: tensor.clone() for key, tensor in state.items()}
    change(state)
    with refused(sentence):
        anchor.load_state_dict(state)
    assert all(torch.equal(tensor, before[key]) for key, tensor in anchor.state_dict().items())
    path = tmp_path / "a"
    anchor.save(path)
    _, header = files.read_tensors(path, "anchor")
    files.write_tensors(path, state, "anchor", header)
    with pytest.raises(ForgetlessError):
        Anchor.load(path, Net())


def test_a_state_taken_before_the_model_grew_can_be_loaded_after():
    model = Net()
    anchor = Anchor(model, measured(model), strength=2.0)
    model.last = nn.Linear(4, 6)
    restored = Anchor(model, None, 1.0)
    restored.load_state_dict(anchor.state_dict())
    assert restored.drift() == anchor.drift() > 0


def test_an_anchor_may_stay_in_its_file(tmp_path):
    """θ* and Ω are mapped, not read into memory; steps on them leave the file as it is."""
    path = tmp_path / "anchor"
    model, twin = Net(), Net()
    Anchor(model, measured(model), strength=3.0).save(path)
    written = path.read_bytes()
    anchors = [Anchor.load(path, net, mmap=mapped) for net, mapped in ((model, True), (twin, False))]
    spans = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]
    for anchor, mapped in zip(anchors, (True, False), strict=True):
        for tensor in (*anchor.weights.values(), *anchor.importance.values()):
            assert any(low <= tensor.data_ptr() < high for low, high in spans) == mapped
    for anchor, net in zip(anchors, (model, twin), strict=True):
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        anchor.attach(optimizer)
        train(net, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert path.read_bytes() == written
    anchors[0].save(path)  # replaced, while the old one is still mapped
    anchors[0].consolidate(measured(model))
    train(model, optimizer)


def test_a_mapped_file_that_is_cut_is_refused_before_it_is_read(tmp_path):
    """Reading behind the new end would end the process; a file that takes its name is another."""
    path, model = tmp_path / "anchor", Net()
    Anchor(model, measured(model), 1.0).save(path)
    anchor, optimizer = Anchor.load(path, model, mmap=True), optim.SGD(model.parameters(), lr=0.1)
    anchor.attach(optimizer)
    anchor.save(path)
    train(model, optimizer)
    anchor = Anchor.load(path, model, mmap=True)
    held = Anchor.load(path, model, mmap=True)
    os.truncate(path, 100)
    before = values(model)
    for use in (anchor.penalty, anchor.drift, lambda: anchor.attach(optim.SGD(model.parameters(), lr=0.1))):
        with pytest.raises(
            ForgetlessError, match=r"anchor was cut from \d+ to 100 bytes while its tensors were in use"
        ):
            use()
    del held
    assert all(torch.equal(values(model)[name], value) for name, value in before.items())


def test_a_step_on_a_mapped_file_that_is_cut_moves_nothing(tmp_path):
    path, model = tmp_path / "anchor", Net()
    Anchor(model, measured(model), 1.0).save(path)
    anchor, optimizer = Anchor.load(path, model, mmap=True), optim.SGD(model.parameters(), lr=0.1)
    anchor.attach(optimizer)
    os.truncate(path, 100)
    before = values(model)
    with pytest.raises(ForgetlessError, match="was cut from"):
        train(model, optimizer)
    assert all(torch.equal(values(model)[name], value) for name, value in before.items())


def test_the_decay_survives_the_file_and_files_of_before_it_are_read(tmp_path):
    model = Net()
    Anchor(model, measured(model), 2.0, l2sp=0.25).save(tmp_path / "a")
    assert Anchor.load(tmp_path / "a", model).l2sp == 0.25
    tensors, header = files.read_tensors(tmp_path / "a", "anchor")
    del tensors["l2sp"]
    files.write_tensors(tmp_path / "a", tensors, "anchor", header)
    assert Anchor.load(tmp_path / "a", model).l2sp == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("l2sp", [-0.1, float("nan"), float("inf"), "some"])
def test_a_decay_that_is_none_is_refused(l2sp):
    sentence = f"the l2sp coefficient must be a finite number of 0 or more, not {l2sp!r}."
    with refused(sentence):
        Anchor(Net(), None, 1.0, l2sp=l2sp)
    anchor = Anchor(Net(), None, 1.0, l2sp=0.5)
    with refused(sentence):
        anchor.l2sp = l2sp
    assert anchor.l2sp == 0.5


def test_decay_is_part_of_the_penalty_and_not_of_the_drift():
    model = Net()
    importance = measured(model, exclude="last")
    anchor, plain = (Anchor(model, importance, strength=0.7, l2sp=w) for w in (0.3, 0.0))
    before = values(model)
    moved(model)
    square = sum(((p.detach() - before[n]) ** 2).sum() for n, p in model.named_parameters() if "last" not in n)
    torch.testing.assert_close(anchor.penalty().detach(), plain.penalty().detach() + 0.15 * square)
    assert anchor.drift() == plain.drift()


# ----------------------------------------------------------------------------------------------------- merging


def test_merged_anchors_pull_as_all_of_them_and_are_left_as_they_were():
    model = Net()
    anchors = []
    for seed, strength in ((0, 2.0), (1, 5.0), (2, 0.5)):
        moved(model, seed)
        anchors.append(Anchor(model, measured(model, seed), strength, l2sp=0.1 * seed))
    kept = [{key: tensor.clone() for key, tensor in anchor.state_dict().items()} for anchor in anchors]
    merged = anchors[0].merge(*anchors[1:])
    gaps = []
    for seed in (7, 8):
        moved(model, seed)
        gaps.append(sum(anchor.penalty().item() for anchor in anchors) - merged.penalty().item())
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-4)
    for anchor, before in zip(anchors, kept, strict=True):
        assert all(torch.equal(tensor, before[key]) for key, tensor in anchor.state_dict().items())
    assert merged.strength == 2
    assert merged.l2sp == 0


@pytest.mark.parametrize("first", [True, False])
def test_what_is_free_in_one_of_them_is_free_in_all(first):
    """A head that was replaced is pulled by no anchor that one of the two is part of."""
    model = Net()
    old = Anchor(model, measured(model), 1.0)
    model.last = nn.Linear(model.last.in_features, model.last.out_features)
    with torch.no_grad():
        model.last.weight.add_(3)
    new = Anchor(model, measured(model), 1.0)
    with pytest.warns(UserWarning, match="'last.bias', 'last.weight' are new tensors, unlike those anchored"):
        merged = old.merge(new) if first else new.merge(old)
    assert merged.weights.keys() == {name for name in old.weights if not name.startswith("last")}


def test_anchors_of_other_models_do_not_merge():
    model = Net()
    anchor = Anchor(model, measured(model), 1.0)
    with refused("the other anchor does not fit this one: it lacks 'last.weight', 'last.bias'."):
        anchor.merge(Anchor(model, measured(model, exclude="last"), 1.0))
    with refused("an anchor of strength 0 cannot take in others; give it a strength first."):
        Anchor(model, measured(model), strength=0.0).merge(anchor)


# ------------------------------------------------------------------------------------- what is warned of in time


def test_a_strength_raised_past_the_bound_while_attached_warns_before_the_next_step():
    model = Net()
    anchor = Anchor(model, measured(model), strength=0.1)
    anchor.attach(optim.SGD(model.parameters(), lr=0.1, momentum=0.9), how="gradient")
    with pytest.warns(UserWarning, match="^with how='gradient' training will diverge: .* and this is 1000;"):
        anchor.strength = 1000.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        anchor.strength = 0.2


# ------------------------------------------------------------------------------------------------------ growing


def test_a_vocabulary_that_grows_keeps_its_words_and_frees_the_new_ones():
    """A table and the output layer that shares it: resized by name, new rows are free, and learn."""

    class Language(nn.Module):
        def __init__(self, words: int) -> None:
            super().__init__()
            self.table = nn.Embedding(words, 4)
            self.out = nn.Linear(4, words, bias=False)
            self.out.weight = self.table.weight

        def forward(self, words):
            return self.out(self.table(words).mean(1))

    torch.manual_seed(0)
    model = Language(6)
    old = model.table.weight.detach().clone()
    anchor = Anchor(model, measured(model), strength=1e8)
    grown = nn.Embedding(9, 4)
    with torch.no_grad():
        grown.weight[:6] = old
    begun = grown.weight.detach().clone()
    model.table, model.out = grown, nn.Linear(4, 9, bias=False)
    model.out.weight = grown.weight
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    anchor.attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.tensor([[6, 7], [1, 8]])), torch.tensor([7, 2])).backward()
        optimizer.step()
    torch.testing.assert_close(grown.weight[:6].detach(), old, rtol=0, atol=1e-6)
    assert ((grown.weight[6:] - begun[6:]).abs().sum(1) > 1e-3).all()
    assert anchor.frozen_fraction() == pytest.approx(6 / 9)
    anchor.consolidate(Importance({"table.weight": torch.ones(9, 4)}, 1.0))
    assert (anchor.importance["table.weight"][6:] == 1).all()


def test_a_vocabulary_that_shrinks_keeps_what_is_left():
    table = nn.Embedding(6, 4)
    anchor = Anchor(table, measured(table), strength=1e8)
    old = table.weight.detach().clone()
    table.weight = nn.Parameter(old[:4].clone())
    optimizer = optim.SGD(table.parameters(), lr=0.1)
    anchor.attach(optimizer)
    table.weight.grad = torch.ones(4, 4)
    optimizer.step()
    torch.testing.assert_close(table.weight.detach(), old[:4], rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- shards


@pytest.fixture
def mesh():
    """A process group of this process alone, which holds the only shard."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def sharded(model: nn.Module, mesh) -> nn.Module:
    from torch.distributed.tensor import Shard, distribute_tensor

    for layer in (model.first, model.last):
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)])))
    model.scale = nn.Parameter(model.scale.detach().expand(1).clone())
    model.scale = nn.Parameter(distribute_tensor(model.scale.detach(), mesh, [Shard(0)]))
    return model


@pytest.mark.parametrize("how", ["pull", "gradient"])
def test_shards_are_pulled_as_the_whole_would_be(mesh, how):
    whole = Net()
    whole.scale = nn.Parameter(whole.scale.detach().expand(1).clone())
    parts = sharded(Net(), mesh)
    omega = measured(whole)
    ends, drifts = [], []
    for net in (whole, parts):
        optimizer = optim.AdamW(net.parameters(), lr=0.05)
        anchor = Anchor(net, Importance(omega.sums, omega.count), strength=0.5, l2sp=0.1).attach(optimizer, how)
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            for parameter in net.parameters():
                gradient = torch.randn(parameter.shape, generator=generator)
                like = parameter.detach()
                parameter.grad = gradient if net is whole else like * 0 + as_shards(gradient, like)
            optimizer.step()
        if how == "pull":
            anchor.frozen_fraction()
        drifts.append(float(anchor.drift()))
        ends.append([getattr(p, "full_tensor", lambda p=p: p)().detach() for p in net.parameters()])
    for mine, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert drifts[0] == pytest.approx(drifts[1], rel=1e-5)


def as_shards(tensor, like):
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements)


def test_sharded_parameters_and_an_unsharded_anchor_are_refused_and_a_file_helps(mesh, tmp_path):
    model = Net()
    model.scale = nn.Parameter(model.scale.detach().expand(1).clone())
    anchor = Anchor(model, measured(model), strength=2.0)
    anchor.save(tmp_path / "a")
    sharded(model, mesh)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    sentence = (
        "'scale' is sharded and its anchor is not: anchor the model as it is now, "
        "or save() the anchor as it was and load() it for this model."
    )
    with refused(sentence):
        anchor.attach(optimizer)
    assert not optimizer._optimizer_step_post_hooks
    with refused(sentence):
        anchor.penalty()
    loaded = Anchor.load(tmp_path / "a", model).attach(optimizer)
    assert loaded.drift() == 0
    optimizer.step()
    loaded.save(tmp_path / "b")
    found, _ = files.read_tensors(tmp_path / "b", "anchor")
    assert torch.equal(found["weights.first.weight"], model.first.weight.full_tensor().detach())


# ------------------------------------------------------------------------------------------- how, and what was done


@pytest.mark.parametrize(
    ("make", "form", "said"),
    [
        (lambda p: optim.SGD(p, lr=0.01), "Pull", ""),
        (lambda p: optim.AdamW(p), "Pull", ""),
        (lambda p: optim.Rprop(p), "Gradient", ""),
        (
            lambda p: Rotating(p, lr=0.1),
            "Gradient",
            "how Rotating scales gradients is not known here, so",
        ),
    ],
)
def test_auto_takes_the_form_whose_end_is_the_optimum(make, form, said):
    model = Net()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        anchor = Anchor(model, measured(model), strength=1e-3).attach(make(model.parameters()))
    (attachment,) = anchor._attached
    assert type(attachment).__name__ == form
    assert [str(each.message).startswith(said) for each in caught] == [True] * bool(said)


def test_status_says_what_was_done_and_outlives_the_schedule_and_the_attachment():
    model = Net()
    anchor = Anchor(model, measured(model), strength=1e8)
    assert anchor.status() == Status(0, 0, 1e8, None)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)
    anchor.attach(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            train(model, optimizer, steps=1)
            schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0
    assert anchor.status() == Status(4, 4, 1e8, 1.0)
    anchor.strength = 0.0
    train(model, optimizer, steps=2)
    assert anchor.status() == Status(6, 4, 0.0, 0.0)
    anchor.strength = 1e8
    anchor.detach()
    assert anchor.status() == Status(6, 4, 1e8, 1.0)


@pytest.mark.parametrize("how", ["pull", "gradient"])
def test_status_counts_no_step_that_was_skipped(how):
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1, fused=True)
    anchor = Anchor(model, measured(model), strength=1e-3).attach(optimizer, how=how)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for bad in (False, True, False):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(2, 3)).sum() * (math.inf if bad else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert (anchor.status().steps, anchor.status().applied) == (3, 2)


def test_a_first_step_that_a_fused_optimizer_skips_is_none():
    """Its state is there then, with a step of 0, by which Adam's correction cannot be divided."""
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.1, fused=True)
    dial = HoldShare(steps=10)
    anchor = Anchor(model, measured(model), dial).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for bad in (True, False):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(2, 3)).sum() * (math.inf if bad else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert math.isfinite(anchor.strength)
        assert (anchor.strength > 0) is not bad
        assert not bad or anchor.frozen_fraction() == 0


def test_status_counts_every_step_of_several_optimizers_once():
    model = Net()
    optimizers = [optim.SGD(part.parameters(), lr=0.1) for part in (model.first, model.last)]
    anchor = Anchor(model, measured(model), strength=1e8).attach(optimizers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            model(torch.ones(2, 3)).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    attached = anchor.status()
    anchor.detach()
    assert attached == anchor.status() == Status(6, 6, 1e8, 1.0)
    anchor.attach(optimizers[0])
    assert anchor.status().steps == 6


def test_a_dials_numbers_in_a_state_are_refused_if_they_are_none():
    model = Net()
    anchor = Anchor(model, measured(model), HoldShare(steps=3))
    state = anchor.state_dict()
    assert float(state["dial.taken"]) == 0
    for bad in (torch.tensor([1.0, 2.0]), torch.tensor(math.nan), torch.tensor(-1.0)):
        with pytest.raises(ForgetlessError, match="dial"):
            anchor.load_state_dict({**state, "dial.taken": bad})


def test_a_replaced_head_is_free_without_its_importance():
    model = Net()
    importance = measured(model)
    model.last = nn.Linear(4, 5)
    with refused(
        "the importance does not fit the model: it differs in shape: last.weight (2, 4) instead of (5, 4); last.bias "
        "(2,) instead of (5,); a part that was replaced is free if the importance has none of it: "
        "importance.without('last')."
    ):
        Anchor(model, importance)
    assert not any(name.startswith("last") for name in Anchor(model, importance.without("last")).weights)


def test_an_importance_of_a_part():
    part = nn.Linear(3, 4)
    whole = nn.ModuleDict({"part": part, "head": nn.Linear(4, 2)})
    with refused(
        "the importance does not fit the model: it has 'weight', 'bias' besides; it is of the model's part 'part': "
        "anchor that part."
    ):
        Anchor(whole, Importance({name: torch.ones_like(p) for name, p in part.named_parameters()}, 1))


def test_what_is_frozen_needs_no_anchor():
    model = nn.Linear(3, 4)
    importance = Importance({"weight": torch.ones(4, 3)}, 1)
    model.requires_grad_(False)
    with pytest.raises(ForgetlessError, match=r"\('weight'\) are frozen .* forgetless.DeltaAnchor"):
        Anchor(model, importance).attach(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1))

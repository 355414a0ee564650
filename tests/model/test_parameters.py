"""Names and fingerprints of parameters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.model.parameters import (
    canonical,
    fingerprint,
    fingerprints,
    named,
    trainable,
    unwrapped,
    within,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
        self.head = nn.Linear(3, 2)
        self.tied = self.head


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.weight", "a.weight"),
        ("module.a.weight", "a.weight"),
        ("_orig_mod.module.a.weight", "a.weight"),
        ("module._orig_mod.a.weight", "a.weight"),
        ("a._fsdp_wrapped_module.b.weight", "a.b.weight"),
        ("base_model.model.a.weight", "a.weight"),
        ("base_model.model.a.base_layer.weight", "a.weight"),
        ("a.base_layer_norm.weight", "a.base_layer_norm.weight"),
        ("a.module.b", "a.b"),
        ("my_module.a", "my_module.a"),
        ("a.modules.b", "a.modules.b"),
    ],
)
def test_wrappers_leave_no_trace_in_names(name: str, expected: str) -> None:
    assert canonical(name) == expected


@given(st.lists(st.sampled_from(["a", "b0", "module", "_orig_mod", "weight"]), min_size=1, max_size=6))
def test_a_canonical_name_stays_what_it_is(parts: list[str]) -> None:
    once = canonical(".".join(parts))
    assert canonical(once) == once


def test_two_parameters_of_one_name_are_refused() -> None:
    net = nn.Module()
    net.weight = nn.Parameter(torch.zeros(2))
    net.module = nn.Linear(2, 2)
    with pytest.raises(ForgetlessError) as raised:
        named(net)
    assert str(raised.value) == (
        "two parameters of Module are called 'weight' once wrappers are left out of their names, one of them "
        "'module.weight'; rename that part of the model."
    )


def test_trainable_parameters_each_once() -> None:
    net = Net()
    net.body[0].bias.requires_grad_(False)
    assert list(trainable(net)) == ["body.0.weight", "body.1.weight", "body.1.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ("head", ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]),
        ("*.bias", ["body.0.weight", "body.1.weight", "head.weight"]),
        (["body.0", "head.bias"], ["body.1.weight", "body.1.bias", "head.weight"]),
        ("body.*", ["head.weight", "head.bias"]),
    ],
)
def test_exclude(exclude: str | list[str], left: list[str]) -> None:
    assert list(trainable(Net(), exclude)) == left


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(ForgetlessError) as raised:
        trainable(Net(), "heads")
    assert str(raised.value) == (
        "exclude='heads' matches no parameter of Net; its parameters are 'body.0.weight', 'body.0.bias', "
        "'body.1.weight', 'body.1.bias', 'head.weight', 'head.bias'."
    )


def test_fingerprints_tell_weights_apart() -> None:
    net = Net()
    before = fingerprints(trainable(net))
    assert fingerprints(trainable(net)) == before
    with torch.no_grad():
        net.head.weight[1, 2] += 1e-6
    after = fingerprints(trainable(net))
    assert {name for name in before if before[name] != after[name]} == {"head.weight"}


def test_a_fingerprint_does_not_depend_on_memory_layout() -> None:
    weight = torch.randn(6, 4, 3, 3)
    assert fingerprint(weight) == fingerprint(weight.to(memory_format=torch.channels_last))


def test_the_fingerprint_of_a_large_tensor_looks_everywhere() -> None:
    weight = torch.zeros(300_000)
    marks = {fingerprint(weight)}
    for start in range(0, 300_000, 100_000):
        changed = weight.clone()
        changed[start : start + 100_000] += 1
        marks.add(fingerprint(changed))
    assert len(marks) == 4


def test_wrappers_are_taken_off() -> None:
    net = Net()
    assert unwrapped(torch.compile(net)) is net
    assert unwrapped(nn.DataParallel(net)) is net
    assert unwrapped(net) is net


def test_an_attribute_called_module_is_no_wrapper() -> None:
    net = nn.Module()
    net.module = nn.Linear(2, 2)
    assert unwrapped(net) is net


def test_a_name_without_its_beginning_is_understood():
    model = nn.ModuleDict({"model": nn.ModuleDict({"fc": nn.Linear(2, 2), "conv": nn.Linear(2, 2)})})
    with pytest.raises(
        ForgetlessError, match=r"exclude='fc' matches no parameter of ModuleDict; did you mean 'model.fc'"
    ):
        trainable(model, "fc")
    assert within(["fc.weight", "conv.bias"], dict(model.named_parameters())) == "model."
    assert within(["other.weight"], dict(model.named_parameters())) is None
    assert within(["weight"], dict(model.named_parameters())) is None  # of two, none stands out

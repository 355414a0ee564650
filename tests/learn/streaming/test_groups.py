from __future__ import annotations

from collections import OrderedDict

import pytest
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.learn.heads import MultiHead
from forgetless.learn.streaming.groups import groups_of, layers_of
from streams import network


def staged() -> MultiHead:
    stages = OrderedDict((name, nn.Sequential(nn.Linear(2, 2), nn.ReLU())) for name in ("stem", "a", "b", "c", "d"))
    model = MultiHead(nn.Sequential(OrderedDict(scale=nn.Identity(), **stages, flat=nn.Flatten())), 2)
    model.grow("task", 2)
    return model


def test_five_groups_join_the_stem_with_the_first_stage_and_six_do_not() -> None:
    assert list(groups_of(staged(), 6)) == ["stem", "a", "b", "c", "d", "heads"]
    five = groups_of(staged(), 5)
    assert list(five) == ["stem", "b", "c", "d", "heads"]
    assert five["stem"] == tuple(f"backbone.{name}.0.{kind}" for name in ("stem", "a") for kind in ("weight", "bias"))


@pytest.mark.parametrize("count", [2, 3, 4, 6, 99])
def test_every_trainable_parameter_is_in_one_group(count: int) -> None:
    model = staged()
    next(model.parameters()).requires_grad_(False)
    found = groups_of(model, count)
    names = [name for inside in found.values() for name in inside]
    assert len(found) == min(count, 6)
    assert sorted(names) == sorted(name for name, each in model.named_parameters() if each.requires_grad)


def test_a_single_child_is_looked_into() -> None:
    model = MultiHead(nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))), 2)
    assert list(groups_of(model, 5)) == ["0.0", "0.1"]


def test_a_layer_is_a_module_with_parameters() -> None:
    model = network(noisy=True)
    model.grow("task", 2)
    assert layers_of(model)[1] == ["backbone.1.weight", "backbone.1.bias"]


def test_one_group_is_refused() -> None:
    with pytest.raises(ForgetlessError, match="at least two groups"):
        groups_of(staged(), 1)

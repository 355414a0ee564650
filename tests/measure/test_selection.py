"""The core against sorting by hand: exact counts, ties by position, rows and tensors that fit, and bad input."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from forgetless.errors import ForgetlessError
from forgetless.measure import selection
from forgetless.measure.importance import Importance
from forgetless.measure.selection import core_masks
from peak import Peak

SHAPES = st.lists(st.sampled_from([(), (1,), (7,), (4, 3), (3, 4), (2, 3, 2), (5, 1)]), min_size=1, max_size=4)


def importance(
    shapes: list[tuple[int, ...]], seed: int, levels: int = 0, dtype: torch.dtype = torch.float32
) -> Importance:
    draw = torch.Generator().manual_seed(seed)
    sums = {}
    for number, shape in enumerate(shapes):
        scale = 10 ** float(torch.randint(-3, 3, (), generator=draw))
        values = torch.rand(shape, generator=draw, dtype=torch.float64) * scale
        sums[f"p{number}"] = ((values * levels).floor() if levels else values).to(dtype)
    return Importance(sums, 3.0)


def by_sorting(scores: dict[str, list[float]], sizes: dict[str, int], room: int) -> set[tuple[str, int]]:
    """The units that a plain reading of the docstring chooses: name and number of each."""
    units = [
        (-score, place, name, k) for place, (name, all_) in enumerate(scores.items()) for k, score in enumerate(all_)
    ]
    chosen = set()
    for _, _, name, k in sorted(units, key=lambda unit: (unit[0], unit[1], unit[3])):
        if sizes[name] <= room:
            chosen.add((name, k))
            room -= sizes[name]
    return chosen


@settings(max_examples=60)
@given(
    shapes=SHAPES,
    seed=st.integers(0, 99),
    keep=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])),
    levels=st.sampled_from([0, 3]),
    wide=st.booleans(),
    granularity=st.sampled_from(["element", "row", "tensor"]),
    scope=st.sampled_from(["global", "tensor"]),
    ratio=st.booleans(),
)
def test_it_is_what_sorting_gives(shapes, seed, keep, levels, wide, granularity, scope, ratio):
    compare(shapes, seed, keep, levels, wide, granularity, scope, ratio)


def compare(shapes, seed, keep, levels, wide, granularity, scope, ratio):
    if granularity == "tensor" == scope:
        scope = "global"
    found = importance(shapes, seed, levels, torch.float64 if wide else torch.float32)
    other = importance(shapes, seed + 100, 0, torch.float64) if ratio else None
    count = sum(each.numel() for each in found.sums.values())
    scores, sizes = {}, {}
    for name, sums in found.sums.items():
        units = {"element": sums.numel(), "row": sums.shape[0] if sums.dim() else 1, "tensor": 1}[granularity]
        sizes[name] = sums.numel() // units
        means = sums.double().reshape(units, -1).mean(1)
        if other is not None:
            mean = sum(float(each.sum()) for each in other.sums.values()) / 3 / count
            means = means / 3 / (other.sums[name].reshape(units, -1).mean(1) / 3 + 2 * mean)
        scores[name] = means.tolist()
    masks = core_masks(found, keep, granularity, scope=scope, against=other, damping=2.0)
    chosen = {
        (name, k)
        for name, mask in masks.items()
        for k, row in enumerate(mask.reshape(len(scores[name]), -1))
        if bool(row.any())
    }
    expected = set()
    for names in [[name] for name in scores] if scope == "tensor" else [list(scores)]:
        room = int(keep * sum(found.sums[name].numel() for name in names) + 0.5)
        expected |= by_sorting({name: scores[name] for name in names}, sizes, room)
    assert chosen == expected
    assert all(mask.shape == found.sums[name].shape for name, mask in masks.items())
    if granularity == "element" and scope == "global":
        assert sum(int(mask.sum()) for mask in masks.values()) == min(count, int(keep * count + 0.5))


def test_a_planted_fault_in_the_search_is_seen(monkeypatch):
    true = selection._threshold
    monkeypatch.setattr(selection, "_threshold", lambda *given: (true(*given)[0], 0))  # no ties
    with pytest.raises(AssertionError):
        compare([(4, 3), (7,)], 0, 0.5, 3, False, "element", "global", False)


def test_pieces_make_no_difference(monkeypatch):
    found = importance([(40, 30), (7,), (300,)], 1, 5)
    whole = core_masks(found, 0.4)
    monkeypatch.setattr(selection, "_PIECE", 11)
    pieces = core_masks(found, 0.4)
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_nothing_is_sorted_or_copied_as_a_whole(monkeypatch):
    """Beside the masks, of a byte for each element, it takes memory for a piece."""
    found = Importance({"w": torch.rand(1_000_000)}, 1.0)
    monkeypatch.setattr(selection, "_PIECE", 1 << 17)
    with Peak() as peak:
        masks = core_masks(found, 0.3)
    assert int(masks["w"].sum()) == 300_000
    assert peak.most < 1_000_000 + 6_000_000


def test_masks_of_rows_and_tensors_take_no_memory_for_their_elements():
    found = importance([(50, 40), (50,)], 0)
    for granularity in ("row", "tensor"):
        mask = core_masks(found, 0.9, granularity)["p0"]
        assert mask.untyped_storage().nbytes() <= 100


def test_the_larger_the_damping_the_more_it_is_the_general_importance_alone():
    general, domain = importance([(30, 20)], 1), importance([(30, 20)], 2)
    plain = core_masks(general, 0.3)["p0"]
    shares = [
        float((core_masks(general, 0.3, against=domain, damping=d)["p0"] & plain).sum() / plain.sum())
        for d in (1e-3, 1.0, 1e6)
    ]
    assert shares[0] < shares[1] < shares[2] == 1


def test_masks_prune_all_but_the_core_and_the_core():
    """What docs/freezing.md says of torch.nn.utils.prune."""
    torch.manual_seed(0)
    for reverse in (False, True):
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        found = Importance({name: torch.rand_like(each) for name, each in weights.items()}, 1.0)
        for granularity in ("element", "row"):
            masks = core_masks(found, 0.4, granularity)
            mask = ~masks["0.weight"] if reverse else masks["0.weight"]
            prune.custom_from_mask(model[0], "weight", mask)
            assert torch.equal(model[0].weight, torch.where(mask, weights["0.weight"], 0))
            prune.remove(model[0], "weight")
            model[0].weight.data = weights["0.weight"].clone()


def one(**changes: Any) -> Importance:
    return replace(importance([(4, 3), (3,)], 0), **changes)


class Shard(Tensor):
    """As a DTensor shows itself."""

    def full_tensor(self) -> Tensor:
        return self

    def to_local(self) -> Tensor:
        return self.as_subclass(Tensor)


def zeros() -> Importance:
    return one(sums={"p0": torch.zeros(4, 3), "p1": torch.zeros(3)})


RANGE = "keep is the share of the elements in the core, 0 to 1, not "
BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no importance": (lambda f: f({"w": torch.ones(3)}), "an importance is what forgetless.mas returns, not dict."),
    "too large a share": (lambda f: f(one(), 1.2), f"{RANGE}1.2."),
    "a negative share": (lambda f: f(one(), -0.1), f"{RANGE}-0.1."),
    "NaN": (lambda f: f(one(), float("nan")), f"{RANGE}nan."),
    "text": (lambda f: f(one(), "0.3"), f"{RANGE}'0.3'."),
    "granularity": (
        lambda f: f(one(), 0.3, "layer"),
        "granularity must be 'element', 'row' or 'tensor', not 'layer'.",
    ),
    "scope": (lambda f: f(one(), scope="layer"), "scope must be 'global' or 'tensor', not 'layer'."),
    "a share of one tensor": (
        lambda f: f(one(), 0.3, "tensor", scope="tensor"),
        "scope='tensor' takes a share of every tensor, so granularity must be 'element' or 'row'.",
    ),
    "against another network": (
        lambda f: f(one(), against=importance([(4, 3)], 0)),
        "the importance in against= does not fit the other one: it lacks 'p1'.",
    ),
    "against nothing": (
        lambda f: f(one(), against=zeros()),
        "the importance in against= is 0 everywhere, so that it has no scale.",
    ),
    "no damping": (
        lambda f: f(one(), against=one(), damping=0.0),
        "damping must be a finite number above 0, not 0.0.",
    ),
    "sharded": (
        lambda f: f(one(sums={"p0": torch.ones(3).as_subclass(Shard)})),
        "the importance of 'p0' is sharded over processes; use importance.whole().",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", BAD)
def test_refuses(what):
    act, sentence = BAD[what]
    with pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$"):
        act(core_masks)

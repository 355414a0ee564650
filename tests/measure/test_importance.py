"""`Importance` is pure data: pooled in any split it is the same, and its file is whole or refused."""

from __future__ import annotations

import copy
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import forgetless
from forgetless import Importance, files
from forgetless.errors import ForgetlessError
from forgetless.measure.confidence import Confidence
from forgetless.measure.importance import refuse_mismatch


def made(seed: int = 0, count: float = 3, **more: Any) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    sums = {"a.weight": torch.rand(2, 3, generator=generator), "b": torch.rand((), generator=generator)}
    return Importance(sums, count, **more)


def same(found: Importance, expected: Importance, tolerance: float = 0.0) -> bool:
    return (
        found.count == pytest.approx(expected.count)
        and found.sums.keys() == expected.sums.keys()
        and all(torch.allclose(found.sums[n], expected.sums[n], rtol=tolerance, atol=tolerance) for n in found.sums)
    )


def test_the_mean_is_the_sums_by_the_count() -> None:
    found = made(count=4)
    assert all(torch.equal(found.mean()[name], found.sums[name] / 4) for name in found.sums)


@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=5), order=st.randoms(use_true_random=False))
def test_merging_does_not_depend_on_order_or_grouping(seeds: list[int], order: Any) -> None:
    parts = [made(seed, count=1 + seed / 2) for seed in seeds]
    at_once = parts[0].merge(*parts[1:])
    order.shuffle(parts)
    one_by_one = parts[0]
    for part in parts[1:]:
        one_by_one = one_by_one.merge(part)
    assert same(one_by_one, at_once, 1e-6)


def test_merging_changes_neither_operand() -> None:
    first, second = made(1), made(2)
    merged = first.merge(second)
    assert same(first, made(1))
    assert same(second, made(2))
    assert merged.sums["a.weight"].data_ptr() not in {
        first.sums["a.weight"].data_ptr(),
        second.sums["a.weight"].data_ptr(),
    }


def test_merging_keeps_the_wider_dtype() -> None:
    wide = Importance({name: total.double() for name, total in made(2).sums.items()}, 1)
    assert made(1).merge(wide).sums["b"].dtype == torch.float64


def test_what_no_measurement_used_stays_unused() -> None:
    first, second = made(unused=("a.weight", "b")), made(unused=("b",))
    assert first.merge(second).unused == ("b",)


def test_another_estimator_is_not_merged() -> None:
    with pytest.raises(ForgetlessError) as raised:
        made().merge(made(estimator="fisher"))
    assert str(raised.value) == "an importance by 'mas' cannot be merged with one by 'fisher'."


def test_another_model_is_not_merged_and_the_difference_is_named() -> None:
    other = Importance({"a.weight": torch.ones(3, 2), "c": torch.ones(1)}, 1)
    with pytest.raises(ForgetlessError) as raised:
        made().merge(other)
    assert str(raised.value) == (
        "the other importance does not fit this one: it lacks 'b', has 'c' besides, "
        "differs in shape: a.weight (3, 2) instead of (2, 3)."
    )


def test_what_fits_is_not_refused() -> None:
    refuse_mismatch(made().sums, made(1).sums, "this", "that")


@pytest.mark.parametrize("count", [0.0, -1.0, math.nan, math.inf])
def test_a_count_that_makes_no_sense(count: float) -> None:
    with pytest.raises(ForgetlessError) as raised:
        made(count=count)
    assert str(raised.value) == f"an importance needs a positive count of samples, not {count}."


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.tensor([1, 2]), "the importance of 'w' is torch.int64, not a float tensor."),
        (torch.tensor([1.0, math.nan]), "the importance of 'w' holds NaN, Inf or negative values."),
        (torch.tensor([1.0, math.inf]), "the importance of 'w' holds NaN, Inf or negative values."),
        (torch.tensor([1.0, -1e-9]), "the importance of 'w' holds NaN, Inf or negative values."),
    ],
)
def test_sums_that_make_no_sense(value: Tensor, sentence: str) -> None:
    with pytest.raises(ForgetlessError) as raised:
        Importance({"w": value}, 1)
    assert str(raised.value) == sentence


def test_saved_and_loaded(tmp_path: Path) -> None:
    confidence = Confidence()
    confidence.add(made(1).sums, 3)
    confidence.add(made(2).sums, 2)
    found = made(weights={"a.weight": "0123"}, unused=("b",), confidence=confidence)
    found.save(tmp_path / "i.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["i.safetensors"]
    loaded = Importance.load(tmp_path / "i.safetensors")
    assert same(loaded, found)
    assert (loaded.estimator, loaded.weights, loaded.unused) == (found.estimator, found.weights, found.unused)
    assert loaded.error() == found.error()
    assert loaded.overlap(0.3) == found.overlap(0.3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"count": True}, "count must be a number, not True"),
        ({"count": -1}, "is damaged: "),
        ({"estimator": 3}, "estimator must be text, not 3"),
        ({"weights": {"b": None}}, "weights.b must be text, not None"),
        ({"unused": [1]}, "unused[0] must be text, not 1"),
        ({"confidence": {}}, "its header does not say how sure it is"),
        ({"confidence": 2}, "confidence must be an object, not 2"),
        ({"more": 1}, "its content has the field 'more'"),
    ],
)
def test_a_header_that_no_writer_makes_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "it.safetensors"
    made().save(path)
    tensors, header = files.read_tensors(path, "importance")
    files.write_tensors(path, tensors, "importance", {**header, **change})
    with pytest.raises(ForgetlessError, match=re.escape(sentence)):
        Importance.load(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match=r"i\.safetensors does not exist; name a file of that kind"):
        Importance.load(tmp_path / "i.safetensors")


def test_saving_fails_whole(tmp_path: Path) -> None:
    made(1).save(tmp_path / "i.safetensors")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        made(2, weights={"a.weight": object()}).save(tmp_path / "i.safetensors")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_until_there_is_no_standard_error() -> None:
    for ask in (made().error, made().overlap):
        with pytest.raises(ForgetlessError) as raised:
            ask()
        assert str(raised.value) == "this importance has no standard error: measure it with until=."


def test_without_a_part():
    model = nn.ModuleDict({"body": nn.Linear(3, 4), "head": nn.Linear(4, 2)})
    found = forgetless.mas(
        model,
        [torch.randn(2, 3) for _ in range(3)],
        forward=lambda m, x: m["head"](m["body"](x)),
        until=1e-9,
        progress=False,
    )
    left = found.without("head")
    assert left.sums.keys() == left.weights.keys() == {"body.weight", "body.bias"}
    assert left.count == found.count
    assert left.error() == {name: found.error()[name] for name in left.sums}
    assert found.without(["*.bias", "head"]).sums.keys() == {"body.weight"}
    with pytest.raises(ForgetlessError, match=r"'hed' matches no parameter of the importance: 'body.weight'"):
        found.without("hed")
    with pytest.raises(ForgetlessError, match=r"without '\*' the importance has no parameter left"):
        found.without("*")


def test_it_is_shown_in_a_line() -> None:
    model = nn.Linear(3, 2)
    importance = forgetless.mas(model, torch.randn(5, 3), progress=False)
    assert repr(importance) == "Importance(estimator='mas', count=5, 8 weights of 2 parameters)"
    anchor = forgetless.Anchor(model, importance, 2.0)
    assert repr(anchor) == "Anchor(2 parameters of Linear, strength=2, attached=False)"


USES = """
import os
import torch
import forgetless
torch.manual_seed(0)
model = torch.nn.Linear(64, 64)
fresh = forgetless.mas(model, torch.randn(4, 64), progress=False)
fresh.save("importance")
mapped = forgetless.Importance.load("importance", mmap=True)
os.truncate("importance", 3000)
uses = [mapped.mean, lambda: mapped.save("copy"), lambda: fresh.merge(mapped), lambda: forgetless.Anchor(model, mapped)]
for use in uses:
    try:
        use()
        print("nothing")
    except forgetless.ForgetlessError as error:
        print(error)
"""


def test_a_mapped_file_that_was_cut_is_told_before_it_is_used(tmp_path: Path) -> None:
    """Zeros would be read where it ends within a page; behind that page the system ends the process, hence another."""
    source = str(Path(forgetless.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", USES],
        env={**os.environ, "PYTHONPATH": source},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = re.findall(r"importance was cut from \d+ to 3000 bytes while its tensors were in use", done.stdout)
    assert (done.returncode, len(said)) == (0, 4), done
    assert [path.name for path in tmp_path.iterdir()] == ["importance"]


WAYS = {
    "[]": lambda held: held["w"],
    "get": lambda held: held.get("w"),
    "pop": lambda held: held.pop("w"),
    "values": lambda held: [*held.values()],
    "items": lambda held: [*held.items()],
    "dict": dict,
    "**": lambda held: {**held},
    "|": lambda held: held | {},
    "| behind": lambda held: {} | held,
    "update": lambda held: {}.update(held),
    "copy": lambda held: held.copy(),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_mapped_tensor_looks_at_the_file_first(way: str, tmp_path: Path) -> None:
    path = tmp_path / "importance"
    Importance({"w": torch.rand(4000)}, 2).save(path)
    held = Importance.load(path, mmap=True).sums
    WAYS[way](Importance.load(path, mmap=True).sums)  # nothing to say of a whole file
    os.truncate(path, 3000)
    with pytest.raises(ForgetlessError, match="was cut from"):
        WAYS[way](held)


def test_a_copy_of_a_mapped_importance_is_its_own(tmp_path: Path) -> None:
    made().save(tmp_path / "importance")
    found = copy.deepcopy(Importance.load(tmp_path / "importance", mmap=True))
    os.truncate(tmp_path / "importance", 100)
    assert same(found, made())

"""An importance in 8 bits: how far off it is at most, and that everything that reads it reads the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.protect import coded as module
from forgetless.protect.anchor_file import State
from forgetless.protect.anchored_parameter import AnchoredParameter, collapsed
from forgetless.protect.coded import ABSOLUTE, RELATIVE, Coded, largest, read, stored


def spread(count: int, seed: int, octaves: float, top: float) -> torch.Tensor:
    """Values from `top` down over so many octaves, and some zeros."""
    generator = torch.Generator().manual_seed(seed)
    values = top * torch.exp2(-octaves * torch.rand(count, generator=generator, dtype=torch.float64))
    values[torch.rand(count, generator=generator) < 0.1] = 0
    return values.float()


@given(
    count=st.integers(0, 400),
    seed=st.integers(0, 1000),
    octaves=st.floats(0, 100),
    exponent=st.floats(-60, 120),
    piece=st.integers(1, 500),
)
def test_the_error_is_as_small_as_is_said(count, seed, octaves, exponent, piece):
    values = spread(count, seed, octaves, 2**exponent)
    kept, module._PIECE = module._PIECE, piece
    try:
        found = Coded.of(values).read(torch.float64)
    finally:
        module._PIECE = kept
    exact = values.double()
    top = float(exact.max()) if count else 0.0
    assert ((found - exact).abs() <= 1.0001 * (RELATIVE * exact).clamp(min=ABSOLUTE * top)).all()
    assert (found[exact == 0] == 0).all()
    assert (found[exact >= 2 * ABSOLUTE * top] > 0).all() or not top


def test_the_bounds_are_those_of_the_docs():
    assert RELATIVE < 0.0443
    assert ABSOLUTE < 1.4e-10


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (5, 4, 3, 2)])
def test_any_shape_and_layout(shape):
    values = torch.rand(shape)
    if len(shape) == 4:
        values = values.to(memory_format=torch.channels_last)
    found = Coded.of(values)
    assert found.codes.stride() == values.stride()
    assert found.read().shape == values.shape
    assert torch.allclose(found.read(), values, rtol=0.0443)


def test_the_largest_is_exact_and_the_order_is_kept():
    values = spread(1000, 0, 40, 3.7).sort().values
    found = Coded.of(values)
    assert found.read()[-1] == values[-1] == found.top
    assert (found.read().diff() >= 0).all()


def test_what_was_read_is_coded_alike():
    found = Coded.of(spread(1000, 1, 30, 0.3))
    assert torch.equal(Coded.of(found.read()).codes, found.codes)


@pytest.mark.parametrize("compact", [False, True, "8bit"])
def test_all_ways_to_keep_it_are_read_alike(compact):
    values = spread(60, 2, 10, 1.0).view(6, 10)
    kept = stored(values, compact)
    assert torch.allclose(read(kept, torch.float64), values.double(), rtol=0.0443)
    assert largest(kept) == pytest.approx(float(values.max()), rel=0.005)
    assert torch.equal(read(kept[2:4, :3], torch.float32), read(kept, torch.float32)[2:4, :3])
    assert largest(stored(torch.zeros(0), compact)) == 0


def anchored(seed: int = 0) -> AnchoredParameter:
    return AnchoredParameter.at("w", torch.randn(6, 10), spread(60, seed, 20, 2.0).view(6, 10), None, compact="8bit")


def test_an_anchor_in_8_bits_is_one_byte_a_weight():
    assert anchored().importance.codes.untyped_storage().nbytes() == 60


def test_it_grows_fades_and_is_collapsed():
    first = anchored()
    omega = first.importance.read()
    grown = AnchoredParameter.at("w", torch.zeros(7, 10), torch.ones(7, 10), first, gamma=0.5, compact="8bit")
    expected = torch.ones(7, 10)
    expected[:6] += 0.5 * omega
    assert torch.allclose(grown.importance.read(), expected, rtol=0.0443)
    both = collapsed([(1.0, 0.0, first), (2.0, 0.0, anchored(3))])
    assert isinstance(both.importance, Coded)
    assert torch.allclose(both.importance.read(), omega + 2 * anchored(3).importance.read(), rtol=0.0443)


def test_the_state_gives_it_back_to_the_bit():
    before = State(1.0, 0.0, {"w": anchored()})
    found = State.parsed(before.tensors()).parameters["w"]
    assert torch.equal(found.importance.codes, before.parameters["w"].importance.codes)
    assert torch.equal(found.importance.read(), before.parameters["w"].importance.read())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("top.w", None, "has codes of 'w' without their 'top'"),
        ("top.w", torch.tensor(float("nan")), "the top of 'w' must be a finite number of 0 or more"),
        ("top.w", torch.tensor(-1.0), "the top of 'w' must be a finite number of 0 or more"),
        ("top.w", torch.ones(2), "has 2 numbers as its 'top.w', not one"),
        ("importance.w", torch.ones(6, 10), "without their 'top', or that without codes"),
        ("weights.w", torch.ones(6, 10, dtype=torch.uint8), "no tensor of real numbers as 'weights.w'"),
    ],
)
def test_a_damaged_state_is_refused(key, value, said):
    tensors = State(1.0, 0.0, {"w": anchored()}).tensors()
    tensors[key] = value
    if value is None:
        del tensors[key]
    with pytest.raises(ForgetlessError, match=said):
        State.parsed(tensors)

"""The compiled pull and the one in torch's operations, both against the formula in float64."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forgetless.protect.coded import Coded, read, stored
from forgetless.protect.optimizers import native
from forgetless.protect.optimizers.forms import Response
from forgetless.protect.optimizers.move import Move

compiled = pytest.mark.skipif(not native.available(), reason="forgetless was installed without a C compiler")

LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "turned": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0) if t.dim() > 1 else t,
    "sliced": lambda t: torch.cat([t, t], dim=-1)[..., : t.shape[-1]] if t.dim() else t,
    "stepped": lambda t: torch.repeat_interleave(t, 2, dim=0)[::2] if t.dim() else t,
}
UNALIGNED = torch.frombuffer(bytearray(19), dtype=torch.float32, offset=3)  # as in a file that others wrote
COMPACT = [False, True, "8bit"]
DIVISORS = ["one", "plain", "root", "centered"]


def formula(move: Move) -> Tensor:
    """`(θ + s θ*) / (1 + s)`, s = r (2 λ Ω + w) / D, in float64 and out of place."""
    response = move.response
    divisor = torch.ones(move.weights.shape, dtype=torch.float64)
    if response.second is not None:
        divisor = response.second.double()
        if response.root:
            square = response.scale * divisor - (0 if response.mean is None else response.mean.double() ** 2)
            divisor = square.clamp_min(0).sqrt() + response.epsilon
    s = response.rate * (2 * move.strength * read(move.importance, torch.float64) + move.l2sp) / divisor
    return (move.weights.double() + s * move.target.double()) / (1 + s)


def made(
    shape: tuple[int, ...],
    layout: str = "contiguous",
    divisor: str = "one",
    strength: float = 1.0,
    l2sp: float = 0.0,
    dtype: torch.dtype = torch.float32,
    compact: bool | str = False,
    half_target: bool = False,
    seed: int = 0,
) -> Move:
    generator = torch.Generator().manual_seed(seed)

    def random() -> Tensor:
        return LAYOUTS[layout](torch.randn(shape, generator=generator, dtype=dtype))

    importance = random().square()
    importance = torch.where(importance < 0.1, 0.0, importance)
    importance = stored(importance, compact)
    if isinstance(importance, Coded):
        importance = Coded(LAYOUTS[layout](importance.codes), importance.levels)
    else:
        importance = LAYOUTS[layout](importance)
    second, mean = random().square() + 1e-3, random() * 0.01
    response = Response(
        0.3,
        None if divisor == "one" else second,
        mean if divisor == "centered" else None,
        scale=1.7 if divisor in ("root", "centered") else 1.0,
        epsilon=1e-8,
        root=divisor != "plain",
    )
    target = LAYOUTS[layout](random().bfloat16()) if half_target else random()
    return Move(random(), target, importance, strength, l2sp, response)


def others(move: Move) -> list[Tensor]:
    """What a pull only reads."""
    omega = move.importance.codes if isinstance(move.importance, Coded) else move.importance
    return [*list(move.operands())[1:], omega]


def by_c(move: Move) -> bool:
    """Whether the compiled pass did it."""
    return not native.pull([move])


def by_torch(move: Move) -> bool:
    move.apply()
    return True


def assert_right(move: Move, way) -> None:
    expected, scale = formula(move), move.weights.double().abs() + move.target.double().abs()
    kept = [operand.clone() for operand in others(move)]
    assert way(move)
    tolerance = 4e-7 if move.weights.dtype == torch.float32 else 1e-15
    assert ((move.weights.double() - expected).abs() <= tolerance * scale).all()
    assert all(torch.equal(a, b) for a, b in zip(kept, others(move), strict=True))


cases = {
    "shape": st.lists(st.integers(0, 9), max_size=4).map(tuple),
    "divisor": st.sampled_from(DIVISORS),
    "strength": st.floats(-6, 8).map(lambda exponent: 10**exponent),
    "l2sp": st.sampled_from([0.0, 0.02]),
    "compact": st.sampled_from(COMPACT),
    "half_target": st.booleans(),
    "seed": st.integers(0, 100),
}


@compiled
@settings(max_examples=60)
@given(layout=st.sampled_from(["contiguous", "turned"]), **cases)
def test_the_compiled_pass_is_the_formula(layout, **case):
    assert_right(made(layout=layout, **case), by_c)


@settings(max_examples=60)
@given(layout=st.sampled_from(list(LAYOUTS)), dtype=st.sampled_from([torch.float32, torch.float64]), **cases)
def test_torchs_operations_are_the_formula(layout, dtype, **case):
    assert_right(made(layout=layout, dtype=dtype, **case), by_torch)


@compiled
@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("compact", COMPACT)
@pytest.mark.parametrize("size", [1, 15, 17, 16383, 16384, 16385, 100_003])
def test_every_length_and_many_tensors_in_one_call(size, compact, divisor):
    moves = [made((n,), divisor=divisor, compact=compact, seed=n) for n in (size, 0, 5, size)]
    expected = [formula(move) for move in moves]
    assert native.pull(moves) == []
    for move, right in zip(moves, expected, strict=True):
        torch.testing.assert_close(move.weights.double(), right, rtol=1e-6, atol=1e-6)


@compiled
def test_bits_do_not_depend_on_the_threads():
    found = []
    for threads in (1, 2, 5):
        move = made((300, 401), divisor="root")
        with torch_threads(threads):
            assert by_c(move)
        found.append(move.weights)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@contextlib.contextmanager
def torch_threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


ways = pytest.mark.parametrize("way", [pytest.param(by_c, marks=compiled), by_torch])


@ways
@pytest.mark.parametrize("divisor", DIVISORS)
def test_what_does_not_matter_keeps_its_bits(way, divisor):
    move = made((1000,), divisor=divisor, strength=1e8)
    free, before = move.importance == 0, move.weights.clone()
    assert way(move)
    assert torch.equal(move.weights[free], before[free])
    assert not torch.equal(move.weights, before)


@ways
@pytest.mark.parametrize("divisor", ["one", "plain"])
def test_what_is_held_firmly_is_where_it_was_to_the_bit(way, divisor):
    move = made((1000,), divisor=divisor, strength=1e16)
    assert way(move)
    held = move.importance > 0
    assert torch.equal(move.weights[held], move.target[held])


@ways
@pytest.mark.parametrize("compact", COMPACT)
def test_no_number_makes_another_one_bad(way, compact):
    """The largest and smallest that may stand there; NaN stays in its place."""
    move = made((8,), divisor="root", strength=1e8)
    largest = torch.finfo(torch.bfloat16 if compact is True else torch.float32).max
    importance = stored(torch.tensor([0.0, 0.0, largest, largest, 1.0, 1e-38, 1.0, 1.0]), compact)
    move.response.second.copy_(torch.tensor([0.0, torch.inf, 0.0, torch.inf, 3e38, 0.0, 1.0, 1.0]))
    move.weights[6] = torch.nan
    move = Move(move.weights, move.target, importance, 1e300, 0.0, move.response._replace(epsilon=0.0))
    before = move.weights.clone()
    assert way(move)
    assert torch.isfinite(move.weights).tolist() == [True] * 6 + [False, True]
    assert torch.equal(move.weights[:2], before[:2])  # free
    assert move.weights[2] == move.target[2]
    assert move.weights[3] == before[3]  # an infinite D: it has not moved, and is not moved


@ways
def test_rates_may_be_tensors(way):
    """As the counts of a capturable optimizer are."""
    move = made((300,), divisor="root", l2sp=0.2)
    rates = {key: torch.tensor(getattr(move.response, key)) for key in ("rate", "scale", "epsilon")}
    move.response = move.response._replace(**rates)
    assert_right(move, way)


@ways
def test_a_centerd_variance_below_zero_counts_as_zero(way):
    move = made((4,), divisor="centered")
    move.response.mean.fill_(100.0)
    move.response = move.response._replace(epsilon=0.5)
    assert_right(move, way)


@pytest.mark.parametrize(
    "move",
    [
        made((4,), dtype=torch.float64),
        made((4, 6), layout="sliced"),
        made((4, 6), layout="stepped"),
        Move(torch.zeros(4).bfloat16(), torch.zeros(4), torch.ones(4), 1.0, 0.0, Response(1.0)),
        Move(torch.zeros(4, 5), torch.zeros(5, 4).T, torch.ones(4, 5), 1.0, 0.0, Response(1.0)),
        Move(torch.zeros(4), torch.zeros(4), torch.ones(4).half(), 1.0, 0.0, Response(1.0)),
        Move(torch.zeros(4), torch.zeros(4), torch.ones(4), 1.0, 0.0, Response(1.0, torch.ones(4).bfloat16())),
        Move(torch.zeros(4, device="meta"), torch.zeros(4), torch.ones(4), 1.0, 0.0, Response(1.0)),
        Move(torch._neg_view(torch.zeros(4)), torch.zeros(4), torch.ones(4), 1.0, 0.0, Response(1.0)),
        Move(torch.zeros(4), torch.zeros(4), torch.ones(4), 1.0, 0.0, Response(torch.ones((), device="meta"))),
        Move(torch.zeros(4), UNALIGNED, torch.ones(4), 1.0, 0.0, Response(1.0)),
        Move(torch.zeros(4), torch.zeros(4).half(), torch.ones(4), 1.0, 0.0, Response(1.0)),
    ],
    ids=[
        "double",
        "sliced",
        "stepped",
        "bfloat16",
        "strides",
        "half",
        "state",
        "device",
        "negative",
        "rate",
        "unaligned",
        "half target",
    ],
)
def test_other_tensors_are_left_to_torch(move):
    good = made((5,))
    expected = formula(good)
    assert native.pull([move, good])[0] is move
    if native.available():
        torch.testing.assert_close(good.weights.double(), expected, rtol=1e-6, atol=1e-6)


def test_without_the_compiled_pass_everything_is_left(monkeypatch):
    monkeypatch.setattr(native, "_pull", None)
    assert not native.available()
    moves = [made((5,)), made((3, 2))]
    assert native.pull(moves) == moves


def test_autograd_notices_that_the_weights_moved():
    move = made((5,))
    version = move.weights._version
    for other in native.pull([move]):
        other.apply()
    assert move.weights._version > version

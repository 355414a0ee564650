"""What provenance says of a tensor's rows is true: against what every element really depends on, by brute force."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from forgetless.measure.engine.provenance import Rows, rows_of
from forgetless.measure.engine.tape import Tape
from forgetless.model import batches
from operations import OPERATIONS, Function, Make


def batch_of(rng: random.Random, samples: int) -> Tensor:
    """`[samples, …]` of numbers whose sums and products do not tie: rows that tie are sorted otherwise by any nudge."""
    shape = (samples, *[rng.randint(1, 4) for _ in range(rng.randint(0, 3))])
    size = torch.Size(shape).numel()
    generic = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.6
    return generic[rng.sample(range(size), size)].view(shape)


def outcome(function: Function, x: Tensor) -> list[Tensor]:
    return [tensor for tensor in batches.tensors(function(x)) if tensor.is_floating_point()]


def dependence(function: Function, x: Tensor) -> list[Tensor]:
    """Of every result: whether its elements depend on sample n, `[samples, *shape]`."""
    before = outcome(function, x)
    changes = []
    for n in range(len(x)):
        y = x.clone()
        y[n] *= 1 + 1e-10 * (1 + torch.arange(y[n].numel(), dtype=y.dtype).view(y[n].shape) / 100)
        changes.append([_changed(after, old) for after, old in zip(outcome(function, y), before, strict=True)])
    return [torch.stack(each) for each in zip(*changes, strict=True)]


def _changed(after: Tensor, before: Tensor) -> Tensor:
    """Where numbers are others; NaN is NaN."""
    return (after != before) & ~(after.isnan() & before.isnan())


def false_claim(rows: Rows | None, depends: Tensor, samples: int) -> str | None:
    """What is said of a result and is not so; None where all is well."""
    if rows is None or rows.lost is not None:
        return None  # not to know is allowed
    shape = depends.shape[1:]
    if rows.axis is None and rows.of is None:
        return "constants" if depends.any() else None
    if rows.axis is None:
        assert rows.of is not None
        others = [n for n in range(samples) if n != int(rows.of[0])]
        return f"all of sample {int(rows.of[0])}" if bool(depends[others].any()) else None
    if rows.axis >= len(shape):
        return f"an axis {rows.axis} of {tuple(shape)}"
    numbers = rows.numbers(shape[rows.axis], samples)
    if numbers is None or len(numbers) != shape[rows.axis]:
        return f"{numbers} along an axis of {shape[rows.axis]}"
    return f"{numbers.tolist()} along axis {rows.axis}" if _wrong(depends, rows.axis, numbers).any() else None


def _wrong(depends: Tensor, axis: int, numbers: Tensor) -> Tensor:
    """Where an element depends on another sample than its row is said to be of."""
    samples = depends.shape[0]
    allowed = numbers[None] == torch.arange(samples)[:, None]
    shape = [samples, *[-1 if other == axis else 1 for other in range(depends.dim() - 1)]]
    return depends & ~allowed.view(shape)


def tracked(function: Function, x: Tensor) -> list[tuple[Rows | None, Tensor]]:
    given = x.clone()
    with Tape({}, given, 1, lambda name, total: None):
        return [(rows_of(tensor), tensor) for tensor in outcome(function, given)]


def look(function: Function, x: Tensor, what: str) -> list[Rows | None]:
    """Assert that nothing false is said of the results."""
    known = tracked(function, x)
    for (rows, tensor), depends in zip(known, dependence(function, x), strict=True):
        said = false_claim(rows, depends, len(x))
        assert said is None, f"{what} of {tuple(x.shape)} → {tuple(tensor.shape)}: it is not {said}"
    return [rows for rows, _ in known]


def after(first: Function, then: Function) -> Function:
    return lambda x: then(first(x))


def single(rng: random.Random, make: Make, x: Tensor) -> Function:
    """The operation, of whose results one is drawn."""
    function, which = make(rng, x), rng.random()

    def drawn(x: Tensor) -> Tensor:
        results = outcome(function, x)
        return results[int(which * len(results))] if results else x * 1

    return drawn


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=40)
@given(rng=st.randoms(use_true_random=False), samples=st.integers(2, 4))
def test_what_is_said_after_an_operation_is_true(name: str, rng: random.Random, samples: int) -> None:
    """On the batch itself, and on rows that were mapped before."""
    x = batch_of(rng, samples)
    look(OPERATIONS[name](rng, x), x, name)
    before = rng.choice(["order", "mask", "repeat_interleave", "permute", "flatten"])
    first = single(rng, OPERATIONS[before], x)
    middle = first(x)
    if middle.dim():
        look(after(first, OPERATIONS[name](rng, middle)), x, f"{name} after {before}")


@settings(max_examples=150)
@given(
    rng=st.randoms(use_true_random=False),
    samples=st.integers(2, 4),
    names=st.lists(st.sampled_from([*OPERATIONS]), min_size=2, max_size=6),
)
def test_what_is_said_after_many_operations_is_true(rng: random.Random, samples: int, names: list[str]) -> None:
    x = batch_of(rng, samples)

    def function(x: Tensor) -> Tensor:
        return x

    for k, name in enumerate(names):
        middle = function(x)
        if not middle.dim() or middle.numel() > 300:
            break
        function = after(function, single(rng, OPERATIONS[name], middle))
        look(function, x, " → ".join(names[: k + 1]))


X = torch.arange(1.0, 25).view(4, 3, 2).double()
MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]]).bool()
ORDER = torch.tensor([2, 0, 3, 1])
KNOWN: dict[str, tuple[Function, int, list[int] | None]] = {
    "a mask": (lambda x: x[MASK], 0, [0, 0, 1, 2, 2, 2, 3, 3]),
    "an order": (lambda x: x[ORDER], 0, [2, 0, 3, 1]),
    "index_select": (lambda x: x.index_select(0, ORDER), 0, [2, 0, 3, 1]),
    "a slice": (lambda x: x[1:3], 0, [1, 2]),
    "positions first": (lambda x: x.transpose(0, 1), 1, None),
    "a row per token, samples fastest": (lambda x: x.transpose(0, 1).flatten(0, 1), 0, [0, 1, 2, 3] * 3),
    "and back": (lambda x: x.transpose(0, 1).flatten(0, 1).view(3, 4, 2), 1, None),
    "a row per token": (lambda x: x.flatten(0, 1), 0, None),
    "tokens into padding": (lambda x: x.new_zeros(4, 3, 2).index_put((MASK,), x[MASK]), 0, None),
    "there and back": (lambda x: x[ORDER][ORDER.argsort()], 0, None),
    "repeat_interleave": (lambda x: x.repeat_interleave(torch.tensor([1, 0, 2, 1]), 0), 0, [0, 2, 2, 3]),
    "sorted rows": (lambda x: x[(-x[:, 0, 0]).argsort()], 0, [3, 2, 1, 0]),
    "nonzero": (lambda x: x[MASK.nonzero()[:, 0]], 0, [0, 0, 1, 2, 2, 2, 3, 3]),
    "one sample after another": (lambda x: torch.stack([one * 2 for one in x]), 0, None),
    "per-expert pieces": (lambda x: torch.cat(x[ORDER].split([1, 3])), 0, [2, 0, 3, 1]),
    "owners summed": (lambda x: x.new_zeros(4, 2).index_add_(0, MASK.nonzero()[:, 0], x[MASK]), 0, None),
    "the loss of each": (lambda x: functional.cross_entropy(x, x.argmax(1), reduction="none"), 0, None),
    "the loss of one": (
        lambda x: functional.cross_entropy(x[:, :, 0], x[:, 0, 0].long() * 0, reduction="none"),
        0,
        None,
    ),
    "piled up": (lambda x: torch.vstack([x, x * 2]), 0, [0, 1, 2, 3, 0, 1, 2, 3]),
    "side by side": (lambda x: torch.hstack([x, x * 2]), 0, None),
    "numbers side by side": (lambda x: torch.hstack([x[:, 0, 0], x[:, 1, 0]]), 0, [0, 1, 2, 3, 0, 1, 2, 3]),
    "in depth": (lambda x: torch.dstack([x, x * 2]), 0, None),
    "packed": (lambda x: _packed(x), 0, [2, 0, 3, 1, 2, 0, 3, 2]),
}


def _packed(x: Tensor) -> Any:
    return torch.nn.utils.rnn.pack_padded_sequence(x, MASK.sum(1), batch_first=True, enforce_sorted=False).data


@pytest.mark.parametrize("name", KNOWN)
def test_what_must_be_known_is_known(name: str) -> None:
    """ "Lost" is always true and no use: these are followed."""
    function, axis, of = KNOWN[name]
    (rows,) = look(function, X, name)
    assert rows is not None
    assert (rows.lost, rows.axis) == (None, axis)
    assert (None if rows.of is None else rows.of.tolist()) == of

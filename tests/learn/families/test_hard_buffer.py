"""The hard buffer against a sort of everything that was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forgetless import ForgetlessError
from forgetless.learn.families.hard_buffer import HardBuffer
from forgetless.model import batches

CPU = torch.device("cpu")
FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda numbers: numbers[:, None].float(),
    "tuple": lambda numbers: (numbers[:, None].float(), numbers),
    "list": lambda numbers: [numbers[:, None].float(), numbers],
    "dict": lambda numbers: {
        "input": numbers[:, None].float().repeat(1, 2),
        "labels": numbers,
        "a/b": numbers.double(),
    },
}


def numbers(batch: Any) -> list[int]:
    """Which samples a batch of such a form holds; all of its tensors must agree."""
    found = [tensor.reshape(len(tensor), -1)[:, 0].long().tolist() for tensor in batches.tensors(batch)]
    assert all(each == found[0] for each in found)
    return found[0]


LOSSES = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=8)


@settings(max_examples=60)
@given(LOSSES, st.integers(1, 7), st.sampled_from([*FORMS]), st.data())
def test_it_holds_the_first_of_all_that_was_seen_by_loss(
    stream: list[list[int]], size: int, form: str, data: Any
) -> None:
    """Of equal losses those that came first; also where it is stopped and goes on from what it kept."""
    buffer, seen = HardBuffer(size), 0
    cut = data.draw(st.integers(0, len(stream)))
    for step, losses in enumerate(stream):
        if step == cut:
            tree, buffer = buffer.tree(), HardBuffer(size)
            buffer.load(tree, CPU)
        buffer.add(FORMS[form](torch.arange(seen, seen + len(losses))), torch.tensor(losses).double())
        seen += len(losses)
        every = [loss for each in stream[: step + 1] for loss in each]
        expected = sorted(range(seen), key=lambda n: (-every[n], n))[:size]
        assert numbers(buffer.batch) == expected
        assert buffer.losses.tolist() == [every[n] for n in expected]
        assert len(buffer) == len(expected) <= size
        assert batches.form(buffer.batch) == batches.form(FORMS[form](torch.arange(1)))


def test_losses_that_are_seen_again_take_the_place_of_the_old_ones() -> None:
    buffer = HardBuffer(3)
    buffer.add(torch.arange(4), torch.tensor([4.0, 1.0, 3.0, 2.0]))
    assert numbers(buffer.batch) == [0, 2, 3]
    buffer.add(torch.tensor([7, 8]), torch.tensor([1.5, 0.5]), again=torch.tensor([1.0, 5.0, 0.1]))
    assert numbers(buffer.batch) == [2, 7, 0]
    assert buffer.losses.tolist() == [5.0, 1.5, 1.0]


def test_it_keeps_copies_without_a_graph() -> None:
    weight = torch.ones(1, requires_grad=True)
    x, losses = torch.arange(3.0), torch.tensor([1.0, 3.0, 2.0])
    buffer = HardBuffer(2)
    buffer.add(x * weight, losses * weight)
    batch, kept = x.clone(), losses.clone()
    buffer.add((batch + 10) * weight, kept * 0, again=buffer.losses * weight)
    x.zero_()
    losses.zero_()
    assert buffer.batch is not None
    assert not buffer.batch.requires_grad
    assert not buffer.losses.requires_grad
    assert buffer.batch.tolist() == [1.0, 2.0]
    plain = HardBuffer(2)
    plain.add(batch, kept)
    batch.zero_()
    assert plain.batch is not None
    assert plain.batch.tolist() == [1.0, 2.0]


def test_memory_is_that_of_its_samples_alone() -> None:
    """No view of the batches that they came with, nor of what was kept before."""
    buffer = HardBuffer(2)
    for step in range(20):
        buffer.add((torch.randn(50, 4), torch.arange(50)), torch.rand(50) + step)
        held = [*batches.tensors(buffer.batch), buffer.losses]
        assert [tensor.untyped_storage().nbytes() for tensor in held] == [2 * 4 * 4, 2 * 8, 2 * 4]


def test_nothing_is_kept_of_nothing() -> None:
    buffer = HardBuffer(2)
    assert (len(buffer), buffer.batch, buffer.tree()) == (0, None, {})
    other = HardBuffer(2)
    other.add(torch.arange(3), torch.rand(3))
    other.load(buffer.tree(), CPU)
    assert (len(other), other.batch) == (0, None)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("size", [0, -1, 2.0, None])
def test_a_size_that_is_none(size: Any) -> None:
    with pytest.raises(ForgetlessError, match=f"a buffer of hard samples holds one or more, not {size}"):
        HardBuffer(size)


@pytest.mark.parametrize(
    ("batch", "losses", "again", "sentence"),
    [
        (torch.arange(3), torch.rand(2), None, r"^a batch of 3 samples has losses \[2\].$"),
        (torch.arange(3), torch.rand(3, 1), None, r"^a batch of 3 samples has losses \[3, 1\].$"),
        (torch.arange(3), torch.rand(3), torch.rand(3), r"^the buffer holds 2 samples, and \[3\] losses are given.$"),
        ((torch.arange(3), torch.arange(3)), torch.rand(3), None, "the samples of a stream differ in their form"),
        ({"x": torch.arange(3)}, torch.rand(3), None, "the samples of a stream differ in their form"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    batch: Any, losses: Tensor, again: Tensor | None, sentence: str
) -> None:
    buffer = HardBuffer(2)
    buffer.add(torch.arange(5), torch.arange(5.0))
    with pytest.raises(ForgetlessError, match=sentence):
        buffer.add(batch, losses, again)
    assert numbers(buffer.batch) == [4, 3]
    assert buffer.losses.tolist() == [4.0, 3.0]


@pytest.mark.parametrize(
    "tree",
    [
        {"batch": {"*": torch.arange(2)}},
        {"losses": torch.rand(2)},
        {"batch": {"*": torch.arange(2)}, "losses": torch.rand(3)},
        {"batch": {"0": torch.arange(2), "1": torch.arange(3)}, "losses": torch.rand(2)},
    ],
)
def test_a_state_that_is_incomplete_is_refused_and_changes_nothing(tree: dict[str, Any]) -> None:
    buffer = HardBuffer(2)
    buffer.add(torch.arange(5), torch.arange(5.0))
    with pytest.raises(ForgetlessError, match="the hard samples in the state are incomplete"):
        buffer.load(tree, CPU)
    assert numbers(buffer.batch) == [4, 3]
    assert buffer.losses.tolist() == [4.0, 3.0]

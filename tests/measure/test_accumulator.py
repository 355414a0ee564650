"""`measure` and `Accumulator`, what all estimators share."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import forgetless
from exactness import unchanged, worst
from forgetless import ForgetlessError, Importance, Measurement
from forgetless.model.parameters import fingerprints


@pytest.mark.parametrize("until", [0.0, 1.0, -1.0, "soon"])
@pytest.mark.usefixtures("unchecked")
def test_until_that_is_no_share(until: object) -> None:
    with pytest.raises(ForgetlessError, match="until must be a relative error between 0 and 1"):
        forgetless.mas(nn.Linear(2, 2), torch.randn(3, 2), until=until, progress=False)  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_refused_and_infinite_buffers_are_not() -> None:
    model, x = nn.Linear(2, 2), torch.randn(3, 2)
    model.register_buffer("bound", torch.tensor([float("-inf")]))
    forgetless.mas(model, x, progress=False)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with unchanged(model), pytest.raises(ForgetlessError, match=r"the weights of 'weight' hold NaN or Inf"):
        forgetless.mas(model, x, progress=False)


def test_a_data_loader_is_read_no_further_than_needed() -> None:
    read = []

    def endless():  # type: ignore[no-untyped-def]
        generator = torch.Generator().manual_seed(0)
        while True:
            read.append(1)
            yield torch.randn(16, 2, generator=generator)

    torch.manual_seed(0)
    found = forgetless.mas(nn.Linear(2, 2), endless(), until=0.3, progress=False)
    assert found.count == 16 * len(read)


# ---- taking what was found, and going on


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)).double()


def stream(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 5, generator=generator).double() for size in sizes]


def taken(measurement: Measurement, batches: Sequence[Tensor], cuts: set[int]) -> Importance:
    """What all takes add up to: one after each number of batches in `cuts`, and one in the end."""
    found: list[Importance] = []
    for number, batch in enumerate(batches):
        if number in cuts:
            found.append(measurement.take())
        measurement.add(batch)
    found.append(measurement.take())
    return found[0].merge(*found[1:])


WHOLE: dict[str, Any] = {
    "mas": forgetless.mas,
    "local-mas": forgetless.local_mas,
    "fisher": forgetless.fisher,
    "output-curvature": forgetless.output_curvature,
}


@settings(max_examples=6)
@given(st.sampled_from([*WHOLE]), st.sets(st.integers(1, 4)), st.booleans(), st.none() | st.integers(1, 4))
def test_takes_add_up_to_one_measurement(estimator: str, cuts: set[int], inside: bool, batch_size: int | None) -> None:
    model, batches = network().train(), stream(4, 1, 6, 3, 2)
    expected = WHOLE[estimator](model, batches, progress=False)
    measurement = Measurement(model, estimator, batch_size=batch_size)
    with unchanged(model), measurement if inside else contextlib.nullcontext():
        found = taken(measurement, batches, cuts)
    assert worst(found, expected) <= 1e-13


@pytest.mark.parametrize("estimator", ["fisher", "output-curvature"])
@pytest.mark.parametrize("cuts", [set(), {1}, {1, 2}])
def test_samples_are_numbered_on_after_what_was_given(estimator: str, cuts: set[int]) -> None:
    """A draw belongs to a sample's number, and `into=` counts once."""
    model, (first, *rest) = network(), stream(5, 4, 6, 3)
    expected = WHOLE[estimator](model, [first, *rest], seed=2, progress=False)
    into = WHOLE[estimator](model, first, seed=2, progress=False)
    before = {name: total.clone() for name, total in into.sums.items()}
    found = taken(Measurement(model, estimator, into=into, seed=2), rest, cuts)
    assert worst(found, expected) <= 1e-13
    assert into.count == 5
    assert all(torch.equal(into.sums[name], total) for name, total in before.items())


def test_what_was_given_counts_in_the_first_take_alone() -> None:
    model, (first, second, third) = network(), stream(5, 4, 6)
    measurement = Measurement(model, into=forgetless.mas(model, first, progress=False))
    for batch, expected in ((second, [first, second]), (third, [third])):
        measurement.add(batch)
        assert worst(measurement.take(), forgetless.mas(model, expected, progress=False)) <= 1e-14


def test_what_was_taken_is_left_alone_by_what_comes_later() -> None:
    model, (first, second) = network(), stream(4, 6)
    measurement = Measurement(model)
    measurement.add(first)
    found = measurement.take()
    kept = {name: total.clone() for name, total in found.sums.items()}
    measurement.add(second)
    measurement.take()
    assert all(torch.equal(found.sums[name], total) for name, total in kept.items())
    assert found.count == 4


def step(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
    """What is warned of inside."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(each.message) for each in caught]


@pytest.mark.parametrize("inside", [False, True])
def test_weights_may_change_from_one_take_to_the_next(inside: bool) -> None:
    model = network()
    measurement = Measurement(model)
    with said() as warned, measurement if inside else contextlib.nullcontext():
        for batch in stream(4, 5, 6):
            measurement.add(batch)
            found = measurement.take()
            assert worst(found, forgetless.mas(model, batch, progress=False)) <= 1e-14
            assert found.weights == fingerprints(dict(model.named_parameters()))
            step(model)
    assert not [sentence for sentence in warned if "weights have changed" in sentence]


@pytest.mark.parametrize("moved", [False, True])
def test_weights_that_change_within_a_take_are_said_in_every_one(moved: bool) -> None:
    """Whether they also change across the take plays no part: what is taken names the weights it was measured at."""
    model, (first, second, third, last) = network(), stream(4, 5, 6, 3)
    measurement = Measurement(model)
    for begin, go_on in ((first, second), (third, last)):
        with said() as warned:
            measurement.add(begin)
        assert warned == []
        at = fingerprints(dict(model.named_parameters()))
        assert measurement.importance().weights == at
        step(model)
        with said() as warned:
            measurement.add(go_on)
        assert len(warned) == 1
        assert "the weights have changed since the first batch" in warned[0]
        measurement.take()
        if moved:
            step(model)


def test_nothing_to_take() -> None:
    model, (first, second) = network(), stream(4, 5)
    measurement = Measurement(model)
    with unchanged(model), pytest.raises(ForgetlessError, match="the data hold no samples"):
        measurement.take()
    measurement.add(first)
    measurement.take()
    with unchanged(model), pytest.raises(ForgetlessError, match="the data hold no samples"):
        measurement.take()
    measurement.add(second)
    assert worst(measurement.take(), forgetless.mas(model, second, progress=False)) <= 1e-14


def test_every_take_is_as_sure_as_its_own_samples_make_it() -> None:
    model, batches = network(), stream(*[16] * 40)
    measurement = Measurement(model, until=0.25)
    ends = []
    for number, batch in enumerate(batches):
        measurement.add(batch)
        if measurement.enough:
            found = measurement.take()
            expected = forgetless.mas(model, batches[ends[-1] if ends else 0 : number + 1], until=0.25, progress=False)
            assert found.error() == pytest.approx(expected.error())
            assert worst(found, expected) <= 1e-13
            assert not measurement.enough
            ends.append(number + 1)
    assert len(ends) > 1
    assert min(stop - start for start, stop in itertools.pairwise([0, *ends])) > 1


def test_what_was_learned_about_the_network_is_kept() -> None:
    """A batch costs as many passes after a take as without one, and fewer than at the start."""
    passes: list[int] = []

    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        passes.append(len(batch))
        found: Tensor = model(batch)
        return found

    costs = []
    for takes in (False, True):
        measurement = Measurement(network(), prove=False, forward=forward)
        for batch in stream(6, 6):
            passes.clear()
            measurement.add(batch)
            costs.append(len(passes))
            if takes:
                measurement.take()
    first, later, again, after = costs
    assert first == again
    assert 0 < later == after < first

"""`measure` and `Accumulator`, what all estimators share."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import forgetless
from exactness import unchanged, worst
from forgetless import ForgetlessError, Importance, Measurement


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


# ---- weights that move by intention, and going on in another process


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def stream(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 5, generator=generator) for size in sizes]


def step(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)


def bits(found: Importance) -> dict[str, Any]:
    """All that an importance says."""
    sums = {name: total.tolist() for name, total in found.sums.items()}
    return {**sums, "count": found.count, "by": found.estimator, "at": found.weights, "unused": found.unused}


WHOLE: dict[str, Any] = {
    "mas": forgetless.mas,
    "local-mas": forgetless.local_mas,
    "fisher": forgetless.fisher,
    "output-curvature": forgetless.output_curvature,
}


def added(measurement: Measurement, model: nn.Module, parts: Sequence[Tensor]) -> Measurement:
    """Measure each, and let the weights move."""
    for batch in parts:
        measurement.add(batch)
        step(model)
    return measurement


@pytest.mark.parametrize("estimator", ["mas", "fisher"])
def test_what_moves_by_intention_is_pooled_without_a_word(estimator: str) -> None:
    """And nothing is said of weights in the result, whatever they were."""
    model, parts, expected = network().double(), [batch.double() for batch in stream(4, 1, 6)], []
    for number, batch in enumerate(parts):
        first = None if not expected else expected[0]  # draws belong to the numbers of samples
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = WHOLE[estimator](model, batch, into=expected[-1] if number else first, progress=False)
        expected.append(dataclasses.replace(whole, weights={}))
        step(model)
    model, measurement = network().double(), None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measurement = added(Measurement(model, estimator, moving=True), model, parts)
    found = measurement.importance()
    assert worst(found, expected[-1]) <= 1e-14
    assert found.weights == {}
    with pytest.warns(UserWarning, match="the weights have changed since the first batch"):
        added(Measurement(model, estimator), model, parts)


def test_weights_that_moved_to_where_nothing_is_finite() -> None:
    model, (first, second) = network(), stream(4, 5)
    measurement = Measurement(model, moving=True)
    measurement.add(first)
    before = bits(measurement.importance())
    with torch.no_grad():
        model.get_parameter("3.weight").fill_(float("nan"))
    with unchanged(model), pytest.raises(ForgetlessError):
        measurement.add(second)
    assert bits(measurement.importance()) == before


@settings(max_examples=12)
@given(
    st.sampled_from([*WHOLE]),
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.none() | st.integers(1, 4),
    st.booleans(),
    st.data(),
)
def test_a_measurement_goes_on_in_another_process_with_the_same_bits(
    estimator: str, sizes: list[int], batch_size: int | None, moving: bool, data: Any
) -> None:
    parts, options = stream(*sizes), {"batch_size": batch_size, "moving": moving}
    cut = data.draw(st.integers(1, len(sizes) - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = network()
        expected = added(Measurement(model, estimator, **options), model, parts).importance()
        model = network()
        first = added(Measurement(model, estimator, **options), model, parts[:cut]).latest()
        kept = dataclasses.replace(first, sums={name: total.clone() for name, total in first.sums.items()})
        going_on = Measurement(model, estimator, **options)
        going_on.restore(kept)
        assert going_on.count == sum(sizes[:cut])
        found = added(going_on, model, parts[cut:]).importance()
    assert {**bits(found), "at": {}} == {**bits(expected), "at": {}}
    assert all(torch.equal(kept.sums[name], total) for name, total in first.sums.items())  # it is left alone


def test_it_goes_on_from_its_file(tmp_path: Path) -> None:
    model, (first, *rest) = network(), stream(4, 5, 6)
    measurement = added(Measurement(model, moving=True), model, [first])
    measurement.latest().save(tmp_path / "i")
    again = copy.deepcopy(model)
    going_on = Measurement(again, moving=True)
    going_on.restore(Importance.load(tmp_path / "i"))
    assert bits(added(going_on, again, rest).importance()) == bits(added(measurement, model, rest).importance())


def test_where_there_is_nothing_to_go_on_from() -> None:
    model, (first, second) = network(), stream(4, 5)
    found = forgetless.mas(model, first, progress=False)
    other = forgetless.mas(nn.Linear(5, 3), first, progress=False)
    begun = Measurement(model)
    begun.add(first)
    before = bits(begun.importance())
    with unchanged(model), pytest.raises(ForgetlessError, match="this measurement has begun"):
        begun.restore(found)
    assert bits(begun.importance()) == before
    for options, offered, sentence in (
        ({}, other, "the importance given .* does not fit the model"),
        (
            {"estimator": "fisher"},
            found,
            "an importance by 'mas' cannot be merged with one by 'fisher, sampled labels'",
        ),
        ({"into": found}, found, "restore\\(\\) is for a measurement without into= and until="),
        ({"until": 0.1}, found, "restore\\(\\) is for a measurement without into= and until="),
    ):
        measurement = Measurement(model, **options)
        with unchanged(model), pytest.raises(ForgetlessError, match=sentence):
            measurement.restore(offered)
        assert measurement.count == 0
        measurement.add(second)


def test_what_is_latest_changes_with_the_next_batch_and_a_copy_does_not() -> None:
    model, (first, second) = network(), stream(4, 5)
    measurement = Measurement(model)
    measurement.add(first)
    latest, copied = measurement.latest(), measurement.importance()
    before = {name: total.clone() for name, total in copied.sums.items()}
    measurement.add(second)
    assert all(torch.equal(copied.sums[name], total) for name, total in before.items())
    assert all(not torch.equal(latest.sums[name], total) for name, total in before.items())

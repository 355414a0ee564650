"""`forgetless.Measurement`: the same numbers batch by batch, and a model that is as it was after every one."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless
from exactness import unchanged, worst
from forgetless import ForgetlessError, Measurement


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))
    return model.double().train()


def stream(sizes: tuple[int, ...] = (4, 1, 7)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 5, generator=generator).double() for size in sizes]


def added(measurement: Measurement, batches: Any) -> forgetless.Importance:
    for batch in batches:
        measurement.add(batch)
    return measurement.importance()


@pytest.mark.parametrize("estimator", ["mas", "local-mas", "fisher"])
def test_adding_equals_measuring_all(estimator: str) -> None:
    whole = {"mas": forgetless.mas, "local-mas": forgetless.local_mas, "fisher": forgetless.fisher}[estimator]
    model = network()
    found = added(Measurement(model, estimator), stream())
    assert worst(found, whole(model, stream(), progress=False)) <= 1e-14  # type: ignore[operator]
    assert found.count == 12


def test_options_are_the_estimators_own() -> None:
    model, labels = network(), [torch.zeros(len(x), dtype=torch.int64) for x in stream()]
    data = list(zip(stream(), labels, strict=True))
    found = added(Measurement(model, "fisher", labels="empirical"), data)
    assert worst(found, forgetless.reference.fisher(model.eval(), data, labels="empirical")) <= 1e-10
    vector = added(Measurement(model, form="vector"), stream())
    assert worst(vector, forgetless.reference.mas(model, stream(), form="vector")) <= 1e-10


def test_the_model_is_as_it_was_after_every_batch_and_after_an_exception() -> None:
    model = network()
    measurement = Measurement(model)
    for batch in stream():
        with unchanged(model):
            assert measurement.add(batch) == len(batch)
    with unchanged(model), pytest.raises(ForgetlessError, match="NaN or Inf"):
        measurement.add(stream()[0] / 0)
    before = measurement.importance()
    assert worst(before, forgetless.mas(model, stream(), progress=False)) <= 1e-14  # the bad batch left nothing


def test_inside_a_block_the_model_stays_as_it_is_measured() -> None:
    model = network()
    with unchanged(model), Measurement(model) as measurement:
        for batch in stream():
            measurement.add(batch)
            assert not any(module.training for module in model.modules())
        with pytest.raises(ForgetlessError, match="entered already"):
            measurement.__enter__()
    assert worst(measurement.importance(), forgetless.mas(model, stream(), progress=False)) <= 1e-14


def test_a_block_that_raises_puts_the_model_back() -> None:
    model = network()

    def stopped() -> None:
        with Measurement(model) as measurement:
            measurement.add(stream()[0])
            raise ZeroDivisionError

    with unchanged(model), pytest.raises(ZeroDivisionError):
        stopped()


def test_changed_weights_are_said_once() -> None:
    model = network()
    measurement = Measurement(model)
    said = []
    for batch in stream((3, 3, 3)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            measurement.add(batch)
        said.append([str(each.message) for each in caught if "weights have changed" in str(each.message)])
        with torch.no_grad():
            model[0].weight.mul_(1.01)
    assert [len(each) for each in said] == [0, 1, 0]
    assert "'0.weight'" in said[1][0]


def test_parameters_that_were_frozen_meanwhile_are_refused() -> None:
    model = network()
    measurement = Measurement(model)
    measurement.add(stream()[0])
    model[4].weight.requires_grad_(False)  # which leaves the weights as they are
    with pytest.raises(ForgetlessError, match=r"'4.weight' can no longer be trained .* begin a new one"):
        measurement.add(stream()[0])


class Writing(nn.Module):
    """Scales what it is given, where it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x.mul_(2)).tanh()


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"until": 0.1}])
def test_a_model_that_writes_to_its_inputs_is_refused_and_they_are_left(options: dict[str, float]) -> None:
    x = torch.randn(6, 5)
    before = x.clone()
    with pytest.raises(ForgetlessError, match=r"^Writing writes to its inputs .* clone them in forward="):
        forgetless.mas(Writing(), x, progress=False, **options)
    assert torch.equal(x, before)
    forgetless.mas(Writing(), x, forward=lambda model, batch: model(batch.clone()), progress=False, **options)


def tabled(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["x"]).tanh() @ batch["table"].sum(0)[:, None]


def with_table(*sizes: int) -> list[dict[str, Tensor]]:
    table = torch.randn(4, 3)
    return [{"x": torch.randn(size, 5), "table": table} for size in sizes]


def test_a_table_in_the_batch_stays_whole_in_a_part_of_as_many_samples() -> None:
    model, data = nn.Linear(5, 3), with_table(8, 6)
    parts = [{"x": piece, "table": batch["table"]} for batch in data for piece in batch["x"].split(1)]
    expected = forgetless.mas(model, parts, forward=tabled, progress=False)
    for size in (4, 3, 1):
        found = forgetless.mas(model, data, forward=tabled, batch_size=size, progress=False)
        assert all(torch.allclose(found.sums[name], total) for name, total in expected.sums.items())


@pytest.mark.parametrize("sizes", [(6, 4), (4, 6)])
def test_a_table_that_may_be_the_samples_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ForgetlessError, match=r"now of shape \(4, 3\) for . samples, has as many rows .* give it in"):
        forgetless.mas(nn.Linear(5, 3), with_table(*sizes), forward=tabled, batch_size=1, progress=False)


class Two(nn.Module):
    """Takes vectors or sequences of them."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.time = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 3]`."""
        return self.lin(x) if x.dim() == 2 else self.time(x.transpose(0, 1)).transpose(0, 1).tanh().sum(1)


def test_a_batch_of_another_form_is_planned_for_anew() -> None:
    torch.manual_seed(0)
    model = Two().double()
    data = [*stream(), torch.randn(3, 4, 5).double(), *stream((2,))]
    found = added(Measurement(model), data)
    assert worst(found, forgetless.reference.mas(model.eval(), data)) <= 1e-10


def test_an_importance_is_a_snapshot() -> None:
    measurement = Measurement(network())
    early = added(measurement, stream()[:1])
    kept = {name: total.clone() for name, total in early.sums.items()}
    late = added(measurement, stream()[1:])
    assert all(torch.equal(early.sums[name], total) for name, total in kept.items())
    assert (early.count, late.count) == (4, 12)


def test_into_pools_and_is_left_alone() -> None:
    model = network()
    first = added(Measurement(model), stream()[:1])
    kept = {name: total.clone() for name, total in first.sums.items()}
    found = added(Measurement(model, into=first), stream()[1:])
    assert worst(found, forgetless.mas(model, stream(), progress=False)) <= 1e-14
    assert all(torch.equal(first.sums[name], total) for name, total in kept.items())


def test_until_says_when_it_is_enough() -> None:
    generator = torch.Generator().manual_seed(2)
    measurement = Measurement(network(), until=0.2)
    batches = 0
    while not measurement.enough and batches < 400:
        measurement.add(torch.randn(16, 5, generator=generator).double())
        batches += 1
    assert measurement.enough
    assert 8 <= batches < 400
    assert max(measurement.importance().error().values()) <= 0.2


def test_before_the_first_batch_there_is_nothing() -> None:
    with pytest.raises(ForgetlessError, match="the data hold no samples"):
        Measurement(network()).importance()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"estimator": "ewc"}, r"estimator must be one of .*'mas'.*, not 'ewc'"),
        ({"until": 2.0}, r"until must be a relative error between 0 and 1"),
        ({"exclude": "*"}, r"no|nothing|every|all"),
        ({"labels": "sampled"}, r"'mas' has no option 'labels'; it has '.*'"),
    ],
    ids=str,
)
def test_what_does_not_exist_is_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ForgetlessError, match=sentence):
        Measurement(network(), **arguments)

"""What any implementation of MAS must meet, whatever the network: the definition's own consequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

import forgetless
from exactness import error, worst
from forgetless import Importance
from forgetless.measure.engine.sweep import Sweep
from forgetless.measure.engine.target import Quantity
from forgetless.measure.engine.whole import Whole
from forgetless.model.network import Network

SAMPLES = 12


def network() -> nn.Module:
    """Convolution, batch norm, a tied use, an elementwise one: a bit of everything, without kinks."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(18, 4), nn.Tanh(), nn.Linear(4, 3))
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), head).double().eval()


def samples(count: int = SAMPLES) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 1, 5, 5).double()


def measured(data: Any, model: nn.Module | None = None, **options: Any) -> Importance:
    return forgetless.mas(network() if model is None else model, data, progress=False, **options)


def test_one_linear_layer() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(6, 4).double()
    f = model(x).detach()
    omega = measured(x, model).mean()
    assert error(omega["weight"], 2 * torch.einsum("nj,ni->ji", f.abs(), x.abs()) / 6) < 1e-14
    assert error(omega["bias"], 2 * f.abs().mean(0)) < 1e-14


@pytest.mark.parametrize("form", ["norm", "vector"])
def test_both_forms_equal_their_definition(form: Any) -> None:
    found = measured(samples(4), form=form)
    assert worst(found, forgetless.reference.mas(network(), samples(4), form=form)) < 1e-10


def test_the_vector_form_of_one_output_is_the_modulus_of_its_gradient() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1).double(), torch.randn(6, 4).double()
    assert error(measured(x, model, form="vector").mean()["weight"], x.abs().mean(0, keepdim=True)) < 1e-14


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network(), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.network(x)


@settings(max_examples=6)
@given(st.floats(0.01, 100) | st.floats(-100, -0.01))
def test_scaling_the_output_by_c_scales_importance_by_c_squared(c: float) -> None:
    plain, scaled = measured(samples(4)), measured(samples(4), Scaled(c))
    for name, total in plain.sums.items():
        assert error(scaled.sums[f"network.{name}"], c**2 * total) < 1e-11


WHOLE = [measured(samples())]


@settings(max_examples=8)
@given(st.permutations(range(SAMPLES)), st.sets(st.integers(1, SAMPLES - 1)), st.none() | st.integers(1, SAMPLES))
def test_any_split_of_any_order_pools_to_the_same_numbers(
    order: list[int], cuts: set[int], batch_size: int | None
) -> None:
    x, edges = samples()[order], [0, *sorted(cuts), SAMPLES]
    parts = [x[start:stop] for start, stop in itertools.pairwise(edges)]
    assert worst(measured(parts, batch_size=batch_size), WHOLE[0]) < 1e-11


PARTS = [measured(samples()[start:stop]) for start, stop in ((0, 1), (1, 4), (4, 9), (9, 12))]


@given(st.permutations(range(4)), st.integers(1, 3))
def test_merging_is_free_of_order_and_grouping(order: list[int], cut: int) -> None:
    first, *others = [PARTS[k] for k in order[:cut]]
    rest, *more = [PARTS[k] for k in order[cut:]]
    merged = first.merge(*others).merge(rest.merge(*more))
    assert worst(merged, WHOLE[0]) < 1e-13


def test_into_goes_on_and_changes_nothing() -> None:
    first = measured(samples()[:5])
    before = {name: total.clone() for name, total in first.sums.items()}
    assert worst(measured(samples()[5:], into=first), WHOLE[0]) < 1e-11
    assert first.count == 5
    assert all(torch.equal(first.sums[name], total) for name, total in before.items())


class Rows(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, n: int) -> tuple[Tensor, int]:
        if n >= SAMPLES:
            raise IndexError(n)
        return samples()[n], 0


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(samples())


@pytest.mark.parametrize(
    "data",
    [
        samples(),
        (samples(), torch.zeros(SAMPLES)),
        {"input": samples(), "labels": torch.zeros(SAMPLES)},
        [samples()[:1], samples()[1:]],
        [(samples()[:7], torch.zeros(7)), [samples()[7:], torch.zeros(5)]],
        (batch for batch in samples().split(5)),
        torch.utils.data.TensorDataset(samples()),
        Rows(),
        Stream(),
        torch.utils.data.DataLoader(Rows(), batch_size=5),
    ],
    ids=lambda data: type(data).__name__,
)
def test_whatever_the_data_come_as(data: Any) -> None:
    assert worst(measured(data), WHOLE[0]) < 1e-11


def endless(seed: int = 3) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(16, 1, 5, 5, generator=generator).double()


def test_a_pass_over_endless_data_stops_by_itself_and_says_how_sure_it_is() -> None:
    found = measured(endless(), until=0.15)
    assert max(found.error().values()) <= 0.15
    truth = measured(torch.randn(4000, 1, 5, 5, generator=torch.Generator().manual_seed(4)).double()).mean()
    for name, omega in found.mean().items():
        off = float((omega - truth[name]).norm() / truth[name].norm())
        assert off < 3 * found.error()[name] + 0.02, name


def test_a_pass_stops_when_its_top_is_sure() -> None:
    found = measured(endless(), until=lambda importance: importance.overlap(0.1) > 0.8)
    assert found.overlap(0.1) > 0.8


def test_goes_on_from_its_file(tmp_path: Path) -> None:
    rough = measured(endless(), until=0.3)
    rough.save(tmp_path / "i.safetensors")
    fine = measured(endless(4), until=0.1, into=Importance.load(tmp_path / "i.safetensors"))
    assert fine.count > rough.count
    assert max(fine.error().values()) <= 0.1
    assert max(fine.error().values()) < max(rough.error().values())


def test_says_when_the_data_end_before_it_is_sure() -> None:
    with pytest.warns(UserWarning, match=r"the data ended after 12 samples, before until= was reached: .* go on with"):
        measured(samples(), until=0.01, batch_size=4)


def test_what_takes_no_part_is_zero_and_reported_and_what_is_frozen_is_left_out() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 2), "idle": nn.Linear(2, 2), "frozen": nn.Linear(2, 2)})
    model["frozen"].requires_grad_(False)

    def forward(model: Any, x: Tensor) -> Tensor:
        return model["frozen"](model["used"](x))

    found = measured(torch.randn(5, 4), model, forward=forward)
    assert found.unused == ("idle.weight", "idle.bias")
    assert not bool(found.sums["idle.weight"].any())
    assert list(found.sums) == ["used.weight", "used.bias", "idle.weight", "idle.bias"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adds_up_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(40, 6)
    expected = measured(x, model)
    found = measured(x.to(dtype), model.to(dtype))
    assert {total.dtype for total in found.sums.values()} == {torch.float32}
    assert worst(found, expected) < (0.03 if dtype == torch.bfloat16 else 0.004)


def test_compiled_models_are_measured_through_their_original_modules() -> None:
    torch.manual_seed(0)
    backbone, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.randn(5, 4)
    expected = measured(x, backbone)
    compiled = torch.compile(backbone, backend="eager")
    found = forgetless.mas(compiled, x, progress=False)  # type: ignore[arg-type]
    assert list(found.sums) == list(expected.sums)
    assert worst(found, expected) < 1e-6
    inside = forgetless.mas(nn.Sequential(compiled), x, progress=False)  # type: ignore[arg-type]
    assert error(inside.sums["0.0.weight"], expected.sums["0.weight"]) < 1e-6
    backbone.compile(backend="eager")
    assert worst(measured(x, backbone), expected) < 1e-6


def test_a_compiled_function_inside_of_a_forward_runs_as_it_was_written() -> None:
    """Compiled, it would trace what measures with it, for a minute."""
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    class Layer(nn.Linear):
        forward = torch.compile(nn.Linear.forward, backend=backend)

    torch.manual_seed(0)
    inside, x = nn.Sequential(Layer(4, 4), nn.Tanh()), torch.randn(5, 4)
    torch.manual_seed(0)
    expected = measured(x, nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    assert worst(measured(x, inside), expected) < 1e-6
    assert not graphs


def swept() -> Sweep:
    model = network()
    quantity = Quantity(lambda module, batch: module(batch).square().sum(1))
    return Sweep(Whole(Network.of(model, ()), dict(model.named_parameters()), quantity), quantity)


def test_sums_that_were_put_back_are_added_to() -> None:
    first, second, x = swept(), swept(), samples()
    first.add(x[:5])
    found = first.result()
    kept = {name: total.clone() for name, total in found.sums.items()}
    second.restore(kept, found.count)
    assert second.result().count == 5
    for sweep in (first, second):
        sweep.add(x[5:])
    one, other = first.result(), second.result()
    assert one.count == other.count == second.count == SAMPLES
    for name, total in one.sums.items():
        assert torch.equal(total, other.sums[name])
        assert error(total, WHOLE[0].sums[name]) < 1e-12
        assert not torch.equal(kept[name], total)  # what was given is left alone

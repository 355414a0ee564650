"""`forgetless.output_curvature` against its definition with the same signs, and what one expects of a curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import forgetless
from exactness import error, errors, unchanged, worst
from forgetless import ForgetlessError, Measurement
from forgetless.measure import reference
from forgetless.model import batches

Form = Literal["sampled", "exact"]
FORMS: tuple[Form, ...] = ("sampled", "exact")


def regression() -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)), (torch.randn(8, 5), torch.randn(8, 4))


def maps() -> tuple[nn.Module, Any]:
    """Outputs with axes of their own, `[N, 3, 4, 4]`."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 3, 1))
    return model, {"input": torch.randn(4, 2, 6, 6), "labels": torch.randn(4, 3, 4, 4)}


class Tied(nn.Module):
    """An embedding that is used twice, and vectors at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.mix = nn.Embedding(5, 4), nn.Linear(4, 4)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"last_hidden_state": torch.tanh(self.mix(self.tokens(input_ids))) @ self.tokens.weight.T}


def embeddings() -> tuple[nn.Module, Any]:
    return Tied(), {"input_ids": torch.randint(0, 5, (3, 4))}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-6)], ids=str)
@pytest.mark.parametrize("build", [regression, maps, embeddings])
@pytest.mark.parametrize("form", FORMS)
def test_equals_its_definition(
    form: Form, build: Callable[[], tuple[nn.Module, Any]], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    model, batch = build()
    model = model.to(dtype).eval()
    batch = batches.mapped(batch, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    expected = reference.output_curvature(model, batch, form=form, seed=3)
    with unchanged(model):
        found = forgetless.output_curvature(model, batch, form=form, seed=3, progress=False)
    assert worst(found, expected) <= tolerance, errors(found, expected)
    assert found.estimator == expected.estimator == f"output curvature, {form}"


class Two(nn.Module):
    """Two outputs of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"mean": self.mean(x).tanh(), "spread": self.spread(x).exp()}


@pytest.mark.parametrize("form", FORMS)
def test_several_outputs_are_one_vector(form: Form) -> None:
    torch.manual_seed(0)
    model, x = Two().double().eval(), torch.randn(7, 5).double()
    options: dict[str, Any] = {"form": form, "output": ["spread", "mean"]}
    found = forgetless.output_curvature(model, x, progress=False, **options)
    assert worst(found, reference.output_curvature(model, x, **options)) < 1e-10
    assert all(bool((total > 0).any()) for total in found.sums.values())
    one = forgetless.output_curvature(model, x, form=form, output="mean", exclude="spread", progress=False)
    assert worst(one, reference.output_curvature(model, x, form=form, output="mean", exclude="spread")) < 1e-10


def test_signs_average_to_the_sum_over_outputs() -> None:
    torch.manual_seed(0)
    model, (x, _) = regression()
    expected = forgetless.output_curvature(model, x, form="exact", progress=False).mean()
    rows = x.repeat(20, 1)
    drawn = [forgetless.output_curvature(model, rows, seed=seed, progress=False).mean() for seed in range(12)]
    assert not torch.allclose(drawn[0]["0.weight"], drawn[1]["0.weight"], rtol=1e-3)
    for name, value in expected.items():
        found = torch.stack([omega[name] for omega in drawn])
        assert bool(((found.mean(0) - value).abs() < 6 * found.std(0) / 12**0.5 + 1e-5 * value.max()).all()), name


def test_one_linear_layer_has_the_squares_of_its_inputs_whatever_the_signs() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(6, 4).double()
    for form in FORMS:  # ∂F_o/∂W_ji is x_i where o = j
        omega = forgetless.output_curvature(model, x, form=form, progress=False).mean()
        assert error(omega["weight"], x.square().mean(0).expand(3, 4)) < 1e-13
        assert error(omega["bias"], torch.ones(3).double()) < 1e-13


def test_two_linear_layers() -> None:
    """`F = V W x`: `Ω_V = x̄_j²` with `x̄ = W x`, and `Ω_W = x_i² Σ_o V_oj²`."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False)).double(), torch.randn(6, 4)
    x = x.double()
    omega = forgetless.output_curvature(model, x, form="exact", progress=False).mean()
    inner, outer = model[0].weight.detach(), model[1].weight.detach()
    assert error(omega["1.weight"], (x @ inner.T).square().mean(0).expand(3, 5)) < 1e-13
    assert error(omega["0.weight"], torch.outer(outer.square().sum(0), x.square().mean(0))) < 1e-13


def test_it_is_the_second_derivative_of_half_the_squared_norm_where_the_network_is_linear_in_a_weight() -> None:
    """The last layer of any network: `½‖F‖²` is a parabola in each of its weights, and Ω its second derivative."""
    torch.manual_seed(0)
    model, (x, _) = regression()
    model, x = model.double(), x.double()
    omega = forgetless.output_curvature(model, x, form="exact", progress=False).mean()["2.weight"]
    step = 0.5

    def half(moved: float) -> float:
        with torch.no_grad():
            model[2].weight[1, 2] += moved
            value = float(model(x).square().sum(1).mean() / 2)
            model[2].weight[1, 2] -= moved
        return value

    assert (half(step) - 2 * half(0) + half(-step)) / step**2 == pytest.approx(float(omega[1, 2]), rel=1e-9)


@settings(max_examples=8)
@given(st.sampled_from(FORMS), st.integers(1, 9), st.integers(0, 8), st.integers(-(2**70), 2**70))
def test_a_sample_counts_the_same_in_any_split(form: Form, batch_size: int, cut: int, seed: int) -> None:
    torch.manual_seed(0)
    model, (x, _) = regression()
    model, x = model.double(), x.double()
    options: dict[str, Any] = {"form": form, "seed": seed, "progress": False}
    whole = forgetless.output_curvature(model, x, **options)
    if 0 < cut < 8:
        first = forgetless.output_curvature(model, x[:cut], batch_size=batch_size, **options)
        parts = forgetless.output_curvature(model, x[cut:], into=first, **options)
    else:
        parts = forgetless.output_curvature(model, x, batch_size=batch_size, **options)
    assert worst(parts, whole) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_batch_by_batch(form: Form) -> None:
    torch.manual_seed(0)
    model, (x, _) = regression()
    model, x = model.double(), x.double()
    measurement = Measurement(model, estimator="output-curvature", form=form, seed=5)
    for part in x.split(3):
        with unchanged(model):
            measurement.add(part)
    expected = forgetless.output_curvature(model, x, form=form, seed=5, progress=False)
    assert worst(measurement.importance(), expected) <= 1e-13


def test_masked_positions_count_for_nothing() -> None:
    torch.manual_seed(0)

    class Masked(Tied):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return super().forward(input_ids)

    model = Masked().double().eval()
    tokens, mask = torch.randint(0, 5, (3, 4)), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    other = torch.where(mask > 0, tokens, (tokens + 1) % 5)
    found = [
        forgetless.output_curvature(model, {"input_ids": ids, "attention_mask": mask}, form="exact", progress=False)
        for ids in (tokens, other)
    ]
    assert worst(found[0], found[1]) < 1e-12


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "expected"}, '^form must be "sampled" or "exact", not \'expected\'.$'),
        ({"forward": lambda model, batch: model(batch[0]).argmax(1)}, "the output is torch.int64, not a float tensor"),
        ({"forward": lambda model, batch: model(batch[0]).sum()}, r"the output has shape \(\) for \d+ samples"),
        ({"output": "logits"}, "the model's output has no tensor 'logits'"),
        ({"exclude": "*"}, "no trainable parameter to measure"),
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more, not 0"),
    ],
)
def test_refuses(options: dict[str, Any], sentence: str) -> None:
    model, batch = regression()
    with unchanged(model), pytest.raises(ForgetlessError, match=sentence):
        forgetless.output_curvature(model, batch, progress=False, **options)


def test_the_two_forms_do_not_mix() -> None:
    model, (x, _) = regression()
    exact = forgetless.output_curvature(model, x, form="exact", progress=False)
    with pytest.raises(ForgetlessError, match="'output curvature, exact' cannot be merged with one by 'output curv"):
        forgetless.output_curvature(model, x, into=exact, progress=False)


def test_an_option_that_it_does_not_have() -> None:
    with pytest.raises(ForgetlessError, match=r"'output-curvature' has no option 'labels'; it has 'form', 'seed'"):
        Measurement(regression()[0], "output-curvature", labels="sampled")

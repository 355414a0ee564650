"""`forgetless.fisher` against its definition with the same draws, and what it says to bad labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import forgetless
from exactness import errors, unchanged, worst
from forgetless import ForgetlessError
from forgetless.measure import draws, reference

Labels = Literal["sampled", "expected", "empirical"]
KINDS: tuple[Labels, ...] = ("sampled", "expected", "empirical")


def classifier() -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)), (torch.randn(8, 5), torch.randint(0, 4, (8,)))


def pictures() -> tuple[nn.Module, Any]:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3))
    return model, {"input": torch.randn(4, 2, 6, 6), "labels": torch.randint(0, 3, (4, 1))}


class Language(nn.Module):
    """A tied embedding and head: logits at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.mix = nn.Embedding(5, 4), nn.Linear(4, 4)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.tanh(self.mix(self.tokens(input_ids))) @ self.tokens.weight.T}


def language() -> tuple[nn.Module, Any]:
    labels = torch.randint(0, 5, (3, 4))
    labels[0, 2:], labels[1, 0] = -100, -100
    return Language(), {"input_ids": torch.randint(0, 5, (3, 4)), "labels": labels}


def binary() -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)), (torch.randn(8, 5), torch.randint(0, 2, (8,)))


def squeezed() -> tuple[nn.Module, Any]:
    return nn.Sequential(*binary()[0], nn.Flatten(0)), (torch.randn(8, 5), torch.randint(0, 2, (8, 1)))


def tagging() -> tuple[nn.Module, Any]:
    """One logit at every position."""
    labels = torch.randint(0, 2, (3, 4))
    labels[0, 2:] = -100
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)), (torch.randn(3, 4, 5), labels)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-6)], ids=str)
@pytest.mark.parametrize("build", [classifier, pictures, language, binary, squeezed, tagging])
@pytest.mark.parametrize("labels", KINDS)
def test_equals_its_definition(
    labels: Labels, build: Callable[[], tuple[nn.Module, Any]], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    model, batch = build()
    model = model.to(dtype).eval()
    batch = forgetless.model.batches.mapped(
        batch, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor
    )
    expected = reference.fisher(model, batch, labels=labels, seed=3)
    with unchanged(model):
        found = forgetless.fisher(model, batch, labels=labels, seed=3, progress=False)
    assert worst(found, expected) <= tolerance, errors(found, expected)
    assert found.estimator == f"fisher, {labels} labels"


@pytest.mark.parametrize("build", [classifier, language, tagging])
@pytest.mark.parametrize("labels", KINDS)
def test_the_modulus_equals_its_definition(labels: Labels, build: Callable[[], tuple[nn.Module, Any]]) -> None:
    torch.manual_seed(0)
    model, batch = build()
    model = model.double().eval()
    batch = forgetless.model.batches.mapped(batch, lambda x: x.double() if x.is_floating_point() else x)
    expected = reference.fisher(model, batch, labels=labels, form="modulus", seed=3)
    with unchanged(model):
        found = forgetless.fisher(model, batch, labels=labels, form="modulus", seed=3, progress=False)
    assert worst(found, expected) <= 1e-10, errors(found, expected)
    assert found.estimator == expected.estimator == f"modulus of log p, {labels} labels"


def test_draws_average_to_the_expectation() -> None:
    torch.manual_seed(0)
    model, (x, _) = classifier()
    expected = forgetless.fisher(model, x, labels="expected", progress=False).mean()
    drawn = [forgetless.fisher(model, x.repeat(20, 1), seed=seed, progress=False).mean() for seed in range(12)]
    for name, value in expected.items():
        found = torch.stack([omega[name] for omega in drawn])
        assert bool(((found.mean(0) - value).abs() < 6 * found.std(0) / 12**0.5 + 1e-9).all()), name


@settings(max_examples=6)
@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 2**64))
def test_a_sample_gets_the_same_label_in_any_split(batch_size: int, cut: int, seed: int) -> None:
    torch.manual_seed(0)
    model, (x, _) = classifier()
    whole = forgetless.fisher(model.double(), x.double(), seed=seed, progress=False)
    if 0 < cut < 8:
        first = forgetless.fisher(model, x.double()[:cut], seed=seed, batch_size=batch_size, progress=False)
        parts = forgetless.fisher(model, x.double()[cut:], seed=seed, into=first, progress=False)
    else:
        parts = forgetless.fisher(model, x.double(), seed=seed, batch_size=batch_size, progress=False)
    assert worst(parts, whole) < 1e-12


def test_draws_are_uniform_and_independent_of_torchs_generator() -> None:
    state = torch.get_rng_state()
    u = draws.uniform(7, np.arange(4000), 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert u.min() > 0
    assert u.max() < 1
    histogram = np.histogram(u, 10, (0, 1))[0]
    assert ((histogram - 2000) ** 2 / 2000).sum() < 27.9  # χ² with 9 degrees of freedom, 1 in 1,000
    assert np.abs(np.corrcoef(u.T) - np.eye(5)).max() < 0.08
    assert np.array_equal(draws.uniform(7, np.array([17]), 5)[0], u[17])


def test_the_empirical_one_vanishes_where_the_network_is_right_and_sure() -> None:
    torch.manual_seed(0)
    model, (x, _) = classifier()
    with torch.no_grad():
        model[2].weight.mul_(500)
    labels = model(x).argmax(1)
    empirical = forgetless.fisher(model, (x, labels), labels="empirical", progress=False).sums
    memory = forgetless.mas(model, x, progress=False).sums
    assert float(empirical["0.weight"].max()) < 1e-3 * float(memory["0.weight"].max())


BAD: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], dict[str, Any], str]] = {
    "an unknown kind": (classifier, {"labels": "true"}, 'labels must be "sampled", "expected" or "empirical", not'),
    "an unknown form": (classifier, {"form": "cube"}, 'form must be "square" or "modulus", not'),
    "no labels": (
        lambda: (nn.Linear(2, 3), torch.randn(4, 2)),
        {"labels": "empirical"},
        "a batch has no labels: they are the second of a tuple, or 'labels' of a dict.",
    ),
    "labels that are no indices": (
        lambda: (nn.Linear(2, 3), (torch.randn(4, 2), torch.randn(4))),
        {"labels": "empirical"},
        r"labels must be class indices \(integers\), not torch.float32",
    ),
    "labels of another shape": (
        lambda: (nn.Linear(2, 3), (torch.randn(4, 2), torch.zeros(4, 2, dtype=torch.long))),
        {"labels": "empirical"},
        r"the labels have shape \(\d, 2\) where the logits need",
    ),
    "a label out of range": (
        lambda: (nn.Linear(2, 3), (torch.randn(4, 2), torch.tensor([0, 2, 3, 1]))),
        {"labels": "empirical"},
        "label 3 of sample 2 is none of the 3 classes that the logits have, 0 to 2",
    ),
    "labels that are the inputs": (
        lambda: (Language(), {"input_ids": torch.tensor([[1, 2], [3, 4]]), "labels": torch.tensor([[1, 2], [3, 4]])}),
        {"labels": "empirical"},
        "shift them",
    ),
    "an output that is no logits": (
        lambda: (nn.Conv2d(1, 2, 1), torch.randn(2, 1, 3, 3)),
        {},
        r"needs the logits of classes, \[N, C\] or \[N, T, C\], and the output is \(\d, 2, 3, 3\).*forgetless.mas",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", BAD)
def test_refuses(what: str) -> None:
    build, options, sentence = BAD[what]
    model, batch = build()
    with unchanged(model), pytest.raises(ForgetlessError, match=sentence):
        forgetless.fisher(model, batch, progress=False, **options)


@pytest.mark.parametrize("labels", KINDS)
def test_one_logit_is_a_bernoulli_variable(labels: Labels) -> None:
    """`Σ_n p (1 − p) (∂z)²` is its expectation, and the same as that of the two logits (0, z)."""
    torch.manual_seed(0)
    model, (x, y) = binary()
    model, x = model.double(), x.double()
    two = nn.Sequential(*model, nn.ConstantPad1d((1, 0), 0.0))
    found = forgetless.fisher(model, (x, y), labels=labels, progress=False)
    assert all(bool((total > 0).any()) for total in found.sums.values())
    assert worst(found, forgetless.fisher(two, (x, y), labels=labels, progress=False)) < 1e-10
    if labels == "expected":
        total = torch.zeros_like(model[0].weight)
        for row in x:
            z = model(row[None]).squeeze()
            p = z.sigmoid().detach()
            total += p * (1 - p) * torch.autograd.grad(z, model[0].weight)[0].square()
        assert torch.allclose(found.sums["0.weight"], total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.int32, torch.uint8], ids=str)
def test_its_labels_are_those_of_binary_cross_entropy(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, (x, y) = binary()
    expected = forgetless.fisher(model, (x, y), labels="empirical", progress=False)
    found = forgetless.fisher(model, (x, y.to(dtype).view(-1, 1)), labels="empirical", progress=False)
    assert worst(found, expected) == 0
    with pytest.raises(ForgetlessError, match="label 2 of sample 3 is none of the 2 classes"):
        forgetless.fisher(model, (x, torch.tensor([0, 1, 0, 2, 1, 0, 1, 0])), labels="empirical", progress=False)
    with pytest.raises(ForgetlessError, match="labels must be class indices"):
        forgetless.fisher(model, (x, torch.rand(8)), labels="empirical", progress=False)


@pytest.mark.parametrize("labels", KINDS)
@pytest.mark.parametrize("make", [classifier, pictures, language], ids=lambda each: str(each.__name__))
def test_its_own_draws_do_not_slow_it_down(make: Callable[[], tuple[nn.Module, Any]], labels: Labels) -> None:
    torch.manual_seed(0)
    model, data = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that samples are measured one at a time
        forgetless.fisher(model, data, labels=labels, progress=False)

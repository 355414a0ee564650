"""What other codes compute, by their recipes written out; and by how much it is off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import forgetless
from exactness import unchanged, worst
from forgetless import ForgetlessError
from forgetless.learn.families.emulation import CODES, emulate


def network(dropout: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 4)]
    return nn.Sequential(*layers[:3], *([nn.Dropout(0.5)] if dropout else []), *layers[3:]).double().eval()


def samples(count: int = 50) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 6).double()


def by_hand(model: nn.Module, x: Tensor, code: str, batch_size: int) -> dict[str, Tensor]:
    """The recipe of a code, from its description."""
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    pieces = [x[k : k + batch_size] for k in range(0, len(x), batch_size)]
    pieces = [piece for piece in pieces if code != "facil" or len(piece) == batch_size]
    model.train(code in ("avalanche", "facil"))
    for piece in pieces:
        outputs = model(piece)
        squares = outputs.square().sum(1)
        value = {
            "authors": squares.sum(),
            "avalanche": squares.mean(),
            "facil": squares.sqrt().mean() * len(piece),
            "hsu": outputs.square().mean(),
        }[code]
        for (name, _), gradient in zip(
            model.named_parameters(), torch.autograd.grad(value, list(model.parameters())), strict=True
        ):
            sums[name] += gradient.abs()
    model.eval()
    count = len(pieces) if code in ("avalanche", "hsu") else len(pieces) * batch_size
    return {name: total / count for name, total in sums.items()}


@pytest.mark.parametrize("code", CODES)
def test_equals_the_recipe(code: Any) -> None:
    expected = by_hand(network(), samples(), code, 16)
    model, x = network(), samples()
    with unchanged(model):
        found = emulate(model, x, code, batch_size=16)
    for name, omega in found.mean().items():
        assert torch.allclose(omega, expected[name], rtol=1e-10, atol=1e-14), name
    assert found.estimator == f"emulated: {code}, 16 samples a batch"


@settings(max_examples=8)
@given(st.integers(2, 60))
def test_the_modulus_of_a_batch_is_at_most_that_of_its_samples(batch_size: int) -> None:
    exact = forgetless.mas(network(), samples(), progress=False).sums
    for name, total in emulate(network(), samples(), batch_size=batch_size).sums.items():
        assert bool((total <= exact[name] + 1e-9 * exact[name].max()).all()), name


def test_batches_of_one_are_exact_and_larger_ones_lose() -> None:
    model, x = network(), samples(200)
    exact = forgetless.mas(model, x, progress=False)
    one = emulate(model, x, batch_size=1)
    assert max(float((one.sums[n] - t).abs().max() / t.max()) for n, t in exact.sums.items()) < 1e-12
    sizes, ranks = [], []
    for batch_size in (1, 20, 200):
        found = emulate(model, x, batch_size=batch_size).sums
        sizes.append(sum(float(t.sum()) for t in found.values()) / sum(float(t.sum()) for t in exact.sums.values()))
        ranks.append(_rank_correlation(found["0.weight"], exact.sums["0.weight"]))
    assert sizes[0] == pytest.approx(1) and sizes[0] > sizes[1] > sizes[2]  # noqa: PT018
    assert ranks[0] == pytest.approx(1) and ranks[0] > ranks[1] > ranks[2]  # noqa: PT018


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([values.flatten().argsort().argsort().double() for values in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def test_the_norm_without_its_square_is_smaller_in_about_the_same_order() -> None:
    model, x = network(), samples()
    with torch.no_grad():
        model[-1].weight.mul_(20)
    squared = emulate(model, x, batch_size=1).sums["0.weight"]
    plain = emulate(model, x, batch_size=1, norm="unsquared").sums["0.weight"]
    assert float(plain.sum()) < 0.9 * float(squared.sum())
    assert _rank_correlation(squared, plain) > 0.9


def test_train_mode_couples_samples_and_draws_and_leaves_no_trace() -> None:
    model, x = network(dropout=True), samples()
    with unchanged(model):
        first = emulate(model, x, "avalanche", batch_size=50)
        second = emulate(model, x, "avalanche", batch_size=50)
        calm = emulate(model, x, "avalanche", batch_size=50, train=False)
    assert worst(first, second) == 0  # the same state of the generators, put back
    torch.manual_seed(5)
    assert worst(emulate(model, x, "avalanche", batch_size=50), first) > 0
    assert worst(calm, first) > 0


def test_a_short_last_batch_counts_as_the_code_has_it() -> None:
    model, x = network(), samples(20)
    assert emulate(model, x, "authors", batch_size=16).count == 32
    assert emulate(model, x, "facil", batch_size=16).count == 16
    assert emulate(model, x, "avalanche", batch_size=16).count == 2
    assert emulate(model, x, batch_size=16).count == 20


def test_never_merges_with_what_is_exact() -> None:
    model, x = network(), samples()
    with pytest.raises(ForgetlessError, match="cannot be merged"):
        forgetless.mas(model, x, progress=False).merge(emulate(model, x))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"code": "mammoth"}, "there is no recipe of 'mammoth'; there are 'authors', 'avalanche', 'facil', 'hsu'"),
        ({"norm": "l1"}, 'norm must be "squared" or "unsquared", not \'l1\''),
        ({"reduction": "max"}, 'reduction must be "sum", "mean" or "all", not \'max\''),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"code": "facil", "batch_size": 64}, r"the data hold no \(full\) batch"),
        ({"exclude": "*"}, "no trainable parameter to measure"),
    ],
)
def test_refuses(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ForgetlessError, match=sentence):
        emulate(network(), samples(), **options)

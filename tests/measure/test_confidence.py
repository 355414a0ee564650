"""How sure an importance says it is, against what is known: many repeated measurements."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.measure.confidence import Confidence


def measured(samples: Tensor, sizes: list[int]) -> tuple[Confidence, dict[str, Tensor], int]:
    """Batches of these sizes of |g_n|, `[N, W]`."""
    confidence = Confidence()
    for batch in samples[: sum(sizes)].split(sizes):
        confidence.add({"w": batch.sum(0)}, len(batch))
    return confidence, {"w": samples[: sum(sizes)].sum(0)}, sum(sizes)


def drawn(seed: int, samples: int, width: int = 20) -> Tensor:
    """Positive numbers with a mean that differs between weights, as |g_n| are."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.1, 2, width, dtype=torch.float64)
    return scale * torch.empty(samples, width, dtype=torch.float64).exponential_(generator=generator)


def test_with_batches_of_one_it_is_the_textbooks_standard_error() -> None:
    samples = drawn(0, 50)
    confidence, sums, count = measured(samples, [1] * 50)
    expected = float(samples.var(0).sum().div(50).sqrt() / samples.mean(0).norm())
    assert confidence.error(sums, count)["w"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sizes", [[8] * 12, [3, 17, 8, 5, 20, 4, 9, 11, 6, 13]], ids=["equal", "unequal"])
def test_the_variance_has_no_bias(sizes: list[int]) -> None:
    squares = []
    for seed in range(300):
        confidence, sums, count = measured(drawn(seed, sum(sizes)), sizes)
        squares.append((confidence.error(sums, count)["w"] * float(sums["w"].norm()) / count) ** 2)
    scale = torch.linspace(0.1, 2, 20, dtype=torch.float64)
    truth = float(scale.square().sum()) / sum(sizes)  # the variance of an exponential number is its mean's square
    assert sum(squares) / len(squares) == pytest.approx(truth, rel=0.06)


def test_the_overlap_is_about_what_repeating_gives() -> None:
    truth = torch.linspace(0.1, 2, 20) > 1.89  # the top two of 20
    promised, kept = [], []
    for seed in range(100):
        confidence, sums, count = measured(drawn(seed, 64), [4] * 16)
        promised.append(confidence.overlap(sums, count, 0.1))
        best = torch.zeros(20, dtype=torch.bool)
        best[sums["w"].topk(2).indices] = True
        kept.append(float((best & truth).sum()) / 2)
    assert sum(promised) / 100 == pytest.approx(sum(kept) / 100, abs=0.08)


@given(cut=st.integers(1, 9), seed=st.integers(0, 50))
def test_pooling_is_as_one_pass(cut: int, seed: int) -> None:
    samples = drawn(seed, 40)
    whole, sums, count = measured(samples, [4] * 10)
    first, _, _ = measured(samples[: 4 * cut], [4] * cut)
    second, _, _ = measured(samples[4 * cut :], [4] * (10 - cut))
    assert first.merge(second).error(sums, count)["w"] == pytest.approx(whole.error(sums, count)["w"], rel=1e-9)


def test_nothing_is_sure_after_one_batch_and_zero_is_zero() -> None:
    confidence, sums, count = measured(drawn(0, 4), [4])
    assert confidence.error(sums, count) == {"w": math.inf}
    assert Confidence().error({"w": torch.zeros(3)}, 4) == {"w": 0.0}
    with pytest.raises(ForgetlessError) as raised:
        confidence.overlap(sums, count, 0.1)
    assert str(raised.value) == "an overlap needs at least two batches, not 1: measure with a smaller batch_size."


@pytest.mark.parametrize("top", [0.0, 1.0, -0.5, math.nan])
def test_a_top_that_is_no_share(top: float) -> None:
    confidence, sums, count = measured(drawn(0, 8), [4, 4])
    with pytest.raises(ForgetlessError) as raised:
        confidence.overlap(sums, count, top)
    assert str(raised.value) == f"top must be a share of the weights between 0 and 1, not {top!r}."


def test_a_state_that_is_damaged() -> None:
    confidence, sums, _ = measured(drawn(0, 8), [4, 4])
    plain, halves = confidence.state()
    assert Confidence.restored(plain, {**sums, **halves}) == confidence
    with pytest.raises(ForgetlessError, match="its header does not say how sure it is"):
        Confidence.restored({"squares": 3}, {**sums, **halves})
    with pytest.raises(ForgetlessError, match="its header and its tensors speak of other parameters"):
        Confidence.restored(plain, {"v": sums["w"], **halves})

"""A sample of a batch that is measured alone as well: what neither the check of two nor provenance can see is found."""

from __future__ import annotations

import time
import warnings

import pytest
import torch
from torch import Tensor, nn

import forgetless
from exactness import worst
from forgetless.measure import reference
from forgetless.measure.engine.proof import Proof
from forgetless.measure.kernels.parts.terms import Outer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that two samples do not show: in larger batches every gradient is made of its neighbor's input."""
    whole = Outer.modulus_sum
    single = Outer.sample

    def faulty(term: Outer) -> Outer:
        return Outer(term.d, term.a.roll(1, 0), term.shape) if term.samples > 2 else term

    def modulus_sum(self: Outer, power: int, into: Tensor | None = None) -> Tensor:
        return whole(faulty(self), power, into)

    monkeypatch.setattr(Outer, "modulus_sum", modulus_sum)
    monkeypatch.setattr(Outer, "sample", lambda self, n: single(faulty(self), n))


@pytest.mark.usefixtures("shifted")
def test_a_fault_of_larger_batches_is_found_and_made_good() -> None:
    model, x = network(), torch.randn(6, 4).double()
    with pytest.warns(UserWarning, match="a sample of a later batch came out differently alone") as said:
        found = forgetless.mas(model, x, progress=False)
    assert len(said) == 1
    assert worst(found, reference.mas(model, x)) < 1e-12


@pytest.mark.usefixtures("shifted")
def test_switched_off_by_name_it_is_not_found() -> None:
    model, x = network(), torch.randn(6, 4).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = forgetless.mas(model, x, prove=False, progress=False)
    assert worst(found, reference.mas(model, x)) > 1e-3


def test_a_sound_network_is_not_accused() -> None:
    model, x = network().float(), torch.randn(600, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forgetless.mas(model, x, batch_size=50, progress=False)


def test_the_first_piece_is_proven_and_later_ones_within_the_share() -> None:
    proof = Proof()
    assert proof.chosen(1) is None
    assert proof.chosen(5) in range(5)
    proof.proofs, proof._spent = 1, 1.0
    proof.took(60.0)
    assert proof.chosen(5) is None  # two proofs would be 2 of 60 seconds
    proof.took(10.0)
    assert proof.chosen(5) in range(5)


def test_all_that_a_proof_costs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy to return to, the sketches in the pass, and the sample alone: each takes one second here."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    model, x = network(), torch.randn(12, 4).double()
    measurement = forgetless.Measurement(model)
    measurement.add(x)
    passes = measurement._sweep.passes
    parameters = len(list(model.parameters()))
    assert passes._proof._spent == 1 + parameters + 1  # a tick for the copy, one for each sketch, one for the sample


def test_when_there_is_time_for_a_proof_does_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network().float(), torch.randn(64, 4)
    without = forgetless.mas(model, x, batch_size=8, prove=False, progress=False)
    monkeypatch.setattr("forgetless.measure.engine.proof.SHARE", 1e9)
    proven = forgetless.mas(model, x, batch_size=8, progress=False)
    assert all(torch.equal(proven.sums[name], total) for name, total in without.sums.items())

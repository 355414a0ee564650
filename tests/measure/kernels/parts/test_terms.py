import pytest
import torch
from torch import Tensor, nn

import forgetless
from forgetless.measure.kernels.parts import native, terms
from forgetless.measure.kernels.parts.terms import Dense, Lookups, Mixture, Outer, Tied, combined


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def slow(term: terms.Term, power: int) -> Tensor:
    return sum((term.sample(n).double().abs().pow(power) for n in range(term.samples)), torch.zeros(()).double())


def assert_close(found: Tensor, expected: Tensor):
    assert float((found.double() - expected.double()).abs().max()) <= 5e-6 * float(expected.abs().max())


def outer(samples=5, positions=7, outputs=40, inputs=30) -> Outer:
    shape = torch.Size((outputs, inputs))
    return Outer(torch.randn(samples, positions, outputs), torch.randn(samples, positions, inputs), shape)


def lookups(samples=5, positions=7, rows=40, width=30, padding=-1) -> Lookups:
    ids = torch.randint(0, 6, (samples, positions))  # few, so that ids repeat inside a sample
    return Lookups(torch.randn(samples, positions, width), ids, torch.Size((rows, width)), padding)


MAKERS = {
    "outer": outer,
    "outer, one position": lambda: outer(positions=1),
    "outer, no position": lambda: outer(positions=0),
    "lookups": lookups,
    "lookups with padding": lambda: lookups(padding=2),
    "dense": lambda: Dense(torch.randn(5, 40, 30)),
    "tied": lambda: Tied(outer(), lookups()),
    "mixture": lambda: Mixture((outer(), lookups())),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("name", MAKERS)
def test_sums_are_those_of_the_samples_and_are_added(name, power, compiled, monkeypatch):
    monkeypatch.setattr(terms, "_TILE", 700)  # several tiles, and several samples in none, one or all of them
    monkeypatch.setattr(terms, "_ROWS", 8)
    monkeypatch.setattr(native, "_switched_on", compiled)
    term = MAKERS[name]()
    expected = slow(term, power)
    assert_close(term.modulus_sum(power), expected)
    into = torch.ones(40, 30)
    assert term.modulus_sum(power, into) is into
    assert_close(into, expected + 1)


@pytest.mark.parametrize("tile", [1, 1200, 6000, 1 << 20])
def test_every_tile_gives_the_same(tile, monkeypatch):
    monkeypatch.setattr(terms, "_TILE", tile)
    monkeypatch.setattr(terms, "_ROWS", 1)
    term = outer()
    with native.switched_off():
        assert_close(term.modulus_sum(1), slow(term, 1))


def test_a_sum_of_another_layout_or_dtype_is_added_to():
    term = outer()
    for into in (torch.zeros(30, 40).T, torch.zeros(40, 30, dtype=torch.float64)):
        assert term.modulus_sum(1, into) is into
        assert_close(into, slow(term, 1))


def test_a_product_and_lookups_of_one_matrix_are_tied():
    parts = [lookups(), outer(), lookups(), outer()]
    found = combined(parts)
    assert isinstance(found, Tied)
    assert_close(found.modulus_sum(1), slow(Mixture(tuple(parts)), 1))
    assert isinstance(combined([lookups(), lookups()]), Lookups)
    assert isinstance(combined([lookups(padding=1), lookups(), outer()]), Mixture)


def test_the_compiled_kernel_is_switched_off_and_on_again():
    before = native.available()
    with native.switched_off():
        assert not native.available()
        assert not native.serves(torch.zeros(1))
    assert native.available() == before


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2).tanh()
        return x @ self.table.weight.T


@pytest.mark.parametrize("make", [Words, lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 2))])
def test_both_paths_measure_the_same(make):
    model = make()
    x = torch.randint(50, (6, 9)) if isinstance(model, Words) else torch.randn(6, 3, 9, 9)
    with_kernel = forgetless.mas(model, x, progress=False).sums
    with native.switched_off():
        without = forgetless.mas(model, x, progress=False).sums
    for name, total in without.items():
        assert_close(with_kernel[name], total)


def test_a_hook_of_somebody_elses_that_waits_for_gradients_is_not_called():
    model = nn.Linear(4, 3)
    called = []
    model.weight.register_post_accumulate_grad_hook(called.append)
    forgetless.mas(model, torch.randn(5, 4), progress=False)
    assert called == []
    assert model.weight.grad is None

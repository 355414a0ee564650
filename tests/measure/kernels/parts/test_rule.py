"""`Samples`: where the rows of each sample are, and rows that are filled in."""

from __future__ import annotations

import torch

from forgetless.measure.kernels.parts.rule import Samples, mark_of_samples, of_samples


def test_rows() -> None:
    x = torch.arange(12.0).view(6, 2)
    assert Samples(3).rows(x, 1)[1].tolist() == x[2:4].tolist()
    assert Samples(3, inner=True).rows(x, 1)[1].tolist() == x[[1, 4]].tolist()
    wide = x.view(2, 3, 2)
    assert Samples(3, 1).rows(wide, 1)[1].tolist() == wide[:, 1].tolist()


def test_padding_puts_every_row_to_its_sample() -> None:
    samples = Samples(4, 0, of=torch.tensor([2, 0, 2, 1, 2]))
    x = torch.arange(1.0, 6)
    assert samples.padded(x, 0).view(4, 3).tolist() == [[2, 0, 0], [4, 0, 0], [1, 3, 5], [0, 0, 0]]
    repeated = samples.padded(x).view(4, 3)  # any row will do where there is no gradient
    assert (repeated[2].tolist(), repeated[0, 0].item()) == ([1, 3, 5], 2)


def test_no_rows_at_all() -> None:
    samples = Samples(2, 0, of=torch.zeros(0, dtype=torch.int64))
    assert samples.padded(torch.zeros(0, 3)).tolist() == torch.zeros(2, 3).tolist()


def test_fit_and_marks() -> None:
    assert Samples(3).fit(torch.zeros(6, 1))
    assert not Samples(3).fit(torch.zeros(5, 1))
    assert not Samples(3, 1).fit(torch.zeros(3))
    assert Samples(3, 0, of=torch.zeros(5, dtype=torch.int64)).fit(torch.zeros(5))
    x = torch.zeros(1)
    assert not of_samples(x)
    mark_of_samples(x)
    assert of_samples(x)

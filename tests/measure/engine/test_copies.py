"""Several scalars a sample, written as rows."""

from __future__ import annotations

import torch
from torch import nn

from forgetless.measure.engine.copies import Copies


def test_every_scalar_of_every_sample_is_a_row() -> None:
    model, x = nn.Linear(3, 4), torch.randn(5, 3)
    copies = Copies(lambda module, batch: module(batch))
    rows = list(copies.pieces(x, 4, 10))
    assert [len(each["which"]) for each in rows] == [10, 10]
    found = torch.zeros(5, 4)
    for each in rows:
        for sample, which, value in zip(each["samples"], each["which"], copies.scalar(model, each), strict=True):
            n = int((x == sample).all(1).nonzero())
            assert found[n, which] == 0
            found[n, which] = value.detach()
    torch.testing.assert_close(found, model(x).detach())


def test_what_is_tried_first_are_the_largest() -> None:
    model, x = nn.Linear(3, 4), torch.randn(5, 3)
    count, rows = Copies(lambda module, batch: module(batch)).look(model, x)
    assert count == 4
    assert rows["which"].tolist() == model(x[:2]).abs().argmax(1).tolist()
    _, alone = Copies(lambda module, batch: module(batch)).look(model, x[:1])
    assert len(alone["samples"]) == 2
    assert len({*alone["which"].tolist()}) == 2

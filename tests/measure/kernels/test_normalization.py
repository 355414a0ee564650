"""Norms whose terms are summed a few samples at a time: the pieces make the same sums as one sample after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import forgetless
from exactness import worst
from forgetless.measure import reference
from forgetless.measure.kernels import normalization


class Folded(nn.Module):
    """A norm that sees the positions of all samples as so many rows, `[N·T, …]`."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, …]` in the same shape."""
        folded: Tensor = self.norm(x.flatten(0, 1))
        return folded.view_as(x)


def held(norm: nn.Module) -> nn.Module:
    """The norm with statistics that are not the first ones."""
    for buffer in (norm.running_mean, norm.running_var):
        buffer.uniform_(0.5, 2)
    return norm


CASES = {
    "batch norm": (lambda: held(nn.BatchNorm2d(4)), (7, 4, 3, 2)),
    "batch norm without positions": (lambda: held(nn.BatchNorm1d(4)), (7, 4)),
    "batch norm, folded": (lambda: Folded(held(nn.BatchNorm1d(4))), (7, 3, 4)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (7, 4, 3, 2)),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), (7, 4, 3, 2)),
    "layer norm": (lambda: nn.LayerNorm(5), (7, 3, 5)),
    "layer norm, folded": (lambda: Folded(nn.LayerNorm(5)), (7, 3, 5)),
    "layer norm over two axes": (lambda: nn.LayerNorm((3, 5)), (7, 3, 5)),
    "RMS norm": (lambda: nn.RMSNorm(5), (7, 3, 5)),
}


@pytest.mark.parametrize("piece", [1, 40, 1 << 18])
@pytest.mark.parametrize("case", CASES)
def test_pieces(case: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalization, "_PIECE", piece)
    make, shape = CASES[case]
    torch.manual_seed(0)
    model = nn.Sequential(make(), nn.Flatten(), nn.Linear(torch.Size(shape[1:]).numel(), 3)).double()
    for parameter in model[0].parameters():
        nn.init.normal_(parameter)
    model.eval()
    x = torch.randn(shape, dtype=torch.float64)
    found = forgetless.mas(model, x, progress=False)
    assert worst(found, reference.mas(model, x)) < 1e-12


def test_layer_norm_under_autocast() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    x = torch.randn(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = forgetless.mas(model, x, progress=False)
    assert worst(found, reference.mas(model, x)) < 5e-2  # of bfloat16's three digits

"""Whether padding changes what is computed for a document of a packed batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgetless.measure.engine.padding import padding_changes
from forgetless.measure.engine.target import Target
from forgetless.model.outputs import Output


class Tokens(nn.Module):
    """Every token on its own, or with the mean of its row."""

    def __init__(self, mixing: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.mixing = nn.Embedding(9, 4), mixing

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        found: Tensor = self.words(input_ids)
        return found + found.mean(1, keepdim=True) if self.mixing else found


def packed(*lengths: int) -> dict[str, Tensor]:
    ids = torch.arange(sum(lengths))[None] % 9
    return {"input_ids": ids, "position_ids": torch.cat([torch.arange(n) for n in lengths])[None]}


@pytest.mark.parametrize(
    ("mixing", "batch", "expected"),
    [
        (False, packed(4, 3, 8), False),
        (True, packed(4, 3, 8), True),
        (True, packed(4, 4), None),  # none is padded
        (True, packed(8, 3), None),  # they do not go together
        (True, {"input_ids": torch.ones(2, 3, dtype=torch.long)}, None),  # not packed
    ],
)
def test_a_padded_document_is_compared_with_itself_alone(mixing: bool, batch: Any, expected: bool | None) -> None:
    model = Tokens(mixing)
    seen = []

    def rows(row: Any, numbers: Tensor) -> Any:
        seen.append(numbers.tolist())
        return row

    target = Target(model, dict(model.named_parameters()), Output().squared_norms)
    assert padding_changes(target, batch, rows) is expected
    assert seen == ([] if expected is None else [[1], [1]])  # the one with the most padding, twice

"""Packed rows: which positions are which document's, and the rows that are made of them."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.model import batches, documents

LENGTHS = [3, 2, 4, 1]  # in a row of 10
IDS = torch.arange(10, 20)[None]
EDGES = torch.tensor([0, 3, 5, 9, 10])
TOLD: dict[str, dict[str, Any]] = {
    "position_ids": {"position_ids": torch.cat([torch.arange(n) for n in LENGTHS])[None]},
    "position_ids that start at 2": {"position_ids": torch.cat([torch.arange(n) + 2 for n in LENGTHS])[None]},
    "seq_idx": {"seq_idx": torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))[None]},
    "cu_seq_lens": {"cu_seq_lens_q": EDGES, "cu_seq_lens_k": EDGES, "max_length_q": 4, "max_length_k": 4},
    "seq_lengths": {"seq_lengths": torch.tensor([LENGTHS])},
    "a list of seq_lengths": {"seq_lengths": [LENGTHS]},
}


def texts(batch: Any, full: float = 0.75) -> dict[int, list[int]]:
    """The tokens of every document, by its number."""
    found = {}
    for piece, numbers in documents.unpacked(batch, full):
        assert numbers is not None
        for n, row, mask in zip(numbers.tolist(), piece["input_ids"], piece["attention_mask"], strict=True):
            assert n not in found
            found[n] = row[mask > 0].tolist()
            assert mask.tolist() == sorted(mask.tolist(), reverse=True)  # padded on the right
    return found


@pytest.mark.parametrize("by", TOLD)
def test_where_a_document_begins(by: str) -> None:
    mask = torch.ones_like(IDS)
    expected = {0: [10, 11, 12], 1: [13, 14], 2: [15, 16, 17, 18], 3: [19]}
    assert texts({"input_ids": IDS, **TOLD[by], "attention_mask": mask}) == expected


@pytest.mark.parametrize("by", TOLD)
def test_one_token_at_the_end_of_a_row_is_padding_where_nothing_tells_it_apart(by: str) -> None:
    found = texts({"input_ids": IDS, **TOLD[by]})
    assert (3 in found) == ("seq_lengths" in by)  # only lengths and masks tell


def test_positions_outside_of_documents_are_nobodys() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 0, 0, 0, 0]])
    assert texts({"input_ids": IDS, "position_ids": positions}) == {0: [10, 11, 12], 1: [13, 14]}
    assert texts({"input_ids": IDS, "cu_seq_lens_q": torch.tensor([0, 3, 5])}) == {0: [10, 11, 12], 1: [13, 14]}
    assert texts({"input_ids": IDS, "seq_lengths": torch.tensor([[3, 2, 0]])}) == {0: [10, 11, 12], 1: [13, 14]}
    numbers = torch.tensor([[0, 0, 0, 1, 1, -1, -1, -1, -1, -1]])
    assert texts({"input_ids": IDS, "seq_idx": numbers}) == {0: [10, 11, 12], 1: [13, 14]}
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 0, 0]])
    positions = torch.tensor([[1, 1, 0, 1, 2, 0, 1, 2, 1, 1]])
    found = texts({"input_ids": IDS, "position_ids": positions, "attention_mask": mask})
    assert found == {0: [12, 13, 14], 1: [15, 16, 17]}


def test_a_document_of_one_token_at_the_beginning_of_a_row_is_one() -> None:
    assert texts({"input_ids": IDS[:, :3], "position_ids": torch.tensor([[0, 0, 1]])}) == {0: [10], 1: [11, 12]}
    assert texts({"input_ids": IDS[:, :3], "position_ids": torch.tensor([[0, 0, 0]])}) == {0: [10]}


@pytest.mark.parametrize(
    "batch",
    [
        IDS,
        (IDS, IDS),
        {"input_ids": IDS},
        {"input_ids": IDS, "position_ids": torch.arange(10)[None]},
        {"input_ids": IDS.view(2, 5), "position_ids": torch.arange(5)[None]},
        {"input_ids": IDS.view(2, 5), "position_ids": torch.arange(5).expand(3, 2, 5)},  # three axes of positions
        {"input_ids": IDS[0], "position_ids": torch.zeros(10, dtype=torch.long)},
        {"x": IDS, "position_ids": torch.zeros(1, 10, dtype=torch.long)},
        {
            "input_ids": IDS,
            "position_ids": torch.tensor([[1, 1, 1, 0, 1, 2, 3, 4, 5, 6]]),  # padded on the left
            "attention_mask": torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1]]),
        },
        {"input_ids": IDS, "attention_mask": torch.zeros(1, 10)},
        {"input_ids": IDS[:, :0], "position_ids": IDS[:, :0]},
    ],
)
def test_a_row_that_is_one_document_stays_as_it_is(batch: Any) -> None:
    assert documents.unpacked(batch) == [(batch, None)]


def test_what_comes_out_is_not_packed() -> None:
    for piece, _ in documents.unpacked({"input_ids": IDS, **TOLD["position_ids"], "labels": IDS}, full=0):
        assert documents.unpacked(piece) == [(piece, None)]


class Encoding(UserDict[str, Any]):
    """As transformers' BatchEncoding."""


def test_everything_with_positions_is_cut_and_the_rest_stays() -> None:
    batch = Encoding(
        input_ids=IDS, labels=-IDS, token_type_ids=IDS % 2, **TOLD["cu_seq_lens"], **TOLD["seq_idx"], scale=2.5
    )
    batch["position_ids"] = TOLD["position_ids that start at 2"]["position_ids"]
    ((piece, numbers),) = documents.unpacked(batch, full=0)
    assert type(piece) is Encoding
    assert numbers is not None
    assert numbers.tolist() == [0, 1, 2]
    assert list(piece) == ["input_ids", "labels", "token_type_ids", "scale", "position_ids", "attention_mask"]
    assert piece["labels"].tolist() == [[-10, -11, -12, -100], [-13, -14, -100, -100], [-15, -16, -17, -18]]
    assert piece["position_ids"].tolist() == [[2, 3, 4, 4], [2, 3, 3, 3], [2, 3, 4, 5]]  # no position of its own
    assert piece["token_type_ids"].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0]]
    assert piece["scale"] == 2.5
    assert list(batch)[0:2] == ["input_ids", "labels"]  # as it was
    assert batch["input_ids"] is IDS


def test_embedded_tokens_are_cut_as_well() -> None:
    vectors = torch.randn(1, 10, 3)
    ((piece, _),) = documents.unpacked({"inputs_embeds": vectors, **TOLD["seq_lengths"]}, full=0)
    assert torch.equal(piece["inputs_embeds"][2], vectors[0, 5:9])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"attention_mask": torch.ones(1, 1, 10, 10)},
            r"'attention_mask' of shape \(1, 1, 10, 10\) cannot be cut into",
        ),
        ({"position_ids": torch.zeros(3, 1, 10)}, r"'position_ids' of shape \(3, 1, 10\) cannot be cut into the 3 doc"),
        ({"pixel_values": torch.zeros(1, 3, 8, 8)}, "'pixel_values' .*; leave it out, or give batches with a document"),
    ],
)
def test_what_cannot_be_cut_is_refused(more: dict[str, Tensor], sentence: str) -> None:
    with pytest.raises(ForgetlessError, match=sentence):
        documents.unpacked({"input_ids": IDS, **TOLD["seq_idx"], **more})


def test_a_packed_batch_is_a_dict() -> None:
    with pytest.raises(ForgetlessError, match="a batch of packed documents must be a dict, its labels under 'labels'"):
        documents.unpacked(({"input_ids": IDS, **TOLD["seq_idx"]}, IDS))


PACKED = st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=4), min_size=1, max_size=4)


@given(lengths=PACKED, by=st.sampled_from(["position_ids", "seq_idx", "seq_lengths"]), full=st.floats(0, 1))
def test_every_document_is_found_once(lengths: list[list[int]], by: str, full: float) -> None:
    longest = max(map(sum, lengths))
    ids = torch.arange(len(lengths) * longest).view(len(lengths), longest)
    expected, batch = [], {"input_ids": ids}
    rows = []
    for row, own in zip(ids, lengths, strict=True):
        expected += [part.tolist() for part in torch.split(row[: sum(own)], own)]
        told = (
            [torch.arange(n) for n in own] if by == "position_ids" else [torch.full((n,), k) for k, n in enumerate(own)]
        )
        rest = longest - sum(own)
        told.append(torch.zeros(rest, dtype=torch.long) if by == "position_ids" else torch.arange(100, 100 + rest))
        rows.append(torch.cat(told))
    batch[by] = torch.stack(rows)
    if by == "seq_lengths":
        batch[by] = torch.nn.utils.rnn.pad_sequence([torch.tensor(own) for own in lengths], batch_first=True)
    if any(len(own) > 1 for own in lengths) or by != "position_ids" or len({sum(own) for own in lengths}) > 1:
        assert texts(batch, full) == dict(enumerate(expected))
    for piece, _ in documents.unpacked(batch, full):
        if full and "attention_mask" in piece:
            own = piece["attention_mask"].sum(1)
            assert int(own.min()) >= full * int(own.max())
            assert batches.size(piece) == len(own)

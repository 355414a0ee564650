"""Samples as people have them become batches, or are told apart from batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.rows import Collate, are_rows, collated, opened

IDS = torch.ones(3, 5, dtype=torch.long)


class Streamed(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield from range(5)


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (["a text", "another"], True),
        ([[{"role": "user", "content": "a chat"}]], True),
        ([{"input_ids": [1, 2]}, {"input_ids": [3]}], True),
        ([{"input_ids": IDS[0], "attention_mask": IDS[0]}], True),
        ([{"pixel_values": torch.ones(3, 4, 4), "labels": 1}], True),
        ([{"input_ids": IDS, "attention_mask": IDS}], False),
        ([{"input_ids": IDS, "labels": torch.ones(3)}], False),
        ([IDS, IDS], False),
        ([(IDS, None)], False),
        (IDS, False),
        ({"input_ids": IDS}, False),
        ([], False),
        (TensorDataset(IDS), True),
        (Streamed(), True),
        (DataLoader(TensorDataset(IDS)), False),
        (iter([IDS]), False),
    ],
)
def test_rows_and_batches_are_told_apart(data: Any, rows: bool) -> None:
    assert are_rows(data) is rows


def stacked(rows: list[Any]) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor(rows)[:, None]}


class Counted(Dataset[int]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> int:
        return number


@pytest.mark.parametrize("data", [list(range(5)), Counted(), Streamed()], ids=["list", "Dataset", "IterableDataset"])
def test_batches_are_in_order(data: Any) -> None:
    found = [batch["input_ids"].flatten().tolist() for batch in collated(data, Collate(stacked), 2, (0, 1))]
    assert found == [[0, 1], [2, 3], [4]]


def test_each_process_has_its_share() -> None:
    shares = [list(collated(list(range(5)), Collate(stacked), 2, (rank, 2))) for rank in (0, 1)]
    assert [[batch["input_ids"].flatten().tolist() for batch in share] for share in shares] == [[[0, 2], [4]], [[1, 3]]]


def test_a_collator_that_packs_gets_one_row_at_a_time() -> None:
    def packed(rows: list[Any]) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([rows])}

    found = [batch["input_ids"].tolist() for batch in collated([7, 8, 9], Collate(packed), 2, (0, 1))]
    assert found == [[[7]], [[8]], [[9]]]


def test_rows_are_not_changed_by_a_collator_that_takes_them_apart() -> None:
    def taking(rows: list[Any]) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([row.pop("input_ids") for row in rows])}

    rows = [{"input_ids": [1, 2]}, {"input_ids": [3, 4]}]
    for _ in range(2):
        assert len(list(collated(rows, Collate(taking), 2, (0, 1)))) == 1


def test_what_a_collator_says_is_passed_on() -> None:
    def picky(rows: list[Any]) -> Any:
        raise KeyError("prompt")

    with pytest.raises(
        ForgetlessError,
        match=r"the data collator \(picky\) refuses the old data: 'prompt'; a sample is a int; give rows",
    ):
        list(collated([1], Collate(picky), 2, (0, 1)))


def test_no_rows() -> None:
    with pytest.raises(ForgetlessError, match="the old data hold no samples"):
        list(collated(TensorDataset(IDS[:0]), Collate(stacked), 2, (0, 1)))


class Words:
    """A tokenizer of words."""

    def __call__(self, text: str) -> dict[str, Any]:
        return {"input_ids": [len(word) for word in text.split()]}

    def apply_chat_template(self, chat: list[dict[str, str]], **given: Any) -> dict[str, Any]:
        if chat[0]["role"] == "nobody":
            raise ValueError("no chat template")
        return self(" ".join(each["content"] for each in chat))


def listed(rows: list[Any]) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor([row["input_ids"] for row in rows])}


CHAT = [{"role": "user", "content": "a bb"}]
ANSWER = [{"role": "assistant", "content": "ccc"}]


@pytest.mark.parametrize(
    "row",
    [
        "a bb ccc",
        {"text": "a bb ccc", "source": "old"},
        {"messages": CHAT + ANSWER},
        {"prompt": "a bb", "completion": " ccc"},
        {"prompt": CHAT, "completion": ANSWER},
        {"prompt": "a bb", "chosen": " ccc", "rejected": " no"},
        {"prompt": "a bb ccc"},
    ],
)
def test_texts_and_chats_as_trainers_take_them(row: Any) -> None:
    (batch,) = Collate(listed, Words())([row])
    assert batch["input_ids"].tolist() == [[1, 2, 3]]


def test_rows_with_pictures_are_the_collators() -> None:
    (batch,) = Collate(lambda rows: {"input_ids": torch.ones(1, len(rows[0]))}, Words())(
        [{"prompt": "a", "images": []}]
    )
    assert batch["input_ids"].shape == (1, 2)


def test_texts_without_a_token_are_left_out() -> None:
    found = list(collated(["", "a bb", "", "", "ccc d"], Collate(listed, Words()), 2, (0, 1)))
    assert [batch["input_ids"].tolist() for batch in found] == [[[1, 2]], [[3, 1]]]
    with pytest.raises(ForgetlessError, match="all 3 texts of the old data are empty"):
        list(collated(["", "", ""], Collate(listed, Words()), 2, (0, 1)))


def test_an_iterator_is_looked_into_and_loses_nothing() -> None:
    data, rows = opened(text for text in ["a", "b"])
    assert (list(data), rows) == (["a", "b"], True)
    data, rows = opened(iter([IDS, IDS]))
    assert (len(list(data)), rows) == (2, False)


def test_several_sets_are_refused() -> None:
    datasets = pytest.importorskip("datasets")
    sets = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(ForgetlessError, match=r"a datasets.DatasetDict, which holds several sets; give .*'train'"):
        opened(sets)


def test_what_a_sample_has_is_said() -> None:
    with pytest.raises(
        ForgetlessError, match=r"a sample has the fields 'content'; give rows .* \(texts in a field 'text'\)"
    ):
        Collate(listed, Words())([{"content": "a"}])
    with pytest.raises(ForgetlessError, match=r"has the fields 'content', 'n', of which the trainer uses none; give"):
        Collate(listed, Words(), columns=("input_ids",)).together([{"content": "a", "n": 1}])


def test_a_chat_without_a_template() -> None:
    with pytest.raises(
        ForgetlessError, match=r"makes no text of a chat of the old data: no chat template; set its chat_"
    ):
        Collate(listed, Words())([[{"role": "nobody", "content": "a"}]])

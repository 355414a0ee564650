from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from forgetless import ForgetlessError
from forgetless.lab.finetuning.loaded import Kind, Loaded
from forgetless.lab.finetuning.samples import Batches, Samples, numbered, refuse_single_class
from forgetless.lab.finetuning.samples import pictures as read_pictures
from forgetless.lab.finetuning.samples import texts as read_texts
from tiny_folders import labeled_texts, pictures
from tiny_language import tokenizer


def of_texts(path: Path, seed: int = 0, kind: Kind = Kind.TEXT_CLASSIFIER) -> Samples:
    loaded = Loaded("m", nn.Identity(), kind, lambda *_: None, tokenizer=tokenizer())
    label = "label" if kind is Kind.TEXT_CLASSIFIER else None
    return read_texts(loaded, path, text=None, label=label, length=4, seed=seed, what="--new")


def of_pictures(path: Path, **options: Any) -> Samples:
    given = {"size": 8, "labeled": True, "skip_bad": False, "seed": 0, "what": "--new", **options}
    return read_pictures(path, **given)


def test_a_fifth_of_every_class_is_held_out_and_never_trained_on(tmp_path: Path) -> None:
    found = of_texts(labeled_texts(tmp_path / "t.csv", ("p", "q", "r"), 60, 0))
    assert found.labels is not None
    assert set(found.numbers).isdisjoint(found.held)
    assert sorted((*found.numbers, *found.held)) == list(range(60))
    assert found.labels[list(found.held)].bincount().tolist() == [4, 4, 4]
    assert found.classes == ("p", "q", "r")
    again, other = of_texts(tmp_path / "t.csv"), of_texts(tmp_path / "t.csv", seed=1)
    assert again.held == found.held != other.held


def test_batches_hold_every_sample_once_with_its_label(tmp_path: Path) -> None:
    found = of_texts(labeled_texts(tmp_path / "t.csv", ("p", "q"), 25, 0))
    torch.manual_seed(0)
    shuffled = Batches(found, found.numbers, 6, labels=found.labels, shuffled=True)
    sizes = [len(batch["labels"]) for batch in shuffled]
    assert (len(shuffled), sum(sizes)) == (4, len(found.numbers))
    assert max(sizes) - min(sizes) <= 1
    first = {tuple(row.tolist()): int(y) for b in shuffled for row, y in zip(b["input_ids"], b["labels"], strict=True)}
    for number in found.numbers:
        inputs, _ = found.take([number])
        assert first[tuple(inputs["input_ids"][0].tolist())] == int(found.labels[number])  # type: ignore[index]
    orders = [[batch["labels"].tolist() for batch in shuffled] for _ in range(2)]
    assert orders[0] != orders[1]


def test_a_language_model_reads_a_long_text_in_parts(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(["w1 w2 w3 w4 w5 w6 w7"] * 5))
    found = of_texts(tmp_path / "t.txt", kind=Kind.CAUSAL_LM)
    assert len(found.numbers) + len(found.held) == 10
    assert {found.take([n])[0]["input_ids"].shape[1] for n in range(10)} == {3, 4}


def test_the_test_part_of_a_dataset_is_held_out(tmp_path: Path) -> None:
    pictures(tmp_path / "d" / "train", ("a", "b"), 3)
    pictures(tmp_path / "d" / "test", ("a", "b"), 2, 1)
    found = of_pictures(tmp_path / "d")
    assert (found.numbers, found.held) == (tuple(range(6)), tuple(range(6, 10)))
    inputs, present = found.take([6, 9])
    assert (inputs.shape, list(present)) == ((2, 3, 8, 8), [6, 9])


def test_pictures_without_classes(tmp_path: Path) -> None:
    flat = pictures(tmp_path / "p", ("a",), 10) / "a"
    found = of_pictures(flat, labeled=False)
    assert (found.labels, len(found.held)) == (None, 2)
    with pytest.raises(ForgetlessError, match="has no folder of pictures for each class"):
        of_pictures(flat)
    with pytest.raises(ForgetlessError, match="there is no such folder or file"):
        of_pictures(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ForgetlessError, match="empty holds no pictures"):
        of_pictures(tmp_path / "empty", labeled=False)


def test_pictures_that_cannot_be_read_are_left_out_with_their_labels(tmp_path: Path) -> None:
    place = pictures(tmp_path / "p", ("a", "b"), 5)
    (place / "a" / "0.png").write_bytes(b"none")
    with pytest.raises(ForgetlessError, match="is no picture that can be read"):
        of_pictures(place).take(range(10))
    found = of_pictures(place, skip_bad=True)
    with pytest.warns(UserWarning, match="left out 1 of 10"):
        ((inputs, labels),) = Batches(found, range(10), 10, labels=found.labels)
    assert (len(inputs), labels.tolist()) == (9, [0] * 4 + [1] * 5)


def test_at_most_so_many_are_spread_over_all(tmp_path: Path) -> None:
    found = of_texts(labeled_texts(tmp_path / "t.csv", ("p", "q"), 50, 0))
    assert found.at_most(4).numbers == tuple(found.numbers[n] for n in (0, 10, 20, 30))
    assert found.at_most(99).numbers == found.numbers


def test_labels_by_the_numbers_of_a_model(tmp_path: Path) -> None:
    found = of_texts(labeled_texts(tmp_path / "t.csv", ("p", "q"), 20, 0))
    own = numbered(found, ("r", "q", "p"))
    assert own is not None
    assert own.labels is not None
    assert own.labels.tolist() == [2, 1] * 10
    assert numbered(found, ("p", "r")) is None


def test_a_single_class(tmp_path: Path) -> None:
    found = of_texts(labeled_texts(tmp_path / "t.csv", ("p",), 20, 0))
    with pytest.raises(ForgetlessError, match=r"t\.csv has one class, 'p': there is nothing to tell apart"):
        refuse_single_class(found, Path("t.csv"))


def test_pictures_that_cannot_be_read_are_in_no_part(tmp_path: Path) -> None:
    path = pictures(tmp_path / "d", ("p", "q"), 10)
    found = of_pictures(path, skip_bad=True)
    assert found.labels is not None
    for place in (*[n for n in found.numbers if n < 10][:2], found.held[-1]):
        (path / "pq"[place // 10] / f"{place % 10}.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out 3 of 20 pictures that cannot be read"):
        left = found.readable("--new d")
    assert len(left.numbers) == len(found.numbers) - 2
    assert left.held == found.held[:-1]
    assert left.listing != found.listing
    assert [len(labels) for _, labels in Batches(left, left.numbers, 1, labels=left.labels)] == [1] * len(left.numbers)
    assert left.readable("--new d") == left
    for each in (path / "p").iterdir():
        each.write_bytes(b"no picture")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(
            ForgetlessError, match=r"^--new d: no picture of the class 'p' can be read \(11 of 20 cannot\)\.$"
        ),
    ):
        found.readable("--new d")
    for each in path.rglob("*.png"):
        each.write_bytes(b"no picture")
    with (
        pytest.warns(UserWarning, match="none of the 20 pictures can be read"),
        pytest.raises(ForgetlessError, match=r"^--new d: no picture can be read \(20 of 20 cannot\)\.$"),
    ):
        found.readable("--new d")

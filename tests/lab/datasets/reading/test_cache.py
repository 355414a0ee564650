from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.cache import decoded
from forgetless.lab.datasets.reading.decoding import decode
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.learn.classification import classification
from layouts import picture


def part(folder: Path, count: int) -> Pictures:
    paths = [picture(folder / f"{number}.png", 10 * number) for number in range(count)]
    return Pictures(("a", "b"), paths, [path.name for path in paths], torch.arange(count) % 2)


class Counting:
    """The decoder, counting its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return decode(*args, **options)


def test_pictures_are_decoded_once_and_again_when_anything_changed(tmp_path: Path) -> None:
    train, test, cache = part(tmp_path / "train", 5), part(tmp_path / "test", 3), tmp_path / "cache"
    counting = Counting()

    def load(size: int = 4, **options: Any) -> Any:
        return decoded(train, test, size, name="set", cache=cache, decode=counting, **options)

    expected = (decode(train, 4), decode(test, 4))
    for _ in range(2):
        found = load()
        assert all(
            torch.equal(a, b) for one, two in zip(found, expected, strict=True) for a, b in zip(one, two, strict=True)
        )
    assert counting.calls == 2
    assert [path.name.rsplit("-", 1)[0] for path in sorted(cache.iterdir())] == ["set-test", "set-train"]
    load(5)
    load(skip_bad=True)
    assert counting.calls == 6
    picture(tmp_path / "train" / "3.png", 200)  # in place, under the same name
    assert load()[0][0][3, 0, 0, 0] == 200
    assert counting.calls == 7  # the other part is as it was
    assert len(list(cache.iterdir())) == 7


def test_what_was_left_out_is_said_every_time(tmp_path: Path) -> None:
    train, test, cache = part(tmp_path / "train", 5), part(tmp_path / "test", 3), tmp_path / "cache"
    (tmp_path / "train" / "3.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"^left out 1 of 5 pictures that cannot be read: '3.png'\.$"):
        first = decoded(train, test, 4, name="set", cache=cache, skip_bad=True)
    (path,) = cache.glob("set-train-*")
    said = f"left out 1 pictures of set that cannot be read; remove {path} to have them named again."
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$"):
        again = decoded(train, test, 4, name="set", cache=cache, skip_bad=True)
    for inputs, labels in (first[0], again[0]):
        assert inputs[:, 0, 0, 0].tolist() == [0, 10, 20, 40]
        assert labels.tolist() == [0, 1, 0, 0]


def test_a_class_is_never_left_out_with_its_last_picture(tmp_path: Path) -> None:
    train, test, cache = part(tmp_path / "train", 4), part(tmp_path / "test", 3), tmp_path / "cache"
    for number in (1, 3):
        (tmp_path / "train" / f"{number}.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ForgetlessError) as caught:
        decoded(train, test, 4, name="set", cache=cache, skip_bad=True)
    assert str(caught.value) == (
        "no training picture of 'b' in set can be read, and leaving them all out would leave out the class; "
        "replace the pictures, or remove the class from the dataset."
    )
    assert not cache.exists()


def test_a_damaged_cache_is_decoded_anew(tmp_path: Path) -> None:
    train, test, cache = part(tmp_path / "train", 3), part(tmp_path / "test", 2), tmp_path / "cache"
    decoded(train, test, 4, name="set", cache=cache)
    for called, pictures in (("train", train), ("test", test)):
        (path,) = cache.glob(f"set-{called}-*")
        whole, expected = path.read_bytes(), decode(pictures, 4)[0]
        for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
            path.unlink()
            path.write_bytes(damaged)
            counting = Counting()
            with pytest.warns(UserWarning, match=rf"^decoding set again: .*set-{called}-.*is damaged"):
                again = decoded(train, test, 4, name="set", cache=cache, decode=counting)
            assert torch.equal(again[called == "test"][0], expected)
            assert counting.calls == 1  # of the damaged part alone
            assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"labels": torch.tensor([0, 1])}, "it lacks the pictures or the labels"),
        ({"inputs": torch.zeros(3, 3, 4, 4, dtype=torch.uint8)}, "it has other pictures than were decoded"),
        ({"inputs": torch.zeros(2, 3, 5, 5, dtype=torch.uint8)}, "it has other pictures than were decoded"),
        ({"labels": torch.tensor([0, 2])}, "it has labels outside the classes"),
    ],
)
def test_a_whole_file_of_other_pictures_is_decoded_anew(
    tensors: dict[str, torch.Tensor], sentence: str, tmp_path: Path
) -> None:
    train, test, cache = part(tmp_path / "train", 2), part(tmp_path / "test", 2), tmp_path / "cache"
    inputs, labels = decoded(train, test, 4, name="set", cache=cache)[1]
    (path,) = cache.glob("set-test-*")
    usual = {} if list(tensors) == ["labels"] and "lacks" in sentence else {"inputs": inputs.clone(), "labels": labels}
    files.write_tensors(path, {**usual, **tensors}, "pictures", {})
    with pytest.warns(UserWarning, match=sentence):
        again = decoded(train, test, 4, name="set", cache=cache)
    assert torch.equal(again[1][0], inputs)


def test_pictures_stay_in_the_cache_and_outlive_its_files(tmp_path: Path) -> None:
    train, test, cache = part(tmp_path / "train", 9), part(tmp_path / "test", 2), tmp_path / "cache"
    expected = (decode(train, 64), decode(test, 64))
    for _ in range(2):  # decoded now, and read back
        kept = decoded(train, test, 64, name="set", cache=cache)
        (path,) = cache.glob("set-train-*")
        with path.open("rb+") as file:  # what nobody should do shows where the pictures are
            file.seek(-1, 2)
            last = file.read(1)[0]
            file.seek(-1, 2)
            file.write(bytes([last ^ 1]))
            file.flush()
            assert int((kept[0][0] != expected[0][0]).sum()) == 1
            file.seek(-1, 2)
            file.write(bytes([last]))
    sent = pickle.dumps(kept)
    assert len(sent) < 1.1 * (9 + 2) * 3 * 64 * 64 + 4096  # to another process goes every picture once
    shutil.rmtree(cache)
    for found, whole in zip(kept, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))
    task = classification("set", train.classes, *kept)
    read = list(task.samples.epoch(2, seed=0))
    order = torch.cat([labels for _, labels in read])
    assert sorted(order.tolist()) == sorted(train.labels.tolist())
    kept[0][0][0] = 0  # a change of ours never reaches a file


def test_no_cache_writes_nothing(tmp_path: Path) -> None:
    train, test = part(tmp_path / "train", 2), part(tmp_path / "test", 2)
    before = sorted(tmp_path.rglob("*"))
    decoded(train, test, 4, name="set")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    train, test = part(tmp_path / "train", 2), part(tmp_path / "test", 2)
    (tmp_path / "cache").write_text("")
    with pytest.raises(ForgetlessError, match=r"cannot be written: one of its folders is a file; choose another"):
        decoded(train, test, 4, name="set", cache=tmp_path / "cache")

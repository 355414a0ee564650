from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.cache import decoded
from forgetless.lab.datasets.reading.decoding import decode
from forgetless.lab.datasets.reading.pictures import Pictures
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
    assert len(list(cache.iterdir())) == 1
    load(5)
    load(skip_bad=True)
    assert counting.calls == 6
    picture(tmp_path / "train" / "3.png", 200)  # in place, under the same name
    assert load()[0][0][3, 0, 0, 0] == 200
    assert counting.calls == 8
    assert len(list(cache.iterdir())) == 4


def test_what_was_left_out_is_said_every_time(tmp_path: Path) -> None:
    train, test, cache = part(tmp_path / "train", 5), part(tmp_path / "test", 3), tmp_path / "cache"
    (tmp_path / "train" / "3.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"^left out 1 of 5 pictures that cannot be read: '3.png'\.$"):
        decoded(train, test, 4, name="set", cache=cache, skip_bad=True)
    (path,) = cache.iterdir()
    said = f"left out 1 pictures of set that cannot be read; remove {path} to have them named again."
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$"):
        decoded(train, test, 4, name="set", cache=cache, skip_bad=True)


def test_a_class_is_never_left_out_with_its_last_picture(tmp_path: Path) -> None:
    train, test, cache = part(tmp_path / "train", 4), part(tmp_path / "test", 3), tmp_path / "cache"
    for number in (1, 3):
        (tmp_path / "train" / f"{number}.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ForgetlessError) as caught:
        decoded(train, test, 4, name="set", cache=cache, skip_bad=True)
    assert str(caught.value) == (
        "no training picture of 'b' in set can be read, and leaving them all out would leave out the class; "
        "replace the pictures, or remove the class from the data set."
    )
    assert not cache.exists()


def test_a_damaged_cache_is_decoded_anew(tmp_path: Path) -> None:
    train, test, cache = part(tmp_path / "train", 2), part(tmp_path / "test", 2), tmp_path / "cache"
    first = decoded(train, test, 4, name="set", cache=cache)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=r"^decoding set again: .*is damaged"):
            again = decoded(train, test, 4, name="set", cache=cache)
        assert torch.equal(again[0][0], first[0][0])
        assert path.read_bytes() == whole


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

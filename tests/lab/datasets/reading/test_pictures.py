from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading import folder
from forgetless.lab.datasets.reading.decoding import decode
from forgetless.lab.datasets.reading.pictures import Crop, Pictures, halves
from layouts import picture
from warned import said


def pictures(folder: Path, count: int = 4) -> Pictures:
    paths = [picture(folder / f"{number}.png", 10 * number) for number in range(count)]
    return Pictures(("a", "b"), paths, [path.name for path in paths], torch.arange(count) % 2)


def test_bad_pictures_are_counted_named_and_left_out_only_on_demand(tmp_path: Path) -> None:
    some = pictures(tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with pytest.raises(ForgetlessError) as caught:
        decode(some, 4)
    said_first = str(caught.value)
    assert said_first.startswith("1.png is no picture that can be read: it is damaged, or none of BMP, GIF, JPEG, PNG")
    assert said_first.endswith(". A run with --skip-bad leaves it out.")
    (tmp_path / "2.png").unlink()
    with pytest.raises(ForgetlessError) as caught:
        decode(some, 4)
    assert str(caught.value).endswith(" 2 of 4 pictures cannot be read; a run with --skip-bad leaves them out.")
    with pytest.warns(UserWarning, match="left out") as warned:
        inputs, labels = decode(some, 4, skip_bad=True)
    assert said(warned) == ["left out 2 of 4 pictures that cannot be read: '1.png', '2.png'."]
    assert inputs[:, 0, 0, 0].tolist() == [0, 30]
    assert labels.tolist() == [0, 1]


def test_none_that_can_be_read(tmp_path: Path) -> None:
    some = pictures(tmp_path, 1)
    (tmp_path / "0.png").unlink()
    with pytest.raises(ForgetlessError, match=r"^none of the 1 pictures can be read; the first: 0\.png is no picture"):
        decode(some, 4, skip_bad=True)


@pytest.mark.parametrize("box", [(12, 0, 20, 5), (5, 5, 5, 9), (-9, 0, 0, 5)])
def test_a_box_outside_its_picture_is_a_bad_picture(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    crop = Crop(picture(tmp_path / "0.png"), box)
    with pytest.raises(ForgetlessError) as caught:
        decode(Pictures(("a",), [crop], ["0.png"], torch.tensor([0])), 4)
    assert f"the box {box} lies outside its 12 × 10 pixels" in str(caught.value)


def test_contents_tell_any_change(tmp_path: Path) -> None:
    some = pictures(tmp_path)
    first, listed = some.contents(), some.listing()
    picture(tmp_path / "2.png", 99)
    assert some.contents() != first
    assert some.listing() == listed
    picture(tmp_path / "2.png", 20)
    assert some.contents() == first
    assert Pictures(("a", "c"), some.pictures, some.names, some.labels).contents() != first
    assert Pictures(some.classes, some.pictures, some.names, 1 - some.labels).contents() != first
    assert some.only(torch.tensor([1, 0, 2, 3])).contents() != first


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(0, 3))
def test_halves_share_nothing_lose_nothing_and_keep_proportions(labels: list[int], seed: int) -> None:
    names = [str(number) for number in range(len(labels))]
    whole = Pictures(tuple("abcde"), [b""] * len(labels), names, torch.tensor(labels))
    first, second = halves(whole, seed)
    assert sorted([*first.names, *second.names], key=int) == names
    assert 0 <= len(second.labels) - len(first.labels) <= 1
    for label in set(labels):
        assert abs(2 * first.labels.tolist().count(label) - labels.count(label)) <= 1
    assert halves(whole, seed)[0].names == first.names


def test_what_systems_and_editors_leave_is_no_class_and_no_picture(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a/1.png", "b/1.png", "a/._1.png", ".ipynb_checkpoints/1.png"):
            (tmp_path / split / name).parent.mkdir(parents=True, exist_ok=True)
            picture(tmp_path / split / name, 9)
    for found in folder.read(tmp_path):
        assert found.classes == ("a", "b")
        assert [Path(name).parent.name for name in found.names] == ["a", "b"]

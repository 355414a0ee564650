from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetless.lab.datasets.reading.pictures import Pictures, halves
from layouts import picture


def pictures(folder: Path, count: int = 4) -> Pictures:
    paths = [picture(folder / f"{number}.png", 10 * number) for number in range(count)]
    return Pictures(("a", "b"), paths, [path.name for path in paths], torch.arange(count) % 2)


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

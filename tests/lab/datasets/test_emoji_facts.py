from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from fact_sets import encoded, table
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.emoji_facts import ENTRY, FILE, TEST, read
from forgetless.lab.datasets.reading.decoding import decode

SHARED = Path(__file__).parents[4] / "shared" / "data"
RUN, ROW = ("man", "run", ""), ("woman", "row", "boat")
DRAWINGS = [("noto", RUN), ("openmoji", ROW), ("fluent", ROW), ("twemoji", RUN), ("", RUN), ("OpenMoji", ROW)]


def drawn(path: Path) -> Path:
    designers, facts = zip(*DRAWINGS, strict=True)
    return table(path, [encoded(number) for number in range(len(facts))], facts, designer=designers)


def test_designers_decide_what_is_for_testing(tmp_path: Path) -> None:
    drawn(tmp_path / "facts" / FILE)
    train, test = dataclasses.replace(ENTRY, classes=2, train=4, test=2).load(tmp_path)
    assert train.classes == test.classes == ("man,run,", "woman,row,boat")
    assert list(train.pictures) == [encoded(number) for number in (0, 2, 4, 5)]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0, 1], [1, 0])
    assert list(test.pictures) == [encoded(1), encoded(3)]
    assert list(test.names) == [f"row {row} of {tmp_path}/facts/{FILE}" for row in (1, 3)]


def test_bad_tables(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with pytest.raises(ForgetlessError, match=r"emoji_facts\.parquet cannot be read: it does not exist\.$"):
        read(tmp_path)
    table(path, [b"x"], [RUN])
    with pytest.raises(ForgetlessError, match=r"is not a dataset: it has no column 'designer'\.$"):
        read(tmp_path)
    table(path, [b"x"], [RUN], designer=[1])
    with pytest.raises(ForgetlessError, match=r"has 1 for the designer of row 0, which is no text\.$"):
        read(tmp_path)
    table(path, [b"x"], [RUN], designer=[TEST[0]])
    with pytest.raises(ForgetlessError, match=r"^there are no training pictures\.$"):
        read(tmp_path)
    table(path, [b"x"], [("", None, "")], designer=["noto"])
    with pytest.raises(ForgetlessError, match=r"^row 0 of .* is no fact: all of its parts are empty\.$"):
        read(tmp_path)


def test_other_drawings_than_were_published(tmp_path: Path) -> None:
    drawn(tmp_path / "facts" / FILE)
    with pytest.raises(
        ForgetlessError, match=r"facts: it has 2 classes and not 133; unpack .* again, or it cannot be "
    ):
        ENTRY.load(tmp_path)


@pytest.mark.skipif(not (SHARED / "facts" / FILE).is_file(), reason="the drawings (../shared/data/facts) are not here")
@pytest.mark.filterwarnings("ignore")  # some drawings stand for two facts
def test_the_drawings() -> None:
    train, test = ENTRY.load(SHARED)
    assert set(train.labels.tolist()) | set(test.labels.tolist()) == set(range(133))
    assert min(len(set(part.labels.tolist())) for part in (train, test)) > 125  # both have drawn almost every fact
    inputs, _ = decode(test.only(torch.arange(8)), 16)
    assert inputs.float().std() > 10  # something is drawn

"""The study of streams: what a stream is made of, how borders are counted, and that strengths see no test digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from studies import streams


@pytest.fixture(scope="module")
def data() -> dict[str, tuple[Tensor, Tensor]]:
    """Pictures whose first pixel is their own number."""
    generator = torch.Generator().manual_seed(0)
    found, first = {}, 0
    for part, count in (("train", 1500), ("held out", 100), ("test", 100)):
        labels = torch.arange(count) % 10
        pictures = torch.randint(0, 256, (count, 784), generator=generator, dtype=torch.float32)
        pictures[:, 0] = torch.arange(first, first + count).float()
        found[part], first = (pictures, labels), first + count
    return found


@pytest.mark.parametrize("name", streams.STREAMS)
def test_every_digit_comes_once(name: str, data: dict[str, tuple[Tensor, Tensor]]) -> None:
    found = streams.stream(data, name, 0, "test")
    numbers = torch.cat([inputs[:, 0] for inputs, _, _ in found.batches])
    assert len(numbers) == len(torch.unique(numbers))
    assert {len(inputs) for inputs, _, _ in found.batches} == {streams.BATCH}
    labels, concepts = (torch.cat([batch[place] for batch in found.batches]) for place in (1, 2))
    digits = data["train"][1][numbers.long()]
    for concept, pair in enumerate(found.concepts):
        assert set(digits[concepts == concept].tolist()) == set(pair)
    assert torch.equal(labels, digits if found.outputs == 10 else digits % 2)
    again = streams.stream(data, name, 0, "test")
    assert all(torch.equal(one[0], two[0]) for one, two in zip(found.batches, again.batches, strict=True))


def test_both_labelings_come_in_all_three_ways() -> None:
    ways = [(reads, drift) for reads in ("parity", "digit") for drift in ("abrupt", "gradual", "returning")]
    assert list(streams.STREAMS.values()) == ways


@pytest.mark.parametrize("labels", ["domain", "class"])
def test_how_concepts_follow_one_another(labels: str, data: dict[str, tuple[Tensor, Tensor]]) -> None:
    abrupt, gradual, returning = (
        streams.stream(data, f"{labels}, {drift}", 0, "test") for drift in ("abrupt", "gradual", "returning")
    )
    for number, border in enumerate(abrupt.borders):
        before, after = abrupt.batches[border - 1][2], abrupt.batches[border][2]
        assert (set(before.tolist()), set(after.tolist())) == ({number}, {number + 1})
    assert gradual.borders == abrupt.borders
    near = torch.cat([gradual.batches[step][2] for step in range(gradual.borders[0] - 3, gradual.borders[0] + 3)])
    assert set(near.tolist()) == {0, 1}
    assert set(gradual.batches[0][2].tolist()) == {0}
    order = [int(returning.batches[step][2][0]) for step in (0, *returning.borders)]
    assert order == [0, 1, 2, 0, 1, 2]


def test_strengths_are_chosen_by_digits_that_are_not_reported(data: dict[str, tuple[Tensor, Tensor]]) -> None:
    held, test = (streams.stream(data, "domain, abrupt", 0, part) for part in ("held out", "test"))
    for found, part in ((held, "held out"), (test, "test")):
        numbers = torch.cat([inputs[:, 0] for inputs, _ in found.tests])
        assert set(numbers.tolist()) == set(data[part][0][:, 0].tolist())
    assert set(streams.SEEDS).isdisjoint(streams.TUNED_ON)


@pytest.mark.parametrize(
    ("peaks", "delays", "alarms"),
    [
        ([], [None, None], 0),
        ([10, 20], [0, 0], 0),
        ([12, 15, 25], [2, 5], 1),
        ([3, 22], [None, 2], 1),
    ],
)
def test_detection(peaks: list[int], delays: list[int | None], alarms: int) -> None:
    assert streams.detection({"borders": [10, 20], "steps": 30, "peaks": peaks}) == (delays, alarms)


def test_runs_are_kept_and_not_repeated(
    data: dict[str, tuple[Tensor, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "OUT", tmp_path)
    monkeypatch.setattr(streams, "STREAMS", {"domain, abrupt": ("parity", "abrupt")})
    monkeypatch.setattr(streams, "METHODS", {name: streams.METHODS[name] for name in ("finetune", "task-free-mas")})
    monkeypatch.setattr(streams, "SEEDS", range(2))
    monkeypatch.setattr(streams, "STRENGTHS", (0.1, 1.0))
    done: list[tuple[Any, ...]] = []
    while jobs := list(streams.missing()):
        for job in jobs:
            found = streams.run(data, *job)
            streams._keep(found, job[-1])
            done.append(job)
    assert len(done) == len(set(done)) == 2 * 2 + 2 * 2
    assert [job[-1] for job in done] == ["held out"] * 4 + ["test"] * 4
    table = streams.table()
    assert "| domain, abrupt | online fine-tuning | – |" in table
    chosen = streams.chosen("domain, abrupt", "task-free-mas")
    assert f"| domain, abrupt | task-free MAS | {chosen:g} |" in table

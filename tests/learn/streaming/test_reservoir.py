from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.learn.families.memory import Remembered
from forgetless.learn.families.state import pack, unpack
from forgetless.learn.streaming.reservoir import Balanced, Reservoir
from online import classes

TASKS = classes(3)


def numbered(first: int, count: int, task: int = 0, label: int = 0) -> Remembered:
    """Samples that are their own numbers."""
    rows = torch.arange(first, first + count).view(-1, 1)
    return Remembered(TASKS[task].name, TASKS[task].objective, (rows, torch.full((count,), label)))


def held(buffer: Reservoir) -> list[int]:
    return [int(row) for part in buffer.all() for row in part.batch[0]]


def test_it_is_a_uniform_sample_of_all_that_came() -> None:
    """10 of 40 in batches of 7: each sample is kept in a quarter of 300 trials, within five standard errors."""
    torch.manual_seed(0)
    counts: Counter[int] = Counter()
    for _ in range(300):
        buffer = Reservoir(10, TASKS)
        for start in range(0, 40, 7):
            buffer.add(numbered(start, min(7, 40 - start)))
        assert len(set(held(buffer))) == 10
        counts.update(held(buffer))
    assert all(abs(counts[each] / 300 - 0.25) < 5 * (0.25 * 0.75 / 300) ** 0.5 for each in range(40))


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), size=st.integers(1, 12), seed=st.integers(0, 9))
def test_tasks_and_rows_stay_together(sizes: list[int], size: int, seed: int) -> None:
    torch.manual_seed(seed)
    buffer, came, owners = Reservoir(size, TASKS), 0, {}
    for number, count in enumerate(sizes):
        owners |= dict.fromkeys(range(came, came + count), TASKS[number % 3].name)
        buffer.add(numbered(came, count, number % 3, number % 2))
        came += count
    assert len(buffer) == min(size, came) == len(set(held(buffer)))
    assert buffer.seen == came
    assert all(owners[int(row)] == part.task for part in buffer.all() for row in part.batch[0])
    drawn = [int(row) for part in buffer.draw(5) for row in part.batch[0]]
    assert len(drawn) == min(5, len(buffer)) == len(set(drawn))


def test_it_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    buffer, other = Reservoir(6, TASKS), Reservoir(6, TASKS)
    buffer.add(numbered(0, 9, 1))
    other.load(unpack(pack(buffer.tree())))
    for each in (buffer, other):
        torch.manual_seed(1)
        each.add(numbered(9, 9, 2))
    assert held(buffer) == held(other)
    fresh = Reservoir(6, TASKS)
    fresh.load(unpack(pack(Reservoir(6, TASKS).tree())))
    assert len(fresh) == 0


def test_the_balanced_one_keeps_equal_shares() -> None:
    torch.manual_seed(0)
    buffer = Balanced(12, TASKS, [0, 2, 4])
    buffer.add(numbered(0, 30, 0, 0))
    buffer.add(numbered(30, 4, 0, 1))
    buffer.add(numbered(34, 30, 1, 0))
    counts = Counter((part.task, int(label)) for part in buffer.all() for label in part.batch[1])
    assert sorted(counts.values()) == [4, 4, 4]
    buffer.add(numbered(64, 1, 2, 1))
    assert Counter(int(o) for o in buffer.owners)[2] == 1


def test_refusals() -> None:
    with pytest.raises(ForgetlessError, match="a buffer holds one sample or more, not 0"):
        Reservoir(0, TASKS)
    buffer = Reservoir(4, TASKS)
    buffer.add(numbered(0, 2))
    other = Remembered(TASKS[1].name, TASKS[1].objective, (torch.zeros(2, 3), torch.zeros(2).long()))
    with pytest.raises(ForgetlessError, match=r"differ in their form: .*in task 'task\.1'"):
        buffer.add(other)
    assert held(buffer) == [0, 1]
    tree = buffer.tree()
    with pytest.raises(ForgetlessError, match="incomplete, or of another stream"):
        Reservoir(1, TASKS).load(tree)
    with pytest.raises(ForgetlessError, match="incomplete, or of another stream"):
        Reservoir(4, TASKS).load({**tree, "owners": tree["owners"] + 7})

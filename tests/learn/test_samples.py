"""Samples from tensors, datasets and streams: the same bits, and nothing read before it is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import forgetless
from forgetless.errors import ForgetlessError
from forgetless.learn.methods import METHODS, create
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.rows import Rows
from forgetless.learn.samples import samples_of
from forgetless.learn.task import Task
from forgetless.learn.train import Outcome, learn
from streams import network, same, stream

STREAM = stream(2)
RECIPE = Recipe(lr=0.1, epochs=2, batch_size=20)


class Counting(Dataset[Any]):
    """Reads samples one by one, and notes which and how many at once."""

    def __init__(self, part: tuple[Tensor, Tensor], several: bool = False) -> None:
        self.part, self.read = part, []  # type: ignore[var-annotated]
        if several:
            self.__dict__["__getitems__"] = self._several

    def __len__(self) -> int:
        return len(self.part[1])

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        self.read.append([number])
        return self.part[0][number], self.part[1][number]

    def _several(self, numbers: list[int]) -> list[tuple[Tensor, Tensor]]:
        self.read.append(numbers)
        return [(self.part[0][n], self.part[1][n]) for n in numbers]


def of(make: Any) -> list[Task]:
    return [dataclasses.replace(task, train=make(task.train), test=make(task.test)) for task in STREAM]


def run(tasks: list[Task], name: str = "mas", **more: Any) -> tuple[torch.nn.Module, Outcome]:
    model = network(noisy=True)
    return model, learn(model, tasks, create(name), RECIPE, seed=1, **more)


FORMS = {
    "a dataset": Counting,
    "a dataset that reads several": lambda part: Counting(part, several=True),
    "TensorDataset": lambda part: TensorDataset(*part),
    "a subset": lambda part: Subset(
        TensorDataset(*(torch.cat([each, each]) for each in part)), list(range(len(part[1]), 2 * len(part[1])))
    ),
    "a subset of a subset": lambda part: Subset(
        Subset(TensorDataset(*part), list(range(len(part[1])))[::-1]), list(range(len(part[1])))[::-1]
    ),
    "a subset of a dataset": lambda part: Subset(Counting(part), list(range(len(part[1])))),
    "two datasets": lambda part: ConcatDataset(
        [TensorDataset(*(each[a:b] for each in part)) for a, b in ((0, 9), (9, 48))]
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_gives_the_bits_of_its_tensors(form: str) -> None:
    model, outcome = run(of(FORMS[form]))
    expected_model, expected = run(STREAM)
    assert same(model, expected_model)
    assert outcome.accuracy == expected.accuracy


@pytest.mark.parametrize("name", [*METHODS, "mas+er"])
def test_for_every_method(name: str) -> None:
    model, outcome = run(of(Counting), name)
    expected_model, expected = run(STREAM, name)
    assert same(model, expected_model)
    assert outcome.accuracy == expected.accuracy


def test_memory_mapped_tensors_are_tensors(tmp_path: Path) -> None:
    def mapped(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bin"
        path.write_bytes(part[0].numpy().tobytes())
        return torch.from_file(str(path), size=part[0].numel()).view(part[0].shape), part[1]

    model, outcome = run(of(mapped))
    expected_model, expected = run(STREAM)
    assert same(model, expected_model)
    assert outcome.accuracy == expected.accuracy


def test_a_dataset_is_never_in_memory_as_a_whole() -> None:
    """Each call reads a batch at most; a first look reads three samples; the measuring reads pieces."""
    task = stream(1, samples=2400)[0]
    train, test = Counting(task.train, several=True), Counting(task.test, several=True)
    lazy = dataclasses.replace(task, train=train, test=test)
    assert not train.read  # making a task reads nothing
    learn(network(), [lazy], create("mas"), dataclasses.replace(RECIPE, batch_size=100, epochs=1), seed=0)
    assert max(map(len, train.read)) <= 512  # the largest piece that is measured at once
    assert max(map(len, test.read)) <= 100
    assert sorted(n for numbers in test.read for n in numbers if len(numbers) > 3) == list(range(2400))


def test_a_run_with_a_dataset_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    class Augmenting(Counting):
        """Draws random numbers while it reads."""

        def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
            inputs, labels = super().__getitem__(number)
            return inputs + 0.1 * torch.randn_like(inputs), labels

    def kill(progress: Progress) -> None:
        if (progress.task, progress.step) == (2, 2):
            raise KeyboardInterrupt

    whole = run(of(Augmenting))
    with pytest.raises(KeyboardInterrupt):
        run(of(Augmenting), checkpoint=tmp_path / "c", on_progress=kill)
    again = run(of(Augmenting), checkpoint=tmp_path / "c")
    assert same(again[0], whole[0])
    assert again[1].accuracy == whole[1].accuracy


# ---- streams


class Endless(IterableDataset[Any]):
    """Samples in the order of the stream, with a random number in each."""

    def __init__(self, part: tuple[Tensor, Tensor]) -> None:
        self.part = part

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, label in zip(*self.part, strict=True):
            yield inputs + 0.01 * torch.randn_like(inputs), label


def batched(part: tuple[Tensor, Tensor]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(each.split(20) for each in part), strict=True))


STREAMS = {
    "batches": batched,
    "an IterableDataset": Endless,
    "a DataLoader that shuffles": lambda part: DataLoader(TensorDataset(*part), batch_size=20, shuffle=True),
}


@pytest.mark.parametrize("form", STREAMS)
@pytest.mark.parametrize("name", ["finetune", "mas", "lwf", "si"])
def test_a_stream_is_resumed_to_the_same_bits(form: str, name: str, tmp_path: Path) -> None:
    def kill(progress: Progress) -> None:
        if (progress.task, progress.step) == places[0]:
            places.pop(0)
            raise KeyboardInterrupt

    places = [(1, 2), (1, 3), (2, 5), (9, 9)]
    whole = run(of(STREAMS[form]), name)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(of(STREAMS[form]), name, checkpoint=tmp_path / "c", on_progress=kill)
    again = run(of(STREAMS[form]), name, checkpoint=tmp_path / "c", on_progress=kill)
    assert same(again[0], whole[0])
    assert again[1].accuracy == whole[1].accuracy


def test_a_stream_keeps_its_order_and_its_batches() -> None:
    seen = []
    task = of(batched)[0]
    for batch in task.samples.epoch(7, seed=3):
        seen.append(batch[0])
    assert torch.equal(torch.cat(seen), STREAM[0].train[0])
    assert [len(each) for each in seen] == [20, 20, 8]
    assert (samples_of(batched(STREAM[0].train)).steps(7), samples_of(Endless(STREAM[0].train)).steps(7)) == (3, None)


@pytest.mark.parametrize("name", ["er", "ebll", "mas-per-batch", "mas-remeasured", "joint"])
def test_methods_that_read_by_number_refuse_a_stream(name: str) -> None:
    with pytest.raises(ForgetlessError, match=r"^a stream (does not tell how many|cannot be read by number)"):
        run(of(batched), name)


def test_a_generator_serves_one_epoch() -> None:
    once = dataclasses.replace(STREAM[0], train=iter(batched(STREAM[0].train)))
    with pytest.raises(ForgetlessError, match=r"^the stream of task 'task\.0' gave no batch in epoch 2: "):
        learn(network(), [once], create("finetune"), RECIPE, seed=0)


def test_what_is_no_data() -> None:
    with pytest.raises(
        ForgetlessError, match=r"^a task's samples are tensors, a Dataset or an iterable of batches, not int"
    ):
        dataclasses.replace(STREAM[0], train=3)
    with pytest.raises(ForgetlessError, match=r"^the tensors of a task need one row for each sample, not \[3, 4\]"):
        samples_of((torch.zeros(3, 1), torch.zeros(4)))
    with pytest.raises(ForgetlessError, match=r"^the train part of task 'task\.0' is empty\.$"):
        dataclasses.replace(STREAM[0], train=[])


# ---- rows that are read when they are sliced


def rows(tensor: Tensor, read: list[list[int]]) -> Rows:
    def some(numbers: Tensor) -> Tensor:
        read.append(numbers.tolist())
        return tensor[numbers]

    return Rows(some, tensor.shape, tensor.dtype)


def test_rows_read_what_is_sliced() -> None:
    tensor, read = torch.randn(100, 3), []  # type: ignore[var-annotated]
    lazy = rows(tensor, read)
    assert (lazy.shape, lazy.dtype, len(lazy), lazy.dim()) == (tensor.shape, tensor.dtype, 100, 2)
    assert not read
    for part in (slice(3, 7), slice(None, 5), slice(95, None), slice(98, 200), slice(-3, None), slice(7, 3)):
        assert torch.equal(lazy[part], tensor[part])
    assert torch.equal(lazy.detach().to("cpu")[2:4], tensor[2:4])
    assert max(map(len, read)) == 5
    assert torch.allclose(lazy.sum(), tensor.sum(), atol=1e-4)
    assert max(map(len, read)) == 64
    assert torch.equal(lazy + 1, tensor + 1)  # anything else reads all rows
    assert torch.equal(lazy[::2], tensor[::2])


def test_measured_from_rows_importance_has_the_bits_of_the_tensor() -> None:
    model, inputs, read = network(), torch.randn(1300, 8), []  # type: ignore[var-annotated]
    found = forgetless.mas(model.backbone, rows(inputs, read), progress=False)
    expected = forgetless.mas(model.backbone, inputs, progress=False)
    assert all(torch.equal(found.sums[name], expected.sums[name]) for name in expected.sums)
    assert max(map(len, read)) <= 512

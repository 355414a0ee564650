from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments import permuted_mnist
from forgetless.lab.running.run import run_all
from idx_files import written


def test_every_task_has_the_same_digits_with_their_pixels_in_an_order_of_its_own(tmp_path: Path) -> None:
    written(tmp_path)
    first, second, third = permuted_mnist.permuted(tmp_path, 3)
    for task in (second, third):
        assert torch.equal(task.train[0].sort(1).values, first.train[0].sort(1).values)
        assert not torch.equal(task.train[0], first.train[0])
        assert torch.equal(task.train[1], first.train[1])
    assert not torch.equal(second.train[0], third.train[0])
    assert all(
        torch.equal(one.test[0], other.test[0])
        for one, other in zip(permuted_mnist.permuted(tmp_path, 2), (first, second), strict=True)
    )


def test_a_sweep_over_strengths_and_batches(tmp_path: Path) -> None:
    written(tmp_path / "data")
    suite = permuted_mnist.PermutedMNIST(data=tmp_path / "data", tasks=2, hidden=8, batches=True).build()
    assert len(suite.experiments) == 7 * 5
    assert {each.recipe.epochs for each in suite.experiments.values()} == {10 * 469}
    chosen = {
        folder: dataclasses.replace(suite.experiments[folder], recipe=dataclasses.replace(each.recipe, epochs=2))
        for folder, each in suite.experiments.items()
        if folder in ("lambda-0.1", "lambda-1", "lambda-1-batch-16")
    }
    found = run_all(chosen, None, [0, 1], tmp_path / "out")
    lines = suite.table(found).splitlines()
    assert lines[0] == "| Ω | λ = 0.1 | λ = 1 | within a point of the best |"
    assert lines[2].startswith("| exact | ")
    assert lines[2].count("±") == 2
    assert lines[3].startswith("| per batch of 16 | – | ")


def test_a_number_of_tasks_that_makes_no_sense() -> None:
    with pytest.raises(ForgetlessError, match=r"^tasks must be at least 1, not 0\.$"):
        permuted_mnist.PermutedMNIST(tasks=0)

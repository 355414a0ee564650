"""Avalanche, with and without the one argument: a network that tells 0 … 4 apart learns 5 … 9.

python examples/avalanche_plugin.py          (pip install '.[avalanche]' in the clone)
"""

import warnings

import torch
from sklearn.datasets import load_digits
from torch import nn

warnings.filterwarnings("ignore", module="qpsolvers|avalanche")  # on solvers and loggers that are not needed here

from avalanche.benchmarks import benchmark_from_datasets  # noqa: E402
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline  # noqa: E402
from avalanche.benchmarks.scenarios.task_aware import with_task_labels  # noqa: E402
from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as dataset  # noqa: E402
from avalanche.models import MultiHeadClassifier, MultiTaskModule  # noqa: E402
from avalanche.training import Naive  # noqa: E402
from avalanche.training.plugins import EvaluationPlugin  # noqa: E402

from forgetless.integrations.avalanche import ForgetlessPlugin  # noqa: E402

digits = load_digits()  # 1,797 of 8 × 8 pixels
pixels, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
halves = [order[labels[order] // 5 == half] for half in (0, 1)]  # of each, 200 are kept aside


class Digits(MultiTaskModule):  # noqa: D101
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.heads = MultiHeadClassifier(64, 5, masking=False)

    def forward(self, x, task_labels):  # noqa: D102
        return self.heads(self.backbone(x), task_labels)


def accuracy(model: Digits, half: int) -> float:
    chosen = halves[half][:200]
    return 100 * float((model(pixels[chosen], half).argmax(1) == labels[chosen] % 5).float().mean())


train = [dataset(pixels[each[200:]], labels[each[200:]] % 5, task_labels=k) for k, each in enumerate(halves)]
benchmark = with_task_labels(with_classes_timeline(benchmark_from_datasets(train=train)))
for name, plugins in (("plain fine-tuning", []), ("with forgetless", [ForgetlessPlugin()])):
    torch.manual_seed(0)
    model = Digits()
    settings = {"train_mb_size": 32, "train_epochs": 15, "evaluator": EvaluationPlugin(loggers=[])}
    strategy = Naive(model=model, optimizer=torch.optim.AdamW(model.parameters(), 2e-3), plugins=plugins, **settings)
    old: list[float] = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        old.append(accuracy(model, 0))
    print(f"{name:>17}: 0 … 4 {old[0]:.1f} % → {old[-1]:.1f} %, 5 … 9 {accuracy(model, 1):.1f} %")

"""Lightning, with and without the one argument: a network that tells 0 … 4 apart learns 5 … 9.

python examples/lightning_callback.py          (pip install '.[lightning]' scikit-learn in the clone)
"""

import copy

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from forgetless.integrations.lightning import ForgetlessCallback

digits = load_digits()  # 1,797 of 8 × 8 pixels
pixels, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
halves = [order[labels[order] // 5 == half] for half in (0, 1)]  # of each, 200 are kept aside
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Digits(L.LightningModule):  # noqa: D101
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.heads, self.half = nn.ModuleList(nn.Linear(64, 5) for _ in halves), 0

    def forward(self, x):  # noqa: D102
        return self.heads[self.half](self.backbone(x))

    def training_step(self, batch, number):  # noqa: D102
        return F.cross_entropy(self(batch[0]), batch[1] % 5)

    def configure_optimizers(self):  # noqa: D102
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def train(model: Digits, half: int, *callbacks: L.Callback) -> Digits:
    chosen, model.half = halves[half][200:], half
    loader = DataLoader(TensorDataset(pixels[chosen], labels[chosen]), batch_size=32, shuffle=True)
    L.Trainer(max_epochs=15, accelerator="cpu", logger=False, callbacks=list(callbacks), **QUIET).fit(model, loader)
    return model


def accuracy(model: Digits, half: int) -> float:
    chosen, model.half = halves[half][:200], half
    return 100 * float((model(pixels[chosen]).argmax(1) == labels[chosen] % 5).float().mean())


L.seed_everything(0, verbose=False)
first = train(Digits(), 0)
head = {"forward": lambda model, x: model.heads[0](model.backbone(x)), "exclude": "heads"}
protecting = ForgetlessCallback(DataLoader(pixels[halves[0][200:]], batch_size=64), **head)  # unlabeled
for name, callbacks in (("plain fine-tuning", []), ("with forgetless", [protecting])):
    model = train(copy.deepcopy(first), 1, *callbacks)
    kept, learned = accuracy(model, 0), accuracy(model, 1)
    print(f"{name:>17}: 0 … 4 {accuracy(first, 0):.1f} % → {kept:.1f} %, 5 … 9 {learned:.1f} %")

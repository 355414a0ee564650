"""Accelerate, with and without the anchor: a network that tells 0 … 4 apart learns 5 … 9.

python examples/accelerate_loop.py          (pip install accelerate scikit-learn in the clone)
"""

import copy
import tempfile

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import forgetless

digits = load_digits()  # 1,797 of 8 × 8 pixels
pixels, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
halves = [order[labels[order] // 5 == half] for half in (0, 1)]  # of each, 200 are kept aside
EPOCHS, accelerator = 20, Accelerator(cpu=True, gradient_accumulation_steps=2)


def train(model: nn.Module, half: int, importance: forgetless.Importance | None = None) -> nn.Module:
    chosen = halves[half][200:]
    loader = DataLoader(TensorDataset(pixels[chosen], labels[chosen]), batch_size=16, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if importance is not None:
        anchor = forgetless.Anchor(model, importance).attach(optimizer)
        accelerator.register_for_checkpointing(anchor)  # save_state and load_state take θ* and Ω along
    for _ in range(EPOCHS):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model["heads"][half](model["backbone"](x)), y % 5))
                optimizer.step()
                optimizer.zero_grad()
    accelerator.save_state(tempfile.mkdtemp())
    return model


def accuracy(model: nn.Module, half: int) -> float:
    chosen = halves[half][:200]
    answers = model["heads"][half](model["backbone"](pixels[chosen])).argmax(1)
    return 100 * float((answers == labels[chosen] % 5).float().mean())


torch.manual_seed(0)
backbone = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
first = train(nn.ModuleDict({"backbone": backbone, "heads": nn.ModuleList(nn.Linear(64, 5) for _ in halves)}), 0)
head = {"forward": lambda model, x: model["heads"][0](model["backbone"](x)), "exclude": "heads"}
importance = forgetless.mas(first, pixels[halves[0][200:]], **head)  # unlabeled
for name, given in (("plain fine-tuning", None), ("with forgetless", importance)):
    model = train(copy.deepcopy(first), 1, given)
    kept, learned = accuracy(model, 0), accuracy(model, 1)
    print(f"{name:>17}: 0 … 4 {accuracy(first, 0):.1f} % → {kept:.1f} %, 5 … 9 {learned:.1f} %")

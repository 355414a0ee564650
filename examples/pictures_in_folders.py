"""Pictures in folders, with and without the anchor: a network that reads 0 … 4 learns negatives of 5 … 9.

python examples/pictures_in_folders.py          (pip install '.[vision]' scikit-learn in the clone)
"""

import copy
import tempfile
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import forgetless

digits, root = load_digits(), Path(tempfile.mkdtemp())  # 1,797 of 8 × 8 pixels, here as files
for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    folder = root / ("old" if label < 5 else "new") / ("test" if number % 4 == 0 else "train") / str(label)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((image if label < 5 else 16 - image) * 15).astype("uint8")).save(folder / f"{number}.png")


def pictures(which: str, part: str, **more) -> DataLoader:
    read = transforms.Compose([transforms.Grayscale(), transforms.ToTensor()])
    return DataLoader(datasets.ImageFolder(root / which / part, read), batch_size=32, **more)


def train(model: nn.ModuleDict, which: str, epochs: int, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(epochs):
        for x, y in pictures(which, "train", shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model[which](model["backbone"](x)), y).backward()
            optimizer.step()


def accuracy(model: nn.ModuleDict, which: str) -> float:
    right = [(model.eval()[which](model["backbone"](x)).argmax(1) == y).float() for x, y in pictures(which, "test")]
    return 100 * float(torch.cat(right).mean())


torch.manual_seed(0)
layers = [nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 32), nn.ReLU()]
backbone = nn.Sequential(*layers)
first = nn.ModuleDict({"backbone": backbone, "old": nn.Linear(32, 5), "new": nn.Linear(32, 5)})
train(first, "old", 3, torch.optim.Adam(first.parameters(), lr=2e-3))
for name in ("plain fine-tuning", "with forgetless"):
    model = copy.deepcopy(first).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    if name == "with forgetless":
        forgetless.freeze_batchnorm(model)
        head = {"forward": lambda model, x: model["old"](model["backbone"](x)), "exclude": ["old", "new"]}
        importance = forgetless.mas(model, (x for x, _ in pictures("old", "train")), **head)
        forgetless.Anchor(model, importance).attach(optimizer)
    train(model, "new", 3, optimizer)
    kept, learned = accuracy(model, "old"), accuracy(model, "new")
    print(f"{name:>17}: 0 … 4 {accuracy(first, 'old'):.1f} % → {kept:.1f} %, 5 … 9 {learned:.1f} %")

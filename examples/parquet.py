"""Pictures in a Parquet file, read group by group, with and without the anchor: 0 … 4, then 5 … 9.

python examples/parquet.py          (pip install '.[vision]' scikit-learn in the clone)
"""

import copy
import tempfile
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import parquet
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torchvision.io import decode_image, encode_png

import forgetless

FOLDER, digits = Path(tempfile.mkdtemp()), load_digits()  # 1,797 of 8 × 8 pixels, as encoded pictures in Parquet
for half in (0, 1):
    rows = []
    for image, label in zip(digits.images, digits.target, strict=True):
        file = bytes(encode_png(torch.tensor(image * 15, dtype=torch.uint8)[None]))
        rows += [{"image": {"bytes": file}, "label": int(label) % 5}] * int(label // 5 == half)
    for part, chosen in (("test", rows[:200]), ("train", rows[200:])):
        parquet.write_table(pa.Table.from_pylist(chosen), FOLDER / f"{half}-{part}.parquet")


def batches(half: int, part: str = "train"):
    for rows in parquet.ParquetFile(FOLDER / f"{half}-{part}.parquet").iter_batches(batch_size=32):
        files = [torch.frombuffer(bytearray(row["bytes"]), dtype=torch.uint8) for row in rows["image"].to_pylist()]
        yield torch.stack(list(map(decode_image, files))).flatten(1) / 240, torch.tensor(rows["label"].to_pylist())


def train(model: nn.ModuleDict, half: int, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(12):
        for x, y in batches(half):
            optimizer.zero_grad()
            F.cross_entropy(model["heads"][half](model["backbone"](x)), y).backward()
            optimizer.step()


def accuracy(model: nn.ModuleDict, half: int) -> float:
    right = [(model["heads"][half](model["backbone"](x)).argmax(1) == y).float() for x, y in batches(half, "test")]
    return 100 * float(torch.cat(right).mean())


torch.manual_seed(0)
backbone = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
first = nn.ModuleDict({"backbone": backbone, "heads": nn.ModuleList([nn.Linear(64, 5), nn.Linear(64, 5)])})
train(first, 0, torch.optim.AdamW(first.parameters(), lr=2e-3))
answers = {"forward": lambda model, x: model["heads"][0](model["backbone"](x)), "exclude": "heads"}
importance = forgetless.mas(first, (x for x, _ in batches(0)), **answers)  # one batch in memory at a time, no labels
for name, strength in (("plain fine-tuning", 0), ("with forgetless", "auto")):
    model = copy.deepcopy(first)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    forgetless.Anchor(model, importance, strength).attach(optimizer)
    train(model, 1, optimizer)
    print(f"{name:>17}: old {accuracy(first, 0):.1f} % → {accuracy(model, 0):.1f} %, new {accuracy(model, 1):.1f} %")

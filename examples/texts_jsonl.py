"""Texts in JSON Lines, with and without the anchor: from which module of Python is a line?

python examples/texts_jsonl.py
"""

import copy
import inspect
import json
import tempfile
from importlib import import_module
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import forgetless

FOLDER = Path(tempfile.mkdtemp())
for sort, modules in {"old": ("argparse", "typing", "inspect"), "new": ("tarfile", "difflib", "pdb")}.items():
    sources = [inspect.getsource(import_module(name)).splitlines()[50:900] for name in modules]
    rows = [{"text": each, "label": label} for label, lines in enumerate(sources) for each in lines if len(each) > 30]
    rows = [rows[i] for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    (FOLDER / f"{sort}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
OLD, NEW = ([json.loads(line) for line in (FOLDER / f"{sort}.jsonl").open(encoding="utf-8")] for sort in ("old", "new"))


def collate(rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hashes of pairs of letters `[n, 79]`; labels `[n]`, which are not looked at in measuring."""
    letters = torch.tensor([list(row["text"].strip().encode("ascii", "replace")[:80].ljust(80)) for row in rows])
    return (letters[:, :-1] * 31 + letters[:, 1:]) % 2048, torch.tensor([row["label"] for row in rows])


def train(model: nn.Sequential, rows: list[dict], optimizer: torch.optim.Optimizer) -> None:
    for _ in range(4):
        for start in range(400, len(rows), 32):  # the first 400 are for testing
            x, y = collate(rows[start : start + 32])
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


def accuracy(model: nn.Sequential, rows: list[dict]) -> float:
    x, y = collate(rows[:400])
    return 100 * float((model(x).argmax(1) == y).float().mean())


torch.manual_seed(0)
layers = [nn.Embedding(2048, 32), nn.Flatten(), nn.Linear(79 * 32, 64), nn.ReLU(), nn.Linear(64, 3)]
first = nn.Sequential(*layers)
train(first, OLD, torch.optim.Adam(first.parameters(), lr=5e-3))
importance = forgetless.mas(first, OLD[400:], collate_fn=collate, exclude="4")  # all but the head
for name, strength in (("plain fine-tuning", 0), ("with forgetless", "auto")):
    model = copy.deepcopy(first)
    model[4] = nn.Linear(64, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    forgetless.Anchor(model, importance, strength).attach(optimizer)
    train(model, NEW, optimizer)
    learned, model[4] = accuracy(model, NEW), first[4]
    print(f"{name:>17}: old {accuracy(first, OLD):.1f} % → {accuracy(model, OLD):.1f} %, new {learned:.1f} %")

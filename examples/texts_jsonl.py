"""Texts in JSON Lines, with and without the anchor: a network that sorts texts learns to sort others.

    python examples/texts_jsonl.py          (needs nothing but the package: the texts come with Python)

It tells documentation from source code, and then learns which of three modules a line of code is from.
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

FOLDER, TOPICS = Path(tempfile.mkdtemp()), import_module("pydoc_data.topics").topics.values()
CODE = [inspect.getsource(import_module(name)) for name in ("argparse", "typing", "inspect")]
for sort, sources in {"old": ["\n".join(TOPICS), CODE[0]], "new": CODE}.items():
    lines = [[line for line in source.splitlines() if len(line) > 30][:700] for source in sources]
    rows = [{"text": line, "label": label} for label, several in enumerate(lines) for line in several]
    rows = [rows[i] for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    (FOLDER / f"{sort}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
OLD, NEW = ([json.loads(line) for line in (FOLDER / f"{sort}.jsonl").open(encoding="utf-8")] for sort in ("old", "new"))


def collate(rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hashes of pairs of letters `[n, 79]`, and labels `[n]`, which measuring does not look at."""
    letters = torch.tensor([list(row["text"].strip().encode("ascii", "replace")[:80].ljust(80)) for row in rows])
    return (letters[:, :-1] * 31 + letters[:, 1:]) % 2048, torch.tensor([row["label"] for row in rows])


class Sorter(nn.Module):  # noqa: D101
    def __init__(self) -> None:
        super().__init__()
        self.letters, self.layer, self.head = nn.Embedding(2048, 32), nn.Linear(32, 32), nn.Linear(32, 2)

    def forward(self, x):  # noqa: D102
        return self.head(F.relu(self.layer(self.letters(x).mean(1))))


def train(model: Sorter, rows: list[dict], optimizer: torch.optim.Optimizer) -> None:
    for _ in range(4):
        for start in range(200, len(rows), 32):  # the first 200 are for testing
            x, y = collate(rows[start : start + 32])
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


def accuracy(model: Sorter, rows: list[dict]) -> float:
    x, y = collate(rows[:200])
    return 100 * float((model(x).argmax(1) == y).float().mean())


torch.manual_seed(0)
first = Sorter()
train(first, OLD, torch.optim.Adam(first.parameters(), lr=5e-3))
importance = forgetless.mas(first, OLD[200:], collate_fn=collate, exclude="head")
for name, strength in (("plain fine-tuning", 0), ("with forgetless", forgetless.HoldShare(0.25, steps=240))):
    model = copy.deepcopy(first)
    model.head = nn.Linear(32, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    forgetless.Anchor(model, importance, strength).attach(optimizer)
    train(model, NEW, optimizer)
    learned, model.head = accuracy(model, NEW), first.head
    print(f"{name:>17}: old {accuracy(first, OLD):.1f} % → {accuracy(model, OLD):.1f} %, new {learned:.1f} %")

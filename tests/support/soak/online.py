"""A million samples through a stream without tasks: the memory stays what it was after the first few thousand."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import forgetless
from soak.parts import RESULTS, finish, save
from soak.stream import ALLOWED, BATCH, peak

FILE = RESULTS / "online.json"
_CONCEPT = 20_000  # samples until another rule decides the labels


def run(samples: int, file: Path = FILE) -> bool:
    """So many samples, whose rule changes now and then. Whether the process has grown by no more than is allowed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 2))
    stream = forgetless.TaskFreeMAS(model, torch.optim.SGD(model.parameters(), 0.1), 1e-4, mean=0.4)
    peaks = {}
    warnings.filterwarnings("ignore", message="the pull stops")
    for done in range(BATCH, samples + 1, BATCH):
        inputs = torch.randn(BATCH, 32)
        labels = (inputs[:, done // _CONCEPT % 32] > 0).long()
        stream.step(F.cross_entropy(model(inputs), labels, reduction="none"), (inputs, labels))
        if done in (samples // 100, samples // 10, samples):
            peaks[str(done)] = peak()
    first, last = peaks[str(samples // 100)], peaks[str(samples)]
    wrong = [] if last - first <= ALLOWED else [{"grown": last - first}]
    results = {"samples": samples, "plateaus": stream.updates, "peak_bytes": peaks, "grown_bytes": last - first}
    save(file, {**results, "wrong": wrong})
    return finish({**results, "wrong": wrong})

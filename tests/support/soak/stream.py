"""A million samples through one measurement: the memory stays what it was after the first few thousand."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
from torch import nn

import forgetless
from soak.parts import RESULTS, finish, save

FILE = RESULTS / "stream.json"
BATCH = 100
ALLOWED = 8 << 20  # bytes that the process may grow by: the allocator's own


def peak() -> int:
    """The most memory that the process has held so far, in bytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def run(samples: int, file: Path = FILE) -> bool:
    """So many samples. Whether the process has grown by no more than is allowed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 10))
    measurement = forgetless.Measurement(model)
    peaks = {}
    for done in range(BATCH, samples + 1, BATCH):
        measurement.add(torch.randn(BATCH, 32))
        if done in (samples // 100, samples // 10, samples):
            peaks[str(done)] = peak()
    first, last = peaks[str(samples // 100)], peaks[str(samples)]
    wrong = [] if last - first <= ALLOWED else [{"grown": last - first}]
    results = {"samples": samples, "peak_bytes": peaks, "grown_bytes": last - first, "wrong": wrong}
    save(file, results)
    return finish(results)

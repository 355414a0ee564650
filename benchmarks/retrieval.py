"""How long a search among many keys takes, exact, and how it compares with a product and a sort by PyTorch.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/retrieval.py

It writes benchmarks/results/retrieval.json, and the table of docs/facts.md.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from forgetless.lab.facts.index import Index
from importance import environment
from studies import blocks

RESULTS = Path(__file__).parent / "results" / "retrieval.json"
PAGE = Path(__file__).parents[1] / "docs" / "facts.md"
COUNTS, WIDTH, MOST, ROUNDS = (10_000, 100_000, 1_000_000), 150, 5, 20


def measure(count: int) -> dict[str, Any]:
    """Milliseconds a query, one at a time: the median and the slowest of the rounds."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(count, WIDTH, generator=generator), dim=1)
    queries = torch.nn.functional.normalize(torch.randn(ROUNDS, 1, WIDTH, generator=generator), dim=2)
    index = Index(keys.numpy())
    ours, plain, same = [], [], True
    for query in queries:
        start = time.perf_counter()
        found = index.nearest(query.numpy(), MOST)[0]
        ours.append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        expected = (query @ keys.T)[0].topk(MOST)
        plain.append(1000 * (time.perf_counter() - start))
        same &= [number for number, _ in found] == expected.indices.tolist()
    return {"keys": count, "faiss": ours, "torch": plain, "same": same}


def main() -> None:
    """See the top of this file."""
    torch.set_num_threads(1)
    found = {"rows": [measure(count) for count in COUNTS], "environment": environment("wall")}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        f"| keys of {WIDTH} numbers | FAISS, ms a query: median, slowest | PyTorch, median | same {MOST} answers |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        ours, plain = (statistics.median(row[name]) for name in ("faiss", "torch"))
        slowest = max(row["faiss"])
        lines.append(
            f"| {row['keys']:,} | {ours:.1f}, {slowest:.1f} | {plain:.1f} | {'yes' if row['same'] else 'no'} |"
        )
    blocks.inserted(PAGE, "retrieval", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

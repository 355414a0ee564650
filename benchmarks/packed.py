"""What measuring packed rows costs: `forgetless.mas` ÷ a plain forward and backward pass on the same packed batch.

    OMP_NUM_THREADS=1 python benchmarks/packed.py --clock cpu   # writes benchmarks/results/packed.json
    python benchmarks/packed.py --table                         # rewrites the table in docs/performance.md

A Llama of four layers, 256 wide (3.9 million parameters, random), and four rows of 512 tokens that hold documents of
about the length in the column. Plain is `‖F‖²` of the packed rows as they are. In every round plain and measuring take
turns; the ratio is the median over rounds. A first batch, with all that is planned, comes before.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import forgetless
from importance import Clock, environment
from rounds import footer, run

ROWS, LENGTH, VOCABULARY = 4, 512, 512
CASES = {"documents of 32 tokens": 32, "of 64": 64, "of 128": 128, "of 341": 341}


def make() -> nn.Module:
    """The model, in eval mode."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    return transformers.LlamaForCausalLM(config).eval()


def packed(about: int) -> dict[str, Tensor]:
    """Rows of documents of 0.75 to 1.25 times this length, the last one of a row cut."""
    draw = torch.Generator().manual_seed(0)
    places = []
    for _ in range(ROWS):
        row: list[Tensor] = []
        while sum(map(len, row)) < LENGTH:
            row.append(torch.arange(int(about * (0.75 + 0.5 * float(torch.rand((), generator=draw))))))
        places.append(torch.cat(row)[:LENGTH])
    ids = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=draw)
    return {"input_ids": ids, "position_ids": torch.stack(places)}


def measure(case: str, clock: Clock, rounds: int) -> dict[str, Any]:
    """Time of one case."""
    model, batch = make(), packed(CASES[case])
    measurement = forgetless.Measurement(model, prove=False)
    documents = measurement.add(batch)

    def plain() -> None:
        model(**batch, use_cache=False).logits.square().sum().backward()
        model.zero_grad(set_to_none=True)

    ratios = []
    for turn in range(rounds + 1):
        seconds = clock.time(plain)
        ratio = clock.time(lambda: measurement.add(batch)) / seconds
        if turn:  # the first one warms up
            ratios.append(ratio)
    return {
        "documents": documents,
        "rows": {"mas": {"ratio": statistics.median(ratios), "ratios": ratios}},
        "environment": environment(clock.kind),
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = [case for case in CASES if case in results]
    spans = [[end(results[name]["rows"]["mas"]["ratios"]) for end in (min, max)] for name in names]
    rows = {
        "documents in the batch": [f"{results[name]['documents']}" for name in names],
        "`mas` ÷ plain, a later batch": [f"{results[name]['rows']['mas']['ratio']:.2f}" for name in names],
        "its smallest and largest round": [f"{low:.2f}–{high:.2f}" for low, high in spans],
    }
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in rows.items()]
    return "\n".join([*lines, *footer(results, names)])


if __name__ == "__main__":
    run(__doc__, CASES, measure, table, "packed", rounds=9)

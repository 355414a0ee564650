"""What a compressed memory costs: a training step beside Transformer-XL's, the compressors' losses, attention, memory.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/compressive.py

It writes benchmarks/results/compressive.json, and the table of docs/long-text.md. Every row is timed in turn with
Transformer-XL with as many positions in its memory, round by round, on the clock of the process (one thread, so that
other work on the machine counts little); reported is the median of the ratio to the Transformer-XL of its round.
"""

from __future__ import annotations

import json
import math
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.lab.networks.compressive import CompressiveTransformer, Sizes
from forgetless.lab.networks.parts.relative_attention import RelativeAttention, causal, shifted, sinusoids
from importance import environment
from studies import blocks

RESULTS = Path(__file__).parent / "results" / "compressive.json"
PAGE = Path(__file__).parents[1] / "docs" / "long-text.md"
SIZES = Sizes(symbols=256, width=128, heads=4, layers=4, memory=64, compressed=96, rate=3)
ROWS, WINDOW, ROUNDS, STREAM = 8, 64, 15, 1_000_000
KINDS = {
    "max": "none",
    "mean": "none",
    "most-used": "none",
    "conv": "attention",
    "dilated": "attention",
}


class Stepper:
    """Training steps of one network on random bytes, with full memories from the beginning."""

    def __init__(self, sizes: Sizes, learns: bool = True) -> None:
        torch.manual_seed(0)
        self.model, self.learns = CompressiveTransformer(sizes), learns
        network = list(self.model.parameters())
        compressors = {id(each) for each in self.model.compressor_parameters()}
        trained = network if learns else [each for each in network if id(each) not in compressors]
        if not learns:
            for each in self.model.compressor_parameters():
                each.requires_grad_(False)
            for block in self.model._layers():
                block.loss = "none"
        self.optimizer = torch.optim.Adam(trained, 1e-3, fused=True)
        self.memory: Any = None
        for _ in range(8):
            self.step()

    def step(self) -> None:
        """One window."""
        tokens = torch.randint(256, (ROWS, WINDOW + 1))
        found = self.model.step(tokens[:, :-1], self.memory)
        self.memory = found.memory.detach()
        loss = F.cross_entropy(found.logits.flatten(0, 1), tokens[:, 1:].flatten())
        self.optimizer.zero_grad()
        (loss + found.loss).backward()
        self.optimizer.step()


def seconds(step: Callable[[], Any]) -> float:
    """Of this process, for one call."""
    start = time.process_time()
    step()
    return time.process_time() - start


def steps() -> dict[str, Any]:
    """Ratios of a training step to Transformer-XL's, without and with the compressors' losses."""
    plain = Stepper(_changed(memory=SIZES.memory + SIZES.compressed, compressed=0))
    rows = {
        f"{name}, {'with' if learns else 'without'} its loss": (name, loss, learns)
        for name, loss in KINDS.items()
        for learns in ((False, True) if loss != "none" else (False,))
    }
    found: dict[str, list[float]] = {name: [] for name in rows}
    steppers = {
        name: Stepper(_changed(compressor=kind, loss=loss), learns) for name, (kind, loss, learns) in rows.items()
    }
    milliseconds = []
    for _ in range(ROUNDS):
        base = seconds(plain.step)
        milliseconds.append(1000 * base)
        for name, each in steppers.items():
            found[name].append(seconds(each.step) / base)
    return {"transformer-xl, ms": milliseconds, "ratios": found}


def _changed(**changes: Any) -> Sizes:
    from dataclasses import replace

    return replace(SIZES, **changes)


def fused(layer: RelativeAttention, x: Tensor, past: Tensor, encoded: Tensor, mask: Tensor) -> Tensor:
    """The same attention by torch's scaled_dot_product_attention, with the distances' scores as its mask."""
    n, t, width = x.shape
    queries = layer._split(layer.query(x))
    seen = torch.cat([layer.key_value(past), layer.key_value(x)], 1)
    keys, values = map(layer._split, seen.chunk(2, -1))
    distances = layer.distance(encoded).view(len(encoded), layer.heads, -1).permute(1, 2, 0)
    about = (queries + layer.distance_bias[:, None]) * (width // layer.heads) ** -0.5
    scores = torch.bmm(about.view(layer.heads, n * t, -1), distances).view(layer.heads, n, t, -1)
    added = shifted(scores) + mask
    found = F.scaled_dot_product_attention(queries + layer.content_bias[:, None], keys, values, attn_mask=added)
    return layer.out(layer._joined(found))


def attention() -> dict[str, list[float]]:
    """Forward and backward of one layer's attention: the explicit one in use, and torch's fused one, milliseconds."""
    torch.manual_seed(0)
    keys = WINDOW + SIZES.memory + SIZES.compressed
    layer = RelativeAttention(SIZES.width, SIZES.heads)
    x, past = torch.randn(ROWS, WINDOW, SIZES.width, requires_grad=True), torch.randn(ROWS, keys - WINDOW, SIZES.width)
    encoded, mask = sinusoids(keys, SIZES.width, x), causal(WINDOW, keys, x)
    ways: dict[str, Callable[[], Tensor]] = {
        "explicit": lambda: layer(x, past, encoded, mask)[0],
        "scaled_dot_product_attention": lambda: fused(layer, x, past, encoded, mask),
    }
    torch.testing.assert_close(*(way() for way in ways.values()), rtol=1e-4, atol=1e-5)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            found[name].append(1000 * seconds(lambda way=way: way().sum().backward()))  # type: ignore[misc]
    return found


@torch.no_grad()
def stream() -> dict[str, Any]:
    """A tiny network reads a million tokens; the process's peak memory after a tenth of them and at the end, MiB."""
    model = CompressiveTransformer(Sizes(symbols=256, width=8, heads=1, layers=1, memory=64, compressed=64, rate=3))
    memory, peaks, window = None, [], 500
    for number in range(STREAM // window):
        _, memory = model(torch.randint(256, (1, window)), memory)
        if number in (STREAM // window // 10, STREAM // window - 1):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert memory is not None
    return {"tokens": memory.seen, "peaks": peaks, "kept": sum(each.numel() for each in memory.tensors().values())}


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    ms = statistics.median(found["steps"]["transformer-xl, ms"])
    lines = [f"| a training step ÷ Transformer-XL's ({ms:.0f} ms) | |", "|---|---|"]
    for name, ratios in found["steps"]["ratios"].items():
        shown = name if KINDS[name.partition(",")[0]] != "none" else name.partition(",")[0]
        lines.append(f"| {shown} | {statistics.median(ratios):.2f} |")
    one, other = (statistics.median(each) for each in found["attention"].values())
    read = found["stream"]
    grown = read["peaks"][1] - read["peaks"][0]
    place = found["environment"]
    lines += [
        "",
        f"Four layers of width {SIZES.width}, {ROWS} rows, {WINDOW} / {SIZES.memory} / {SIZES.compressed}, "
        f"c = {SIZES.rate}. Forward and backward of a layer's attention take {one:.1f} ms written out (in use), "
        f"and {other:.1f} ms by `scaled_dot_product_attention` with the scores of distances as its mask. Over "
        f"{read['tokens']:,} tokens the process's peak memory grew by {math.ceil(max(0.0, grown))} MiB after the first "
        f"tenth; a memory always holds {read['kept']:,} numbers. {place['cpu']}, one thread, clock: "
        f"cpu, load {place['load']:.1f}; torch {place['torch']}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """See the top of this file."""
    torch.set_num_threads(1)
    read = stream()  # first, for the peak of memory is the process's
    found = {"steps": steps(), "attention": attention(), "stream": read, "environment": environment("cpu")}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    blocks.inserted(PAGE, "compressive", blocks.wrapped(table(found)))
    print(table(found))


if __name__ == "__main__":
    main()

"""Is Ω worth having under LoRA? A small language model learns Wikipedia, then Shakespeare through adapters.

    python -m studies.lora --run --data DATA   # DATA holds wikitext2/ and tinyshakespeare/; writes the table as well
    python -m studies.lora                     # writes the table of docs/lora.md only

A Llama of two layers reads bytes. Its perplexity on held-out text of both kinds, after the adapters were trained:
without protection; with `DeltaAnchor`; and with the same penalty for every weight, the mean of Ω, which is `‖ΔW‖²`.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import Importance, files
from forgetless.errors import ForgetlessError
from forgetless.integrations.peft import DeltaAnchor
from forgetless.measure.estimators.mas import mas
from studies import blocks

SEEDS, STRENGTHS = (0, 1, 2), (1e-5, 1e-4, 1e-3)
LENGTH, BATCH, FIRST, SECOND, MEASURED, HELD_OUT = 64, 8, 600, 150, 200, 200


def texts(data: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Bytes to learn from and held-out ones, of both kinds of text; what is not ASCII becomes one byte."""
    wiki, plays = data / "wikitext2", data / "tinyshakespeare" / "input.txt"
    written = plays.read_bytes()
    cut = len(written) * 9 // 10
    found = {
        "old": ((wiki / "valid.txt").read_bytes(), (wiki / "test.txt").read_bytes()),
        "new": (written[:cut], written[cut:]),
    }
    return {name: (_bytes(learned), _bytes(held)) for name, (learned, held) in found.items()}


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long().clamp(max=127)


def windows(text: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Pieces of a text, `[count, LENGTH]`."""
    starts = torch.randint(len(text) - LENGTH, (count,), generator=generator)
    return text[starts[:, None] + torch.arange(LENGTH)]


def learn(model: nn.Module, text: Tensor, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    """Train on a text; the rate falls to 0."""
    generator = torch.Generator().manual_seed(seed)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        batch = windows(text, BATCH, generator)
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def perplexity(model: nn.Module, text: Tensor) -> float:
    """By byte, on pieces of a held-out text that are the same for all models."""
    batch = windows(text, HELD_OUT, torch.Generator().manual_seed(0))
    return math.exp(float(model(input_ids=batch, labels=batch).loss))


def alike(importance: Importance) -> Importance:
    """The same for every weight: the mean of Ω."""
    total = math.fsum(float(each.sum(dtype=torch.float64)) for each in importance.sums.values())
    mean = total / sum(each.numel() for each in importance.sums.values())
    return replace(importance, sums={name: torch.full_like(each, mean) for name, each in importance.sums.items()})


def adapted(base: nn.Module, text: Tensor, seed: int, importance: Importance | None, strength: float) -> nn.Module:
    """The model with adapters in all linear layers of its blocks, trained on a text."""
    import peft

    torch.manual_seed(seed)
    model: nn.Module = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(target_modules="all-linear", r=8))
    optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), 5e-3, weight_decay=0)
    if importance is not None:
        DeltaAnchor(model, importance, strength).attach(optimizer)
    learn(model, text, optimizer, SECOND, seed + 1000)
    return model


def study(read: Mapping[str, tuple[Tensor, Tensor]], seed: int) -> list[dict[str, Any]]:
    """The perplexities of one seed, a row for each kind of training."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    base = transformers.LlamaForCausalLM(config)
    learn(base, read["old"][0], torch.optim.AdamW(base.parameters(), 3e-3), FIRST, seed)
    measured = windows(read["old"][0], MEASURED, torch.Generator().manual_seed(seed))
    importance = mas(base, {"input_ids": measured}, exclude=("*norm*", "*embed*", "lm_head"), progress=False)
    rows = [_row("before", 0.0, seed, base, read)]
    kinds: dict[str, Importance | None] = {"plain LoRA": None, "Ω": importance, "every weight alike": alike(importance)}
    for name, found in kinds.items():
        for strength in (0.0,) if found is None else STRENGTHS:
            rows.append(_row(name, strength, seed, adapted(base, read["new"][0], seed, found, strength), read))
    return rows


def _row(
    kind: str, strength: float, seed: int, model: nn.Module, read: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    row = {name: perplexity(model, held) for name, (_, held) in read.items()}
    print(f"seed {seed}: {kind}, {strength:g}: old {row['old']:.2f}, new {row['new']:.2f}", flush=True)
    return {"kind": kind, "strength": strength, "seed": seed, **row}


def table(found: Mapping[str, Any]) -> str:
    """Means over seeds with their standard deviations, as a Markdown table."""
    lines = ["| adapters | λ | old text | new text |", "|---|---|---|---|"]
    groups: dict[tuple[str, float], list[dict[str, float]]] = {}
    for row in found["rows"]:
        groups.setdefault((row["kind"], row["strength"]), []).append(row)
    for (kind, strength), rows in groups.items():
        cells = [f"{statistics.fmean(each):.2f} ± {statistics.stdev(each):.2f}" for each in _columns(rows)]
        lines.append(f"| {kind} | {f'{strength:g}' if strength else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _columns(rows: Sequence[Mapping[str, float]]) -> list[list[float]]:
    return [[row[name] for row in rows] for name in ("old", "new")]


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.lora", description=__doc__)
    parser.add_argument("--run", action="store_true", help="train anew; takes some minutes")
    parser.add_argument("--data", type=Path, help="the folder of texts")
    parser.add_argument("--out", type=Path, default=Path("results/lora/perplexity.json"), help="the file of results")
    parser.add_argument("--page", type=Path, default=Path("docs/lora.md"), help="the page that takes the table")
    options = parser.parse_args(words)
    if options.run:
        if options.data is None:
            raise ForgetlessError("a run needs texts: give their folder with --data.")
        warnings.simplefilter("ignore")
        read = texts(options.data)
        files.write_sealed(options.out, {"rows": [row for seed in SEEDS for row in study(read, seed)]})
    blocks.inserted(options.page, "lora", table(files.read_sealed(options.out)))


if __name__ == "__main__":
    main()

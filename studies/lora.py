"""Is Ω worth having under LoRA? A small language model learns Wikipedia, then Shakespeare through adapters.

    python -m studies.lora --run --data DATA   # DATA holds wikitext2/ and tinyshakespeare/; writes the table as well
    python -m studies.lora                     # writes the table of docs/lora.md only

A Llama of two layers reads bytes. Its perplexity on held-out text of both kinds, after the adapters were trained:
without protection; with `DeltaAnchor`, at given λ and at its default; with the same penalty for every weight, the mean
of Ω, which is `‖ΔW‖²`; and with the base's answers to the windows that Ω is measured on as a target (`Distillation`).
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import Distillation, Importance, files
from forgetless.errors import ForgetlessError
from forgetless.integrations.peft import DeltaAnchor
from forgetless.measure.estimators.mas import mas
from studies import blocks

Protected = Callable[[nn.Module], Any]
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


def adapted(base: nn.Module, text: Tensor, seed: int, protected: Protected | None) -> nn.Module:
    """The model with adapters in all linear layers of its blocks, trained on a text."""
    import peft

    torch.manual_seed(seed)
    model: nn.Module = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(target_modules="all-linear", r=8))
    optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), 5e-3, weight_decay=0)
    if protected is not None:
        protected(model).attach(optimizer)
    learn(model, text, optimizer, SECOND, seed + 1000)
    return model


def protections(importance: Importance, measured: Tensor) -> dict[tuple[str, float], Protected | None]:
    """Every way to train the adapters, by its name in the table and λ, 0 where none is given."""
    old = [{"input_ids": rows} for rows in torch.split(measured, BATCH)]
    return {
        ("plain LoRA", 0.0): None,
        **{("Ω", each): partial(DeltaAnchor, importance=importance, strength=each) for each in STRENGTHS},
        ("Ω, default (`HoldShare`)", 0.0): partial(DeltaAnchor, importance=importance, strength="auto"),
        **{
            ("every weight alike", each): partial(DeltaAnchor, importance=alike(importance), strength=each)
            for each in STRENGTHS
        },
        ("old answers, default (`Distillation`)", 1.0): partial(Distillation, old=old, strength=1.0),
    }


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
    for (kind, strength), protected in protections(importance, measured).items():
        rows.append(_row(kind, strength, seed, adapted(base, read["new"][0], seed, protected), read))
    return rows


def _row(
    kind: str, strength: float, seed: int, model: nn.Module, read: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    row = {name: perplexity(model, held) for name, (_, held) in read.items()}
    print(f"seed {seed}: {kind}, {strength:g}: old {row['old']:.2f}, new {row['new']:.2f}", flush=True)
    return {"kind": kind, "strength": strength, "seed": seed, **row}


def table(found: Mapping[str, Any]) -> str:
    """Means over seeds with their standard deviations, and two shares in nats, as a Markdown table."""
    groups: dict[tuple[str, float], dict[int, Mapping[str, float]]] = {}
    for row in found["rows"]:
        groups.setdefault((row["kind"], row["strength"]), {})[row["seed"]] = row
    before, plain = groups["before", 0.0], groups["plain LoRA", 0.0]
    lines = [
        "| adapters | λ | old text | new text | won back, % | of the new skill kept, % |",
        "|---|---|---|---|---|---|",
    ]
    for (kind, strength), rows in groups.items():
        cells = [_cell([row[name] for row in rows.values()], 2) for name in ("old", "new")]
        won = [100 * _share("old", rows[seed], plain[seed], before[seed]) for seed in rows]
        kept = [100 * _share("new", rows[seed], before[seed], plain[seed]) for seed in rows]
        cells += ["", ""] if kind == "before" else [_cell(won, 0), _cell(kept, 0)]
        lines.append(f"| {kind} | {f'{strength:g}' if strength else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(name: str, row: Mapping[str, float], none: Mapping[str, float], all_: Mapping[str, float]) -> float:
    """How far a log-perplexity is on the way from one row's to another's."""
    return math.log(row[name] / none[name]) / math.log(all_[name] / none[name])


def _cell(values: Sequence[float], digits: int) -> str:
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


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

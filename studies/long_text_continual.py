"""What weights and memories keep when a language model reads novels, then code, then documentation.

    python -m studies.long_text_continual --run --texts TEXTS   # goes on where it stopped
    python -m studies.long_text_continual                       # writes the table of docs/long-text.md

Transformer-XL and the Compressive Transformer with as many positions in memory learn the three one after the other,
plainly or with MAS: before the second and the third, Ω is measured on windows of what was learned, unlabeled, and an
anchor with its default strength acts. Nothing was searched. TEXTS is made by `studies.long_text_data`; code is Python's
standard library. A run is one network, method and seed; it is a file in the run directory.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import forgetless
from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.evaluation import bits_per_character, measure
from forgetless.lab.long_text.reading import Tokens, window
from forgetless.lab.long_text.recipes import Recipe
from forgetless.lab.long_text.training import train
from forgetless.lab.long_text.vocabularies import Bytes
from forgetless.lab.networks.compressive import CompressiveTransformer, compressive_transformer
from forgetless.lab.running.environment import environment
from forgetless.learn.seeding import derive
from studies import blocks
from studies.evidence.language_texts import code

RUNS, OUT = Path("runs/long-text-continual"), Path("results/long-text/continual.json")
DOMAINS = ("novels", "code", "documentation")
SIZES = {"width": 128, "layers": 2, "heads": 4}
#: Both keep 64 positions a layer; the compressed ones reach back 32 + 3 · 32.
NETWORKS: Mapping[str, dict[str, int]] = {
    "transformer-xl": {"memory": 64, "compressed": 0},
    "conv+attention": {"memory": 32, "compressed": 32, "rate": 3},
}
METHODS = ("finetune", "mas")
RECIPE = Recipe(steps=1500, window=32, rows=16, warm_up=100, decay=1400, high=3e-3)
MEASURED, HELD_OUT, ASKED = 256, 200_000, 60_000  # windows, bytes, bytes


def texts(folder: Path) -> dict[str, tuple[Tokens, Tokens]]:
    """Each domain's text to learn from, and its held-out end."""
    read = {
        "novels": (folder / "austen.txt").read_bytes() + (folder / "moby-dick.txt").read_bytes(),
        "code": code(folder, folder).encode(),
        "documentation": (folder / "docs.txt").read_bytes(),
    }
    vocabulary = Bytes()

    def tokens(text: bytes, name: str) -> Tokens:
        return Tokens(vocabulary.encode(text, name), len(text))

    return {name: (tokens(text[:-HELD_OUT], name), tokens(text[-HELD_OUT:], name)) for name, text in read.items()}


def importance(model: CompressiveTransformer, text: Tokens, recipe: Recipe, count: int) -> forgetless.Importance:
    """Ω of MAS on windows of a text, each after as many bytes as the memory reaches back; no gradient goes there."""
    before = recipe.window * -(-(model.sizes.memory + model.sizes.compressed * model.sizes.rate) // recipe.window)
    rows, _ = window(text.tokens, 0, 0, count, before + recipe.window)

    def forward(network: Any, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            memory = network.empty(len(tokens))
            for part in torch.split(tokens[:, :before], recipe.window, 1):
                memory = network(part, memory)[1]
        logits: Tensor = network(tokens[:, before:], memory)[0]
        return logits

    return forgetless.mas(model, rows, forward=forward, batch_size=16, progress=False)


def learned(
    network: str, method: str, seed: int, domains: Mapping[str, tuple[Tokens, Tokens]], recipe: Recipe = RECIPE
) -> dict[str, Any]:
    """One network through all domains: bits per character on each of them after each.

    `now` is [after a domain][of a domain]; `recent` is the last row of it without compressed memories.
    """
    model = compressive_transformer(derive(seed, "weights"), symbols=Bytes.symbols, **SIZES, **NETWORKS[network])
    # A dial counts steps at the peak rate.
    strength = forgetless.HoldShare(0.5, steps=sum(map(recipe.rate, range(recipe.steps))) / recipe.high)
    anchor: forgetless.Anchor | None = None
    now = []
    for place, (name, (text, _)) in enumerate(domains.items()):
        train(model, text, recipe, seed=derive(seed, name), attach=None if anchor is None else anchor.attach)
        now.append([_bits(model, each, recipe) for _, each in domains.values()])
        if method == "finetune" or place + 1 == len(domains):
            continue
        omega = importance(model, text, recipe, MEASURED)
        if anchor is None:
            anchor = forgetless.Anchor(model, omega, strength)
        else:
            anchor.detach()
            anchor.consolidate(omega)
    entry: dict[str, Any] = {"network": network, "method": method, "seed": seed, "now": now}
    if model.sizes.compressed:
        model.keep(model.sizes.memory, 0)
        entry["recent"] = [_bits(model, each, recipe) for _, each in domains.values()]
    return entry


def _bits(model: CompressiveTransformer, text: Tokens, recipe: Recipe) -> float:
    return round(bits_per_character(measure(model, text, recipe.rows, recipe.window, ASKED), Bytes()), 5)


def run(folder: Path, out: Path, seeds: Sequence[int]) -> None:
    """Run what is missing, all of one seed before the next."""
    domains = texts(folder)
    for seed in seeds:
        for network in NETWORKS:
            for method in METHODS:
                path = out / f"{network}-{method}-{seed}.json"
                if not path.exists():
                    files.write_json(path, {**learned(network, method, seed, domains), "environment": environment()})
                    print(f"{network}, {method}, seed {seed}: {files.read_json(path)['now']}", flush=True)


def collect(out: Path, path: Path) -> None:
    """Put the finished runs into the committed results.

    Raises:
        ForgetlessError: there are none.
    """
    runs = [files.read_json(each) for each in sorted(out.glob("*.json"))]
    if not runs:
        raise ForgetlessError(f"{out} holds no finished run; run the command with --run.")
    places = {entry["cpu"]: entry for entry in (run.pop("environment") for run in runs)}
    files.write_sealed(path, {"domains": list(DOMAINS), "environments": list(places.values()), "runs": runs})


def table(found: Mapping[str, Any]) -> str:
    """Bits per character when learned and at the end, means over seeds, and what was forgotten."""
    head = ["network", "method", *(f"{name}, learned → now" for name in DOMAINS[:-1]), DOMAINS[-1]]
    lines = ["| " + " | ".join([*head, "forgotten", "mean now", "seeds"]) + " |", "|---" * (len(head) + 3) + "|"]
    for network in NETWORKS:
        for method in METHODS:
            runs = [run for run in found["runs"] if (run["network"], run["method"]) == (network, method)]
            if runs:
                lines.append(f"| {network} | {method} | {' | '.join(_cells(runs))} | {len(runs)} |")
    return "\n".join(lines)


def _cells(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    last = len(DOMAINS) - 1
    when = [[run["now"][place][place] for run in runs] for place in range(last + 1)]
    end = [[run["now"][last][place] for run in runs] for place in range(last + 1)]
    cells = [f"{_mean(when[place])} → {_mean(end[place])}" for place in range(last)]
    lost = [statistics.fmean(run["now"][last][k] - run["now"][k][k] for k in range(last)) for run in runs]
    return [*cells, _mean(end[last]), _spread(lost), _spread([statistics.fmean(run["now"][last]) for run in runs])]


def without(found: Mapping[str, Any]) -> str:
    """What a network loses at the end without its compressed memories, on each domain."""
    lines = ["| conv+attention | " + " | ".join(DOMAINS) + " |", "|---" * (len(DOMAINS) + 1) + "|"]
    for method in METHODS:
        runs = [run for run in found["runs"] if run["method"] == method and "recent" in run]
        if runs:
            more = [[run["recent"][k] - run["now"][-1][k] for run in runs] for k in range(len(DOMAINS))]
            lines.append(f"| {method} | " + " | ".join(_spread(each) for each in more) + " |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f}"


def _spread(values: Sequence[float]) -> str:
    return _mean(values) + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def write(path: Path, page: Path) -> None:
    """Write the tables of the page.

    Raises:
        ForgetlessError: the results are missing or damaged, or the page lacks the block.
    """
    found = files.read_sealed(path)
    blocks.inserted(page, "long text, continual", f"{table(found)}\n\n{without(found)}")


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.long_text_continual", description=__doc__)
    parser.add_argument("--run", action="store_true", help="run what is missing")
    parser.add_argument("--texts", type=Path, help="the folder that studies.long_text_data wrote")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the run directory")
    parser.add_argument("--results", type=Path, default=OUT, help="the results")
    parser.add_argument("--page", type=Path, default=Path("docs/long-text.md"), help="the page that takes the tables")
    options = parser.parse_args(words)
    if options.run:
        if options.texts is None:
            raise ForgetlessError("a run needs texts: give their folder with --texts.")
        torch.set_num_threads(1)
        run(options.texts, options.runs, range(options.seeds))
        collect(options.runs, options.results)
    write(options.results, options.page)


if __name__ == "__main__":
    main()

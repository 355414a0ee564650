"""What protecting old tasks with MAS costs new ones, and what lowers that cost.

    python -m studies.plasticity --data DATA

The eight tasks under MAS, under two other ways to combine the Ω of several tasks, and with the strength controlled by a
target for the old answers. The file is that of any results (`forgetless report` shows it), a method for each variant;
"frozen fraction" is the share of every layer's weights that the pull freezes, before each task. Nothing is chosen by
test accuracy.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless import Anchor, KeepAgreement
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.datasets.reading.pictures import stratified
from forgetless.lab.experiments import eight_tasks
from forgetless.lab.running.environment import environment
from forgetless.lab.running.experiment import Experiment
from forgetless.learn.methods.mas import MAS
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.measure.importance import Importance

OUT = Path("results/plasticity/eight-tasks.json")
_PROBES = 100  # pictures of a task to ask about


@dataclass
class Studied(MAS):
    """MAS that notes what it freezes, and may combine the Ω of several tasks, or find λ, in another way.

    Attributes:
        gamma: what is kept of the old tasks' Ω when one is added; the paper's 1. With 1/2 a task counts half after the
            next, a quarter after the one that follows.
        alike: whether every task's Ω is scaled to the sum of the first one's, so that no task outweighs the others
            because its outputs are larger.
        target: the share of answers that `KeepAgreement` keeps while a task is learned, on pictures of each earlier
            task under its own head; λ then only starts at `strength`. None for a constant λ.
        probes: task → pictures of it to ask about; 100 of its training pictures for a task that is not there.
        frozen: before each task, layer → the share of its weights that the pull freezes (`Anchor.frozen_fraction`).
    """

    name: ClassVar[str] = "mas-studied"
    gamma: float = 1.0
    alike: bool = False
    target: float | None = None
    probes: Mapping[str, Tensor] = field(default_factory=dict)
    frozen: list[dict[str, float]] = field(default_factory=list, init=False)
    _sum: float | None = field(default=None, init=False, repr=False)
    _old: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """λ and the changes."""
        return {"strength": self.strength, "gamma": self.gamma, "alike": self.alike, "target": self.target}

    def measure(self, model: Network, task: Task) -> Importance:
        """Eq. 2, scaled if asked for."""
        found = super().measure(model, task)
        if not self.alike:
            return found
        own = sum(float(each.sum()) for each in found.mean().values())
        self._sum = own if self._sum is None else self._sum
        scaled: dict[str, Tensor] = {name: each * (self._sum / own) for name, each in found.sums.items()}
        return Importance(scaled, found.count, found.estimator)

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Attach, and note what is frozen."""
        if self.target is not None and self._old:
            self._leave_to(self._agreement(self.target), model)
        super().begin(model, task, optimizer)
        found = self.anchor(model).frozen_fraction()
        self.frozen.append({**found.per_layer, "all": float(found)})

    def end(self, model: Network, task: Task) -> None:
        """Decay the old tasks' Ω, then add this one's."""
        anchor = self.anchor(model)
        anchor.detach()
        anchor.consolidate(self.measure(model, task), self.gamma)
        seen = task.train[0][torch.randperm(len(task.train[0]))[:_PROBES]]
        self._old[task.name] = self.probes.get(task.name, seen)

    def _agreement(self, target: float) -> KeepAgreement:
        names = list(self._old)
        batches = [
            {"inputs": inputs, "task": torch.full((len(inputs),), number)}
            for number, inputs in enumerate(self._old.values())
        ]

        def answer(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            logits: Tensor = model(batch["inputs"], names[int(batch["task"][0])])
            return logits

        return KeepAgreement(target, batches, forward=answer, start=float(self.strength))

    def _leave_to(self, dial: KeepAgreement, model: Network) -> None:
        """Let the dial set the strength from here on, at the current θ* and Ω."""
        held = self.anchor(model).state_dict()
        self._anchor = Anchor(model, None, dial)
        self._anchor.load_state_dict(held)
        dial.remember(model)


#: What is compared: how Ω is kept, at the strength that stability decay found and at a tenth of it; and a target, asked
#: about on pictures that were learned from, or on some that were not.
VARIANTS: dict[str, dict[str, Any]] = {
    "λ = 3": {"strength": 3.0},
    "λ = 3, old Ω halved at every task": {"strength": 3.0, "gamma": 0.5},
    "λ = 3, every task's Ω of one sum": {"strength": 3.0, "alike": True},
    "λ = 0.3": {"strength": 0.3},
    "λ = 0.3, old Ω halved at every task": {"strength": 0.3, "gamma": 0.5},
    "98 % of old answers kept, on 100 pictures learned from": {"strength": 3.0, "target": 0.98},
    "λ = 3, 100 pictures fewer": {"strength": 3.0, "unseen": True},
    "98 % of old answers kept, on those 100": {"strength": 3.0, "target": 0.98, "unseen": True},
}


def study(experiment: Experiment, settings: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """R, and what was frozen before each task. With `unseen`, 100 pictures of each task are not learned from."""
    own, tasks = dict(settings), list(experiment.tasks)
    if own.pop("unseen", False):
        apart = [_apart(task) for task in tasks]
        tasks = [task for task, _ in apart]
        own["probes"] = {task.name: probes for task, probes in apart}
    method = Studied(**own)
    outcome = learn(experiment.network(seed), tasks, method, experiment.recipe, seed=seed)
    return {"accuracy": outcome.accuracy, "frozen fraction": method.frozen}


def _apart(task: Task) -> tuple[Task, Tensor]:
    """The task without 100 of its training pictures, class by class, and those."""
    inputs, labels = task.train
    chosen = stratified(labels, len(labels) - _PROBES, 0)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    return dataclasses.replace(task, train=(inputs[chosen], labels[chosen])), inputs[rest]


def main(words: Sequence[str] | None = None) -> None:
    """The command; what `--out` holds already is kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.plasticity", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the image datasets")
    parser.add_argument(
        "--out", type=Path, default=Path("results/plasticity/eight-tasks.json"), help="the file to write"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    options = parser.parse_args(words)
    try:
        experiment = eight_tasks.EightTasks(data=options.data).build()
        assert isinstance(experiment, Experiment)
        found: dict[str, Any] = {
            "experiment": "plasticity",
            "tasks": [task.name for task in experiment.tasks],
            "runs": [],
        }
        if options.out.exists():
            found = results.read(options.out)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")
    found["environment"] = environment()
    done = {(each["method"], each["seed"]) for each in found["runs"]}
    for seed in range(options.seeds):
        for name, settings in VARIANTS.items():
            if (name, seed) not in done:
                found["runs"].append({"method": name, "seed": seed, **study(experiment, settings, seed)})
                results.write(options.out, found)
                print(f"{name}, seed {seed}: {found['runs'][-1]['accuracy'][-1]}")


if __name__ == "__main__":
    main()

"""How many bytes every method keeps from one task to the next, measured on the networks of the eight tasks.

python -m studies.eight_memory --data DATA
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.experiments import eight_tasks
from forgetless.lab.running.experiment import Experiment
from forgetless.learn.position import Progress
from forgetless.learn.task import Task
from forgetless.learn.train import learn

_SAMPLES = 8  # what is kept of these methods does not depend on how many samples there were
#: Joint training keeps all samples; its memory is that of the data.
METHODS = tuple(name for name in eight_tasks.METHODS if name != "joint")


def kept(experiment: Experiment, name: str) -> list[int]:
    """The bytes of `method.state()` after each task: all that it needs besides the network itself.

    Every task is learned for an epoch on a few of its samples, for real heads of real widths.
    """
    method, found = experiment.create(name), list[int]()

    def note(progress: Progress) -> None:
        if progress.phase == "evaluate":
            found.append(sum(tensor.numel() * tensor.element_size() for tensor in method.state().values()))

    tasks = [_short(task) for task in experiment.tasks]
    recipe = dataclasses.replace(experiment.recipe, epochs=1)
    learn(experiment.network(0), tasks, method, recipe, seed=0, on_progress=note)
    return found


def samples(experiment: Experiment) -> list[int]:
    """The bytes of all training samples up to each task: what joint training keeps."""
    sizes = [sum(part.numel() * part.element_size() for part in task.train) for task in experiment.tasks]
    return [sum(sizes[: number + 1]) for number in range(len(sizes))]


def network(experiment: Experiment) -> int:
    """The bytes of the network before the first task."""
    return sum(each.numel() * each.element_size() for each in experiment.network(0).parameters())


def _short(task: Task) -> Task:
    train, test = ((inputs[:_SAMPLES], labels[:_SAMPLES]) for inputs, labels in (task.train, task.test))
    return dataclasses.replace(task, train=train, test=test)


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.eight_memory")
    parser.add_argument("--data", type=Path, required=True, help="the folder with the image datasets")
    parser.add_argument("--out", type=Path, default=Path("results/memory/eight-tasks.json"), help="the file to write")
    options = parser.parse_args(words)
    try:
        experiment = eight_tasks.EightTasks(data=options.data).build()
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")
    assert isinstance(experiment, Experiment)
    found = {name: kept(experiment, name) for name in METHODS}
    tasks = [task.name for task in experiment.tasks]
    held = {"tasks": tasks, "network": network(experiment), "bytes": {**found, "joint": samples(experiment)}}
    files.write_sealed(options.out, held)


if __name__ == "__main__":
    main()

"""The paper's object recognition with its own network and data: eight tasks, or the four two-task sequences."""

from __future__ import annotations

import functools
from pathlib import Path

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets import CATALOG
from forgetless.lab.datasets.reading.pictures import halves
from forgetless.lab.experiments.parts import images
from forgetless.lab.experiments.parts import omega as measuring
from forgetless.lab.experiments.parts import pairs as two_tasks
from forgetless.lab.networks.alexnet import SIZE, alexnet
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.lab.running.tuning import Tuning
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Recipe, Task

#: Task → its set in the catalog, in the paper's order.
TASKS = {
    "flowers": "flowers102",
    "scenes": "indoor67",
    "birds": "cub200",
    "cars": "cars196",
    "aircraft": "aircraft100",
    "actions": "voc-actions",
    "letters": "chars74k",
    "svhn": "svhn",
}
METHODS = ("finetune", "frozen", "lwf", "ebll", "imm-mean", "imm-mode", "ewc", "si", "local-mas", "mas")
_SIZES = {"svhn": 32}  # the network scales these up itself; on disk they would be fifty times as large


def experiment(
    data: str | Path,
    *,
    pairs: bool = False,
    omega: str = "train",
    device: str = "cpu",
    amp: bool = False,
    weights: str = "",
    epochs: int = 100,
    lr: float = 1e-3,
    batch_size: int = 200,
    skip_bad: bool = False,
    cache: str = "runs/decoded",
) -> Experiment | Suite:
    """Memory Aware Synapses 2018, section 5: AlexNet that knows ImageNet learns eight tasks, a head for each.

    SGD with momentum 0.9. MAS, global and local, has λ = 1, untuned; the other strengths are found by stability decay
    on the second task. Each original test set is halved into validation, which nothing here looks at, and test.

    Args:
        data: the root of the sets; `forgetless data list` names them.
        pairs: the four two-task sequences of tables 2 and 3 instead of the eight tasks.
        omega: "train", "test" or "both": what mas and local-mas measure Ω on.
        device: where the network is, such as cpu or cuda.
        amp: train in mixed precision (bfloat16).
        weights: AlexNet's weights. [default: torchvision's cache]
        epochs: passes over each task.
        lr: the learning rate, which the paper does not tell.
        batch_size: the most pictures in a step.
        skip_bad: leave out pictures that cannot be read, counted and named.
        cache: the folder for decoded pictures; about 10 GB.

    Raises:
        ForgetlessError: the weights or the device are not there, or the root lacks sets (naming all of them and how to
            get each), has them in part, or with pictures that cannot be read.
    """
    measuring.create(omega, "mas")  # refuse these before reading pictures
    _start(weights, device, amp, 0)
    names = two_tasks.TASKS if pairs else tuple(TASKS)
    tasks = load(Path(data), names, cache=Path(cache), skip_bad=skip_bad)
    words = {"omega": omega, "device": device, "epochs": epochs, "lr": lr, "batch-size": batch_size}
    flags = [word for word, wanted in (("--pairs", pairs), ("--amp", amp), ("--skip-bad", skip_bad)) if wanted]
    one = Experiment(
        "mas-2018",
        list(tasks.values()),
        functools.partial(_start, weights, device, amp),
        Recipe(lr, epochs, batch_size, warm_start=False),
        {"network": "alexnet", "size": SIZE, "omega": omega, "amp": amp},
        ["--data", "DATA", *flags, *(word for name, value in words.items() for word in (f"--{name}", str(value)))],
        create=functools.partial(measuring.create, omega),
        tuning=Tuning(fixed={"mas": 1.0, "local-mas": 1.0}),
        methods=METHODS if omega == "train" else ("mas", "local-mas"),
    )
    return two_tasks.suite(one, tasks) if pairs else one


def _start(weights: str, device: str, amp: bool, seed: int) -> MultiHead:
    return alexnet(weights, device, amp)


def load(root: Path, names: tuple[str, ...], *, cache: Path | None = None, skip_bad: bool = False) -> dict[str, Task]:
    """The tasks of those names, by name.

    Raises:
        ForgetlessError: as `experiment` of the data.
    """
    entries = {name: CATALOG[TASKS[name]] for name in names}
    missing = [entry for entry in entries.values() if not entry.path(root).is_dir()]
    if missing:
        said = "; ".join(f"{entry.title} ({entry.folder}/): {entry.obtain(root)}" for entry in missing)
        raise ForgetlessError(f"{root} lacks {len(missing)} of {len(entries)} sets. {said}.")
    tasks = {}
    for name, entry in entries.items():
        train, test = entry.load(root)
        tasks[name] = images.task(
            name, train, halves(test)[1], size=_SIZES.get(name, SIZE), cache=cache, skip_bad=skip_bad
        )
    return tasks

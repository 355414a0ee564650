"""The paper's eight object recognition tasks as far as small picture sets have them, for a machine without a GPU."""

from __future__ import annotations

import functools
from pathlib import Path

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts import images
from forgetless.lab.experiments.parts import omega as measuring
from forgetless.lab.experiments.parts import pairs as two_tasks
from forgetless.lab.networks.pretrained import pretrained
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.lab.running.tuning import Tuning
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Recipe

#: In the paper's order; groceries in Aircraft's place, digits of Chars74K in SVHN's.
TASKS = ("flowers", "scenes", "birds", "cars", "groceries", "actions", "letters", "digits")
#: All of the paper's figure, the ceiling and the floor.
METHODS = ("finetune", "joint", "frozen", "lwf", "ebll", "imm-mean", "imm-mode", "ewc", "si", "local-mas", "mas")
#: A frozen backbone keeps about 83 % of what fine-tuning learns here, so that the survey's 20 % would accept every λ.
DROP, FACTOR, TRIALS = 0.05, 0.25, 4


def experiment(
    data: str | Path,
    *,
    pairs: bool = False,
    omega: str = "train",
    network: str = "squeezenet",
    size: int = 64,
    limit: int = 800,
    epochs: int = 10,
    lr: float = 2e-3,
    batch_size: int = 32,
    drop: float = DROP,
    rise: bool = False,
    skip_bad: bool = False,
    cache: str = "runs/decoded",
) -> Experiment | Suite:
    """Flowers, scenes, birds, cars, groceries, actions, letters, digits, learned by a network that knows ImageNet.

    Strengths are found by stability decay on the second task with seed 0, in at most four trials, for every method
    alike. Pictures are decoded once; batch-norm statistics are held.

    Args:
        data: the folder that holds a picture set of each task's name.
        pairs: the four two-task sequences of tables 2 and 3 instead of the eight tasks.
        omega: "train", "test" or "both": what mas and local-mas measure Ω on.
        network: "squeezenet" or "efficientnet-lite0".
        size: pixels per side.
        limit: the most training pictures of a task.
        epochs: passes over each task.
        lr: the learning rate at the start of each task; it falls to zero along a cosine.
        batch_size: the most pictures in a step.
        drop: the share of fine-tuning's accuracy that a strength may cost on the second task.
        rise: look above a method's first strength too, where that is accepted; the survey only goes down.
        skip_bad: leave out pictures that cannot be read, counted and named.
        cache: the folder for decoded pictures.

    Raises:
        ForgetlessError: the folder lacks a set, a set cannot be read, or the network's weights are not installed.
    """
    start = functools.partial(_start, network)
    start(0)  # refuse these before reading pictures
    measuring.create(omega, "mas")
    folders = sets(Path(data), two_tasks.TASKS if pairs else TASKS)
    load = functools.partial(images.load, size=size, limit=limit, skip_bad=skip_bad, cache=Path(cache))
    tasks = {folder.name: load(folder) for folder in folders}
    words = {
        "omega": omega,
        "network": network,
        "size": size,
        "limit": limit,
        "epochs": epochs,
        "lr": lr,
        "batch-size": batch_size,
        "drop": drop,
    }
    flags = ["--pairs"] * pairs + ["--rise"] * rise + ["--skip-bad"] * skip_bad
    one = Experiment(
        "eight-tasks",
        list(tasks.values()),
        start,
        Recipe(lr, epochs, batch_size, clip=5.0, schedule="cosine", freeze_batchnorm=True),
        {"network": network, "size": size, "limit": limit, "omega": omega},
        ["--data", "DATA", *flags, *(word for name, value in words.items() for word in (f"--{name}", str(value)))],
        tuning=Tuning(drop=drop, factor=FACTOR, most=TRIALS, rise=rise),
        methods=METHODS if omega == "train" else ("mas", "local-mas"),
        create=functools.partial(measuring.create, omega),
    )
    return two_tasks.suite(one, tasks) if pairs else one


def _start(network: str, seed: int) -> MultiHead:
    return pretrained(network)


def sets(data: Path, names: tuple[str, ...]) -> list[Path]:
    """The folders of those names in `data`.

    Raises:
        ForgetlessError: `data` is no folder, or lacks one: it says which, and how to get it.
    """
    if not data.is_dir():
        raise ForgetlessError(f"{data} is no folder; --data takes the one that holds {', '.join(names)}.")
    missing = [name for name in names if not (data / name).is_dir()]
    if missing:
        raise ForgetlessError(
            f"{data} lacks {', '.join(missing)}: each is a folder with train.parquet and test.parquet, or with "
            f"train/CLASS/ and test/CLASS/; `forgetless data where {missing[0]}` says what it holds and how to get it."
        )
    return [data / name for name in names]

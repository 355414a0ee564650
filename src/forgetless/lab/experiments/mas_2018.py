"""The paper's object recognition with its own network and data: eight tasks, or the four two-task sequences."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets import CATALOG
from forgetless.lab.datasets.reading.pictures import halves
from forgetless.lab.experiments.parts import images
from forgetless.lab.experiments.parts import omega as measuring
from forgetless.lab.experiments.parts import pairs as two_tasks
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.networks.alexnet import SIZE, alexnet
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.lab.running.tuning import Tuning
from forgetless.learn.heads import MultiHead
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task

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


@dataclass(frozen=True, kw_only=True)
class MAS2018(Settings):
    """Memory Aware Synapses 2018, section 5: AlexNet, pretrained on ImageNet, learns eight tasks, a head for each.

    SGD with momentum 0.9. MAS, global and local, has λ = 1, untuned; the other strengths are found by stability decay
    on the second task. Each original test set is halved into a validation part, which is not used, and a test part.
    """

    NAME: ClassVar[str] = "mas-2018"
    data: Path = setting(help="The root of the sets; `forgetless data list` names them.", place=True)
    pairs: bool = two_tasks.pairs_setting()
    omega: str = measuring.omega_setting()
    device: str = setting("cpu", help="Where the network is, such as cpu or cuda.", place=True)
    amp: bool = setting(False, help="Train in mixed precision (bfloat16).")
    weights: Path | None = setting(
        None, help="A file of AlexNet's weights.", absent="torchvision's cache", place=True, shown=False
    )
    epochs: int = setting(100, help="Passes over each task.", least=1)
    lr: float = setting(1e-3, help="The learning rate, which the paper does not state.", positive=True)
    batch_size: int = images.batch_setting(200)
    skip_bad: bool = images.skip_setting()
    cache: Path = images.cache_setting("; about 10 GB")

    def build(self) -> Experiment | Suite:
        """The experiment.

        Raises:
            ForgetlessError: the weights or the device are not there, or the root lacks sets (naming all of them and how
                to get each), has them in part, or with pictures that cannot be read.
        """
        start = functools.partial(_start, "" if self.weights is None else str(self.weights), self.device, self.amp)
        start(0)  # refuse these before reading pictures
        names = two_tasks.TASKS if self.pairs else tuple(TASKS)
        tasks = load(self.data, names, cache=self.cache, skip_bad=self.skip_bad)
        one = Experiment(
            self.NAME,
            list(tasks.values()),
            start,
            Recipe(self.lr, self.epochs, self.batch_size, warm_start=False),
            **self.described(network="alexnet", size=SIZE),
            create=functools.partial(measuring.create, self.omega),
            tuning=Tuning(fixed={"mas": 1.0, "local-mas": 1.0}),
            methods=METHODS if self.omega == "train" else ("mas", "local-mas"),
        )
        return two_tasks.suite(one, tasks) if self.pairs else one


def _start(weights: str, device: str, amp: bool, seed: int) -> MultiHead:
    return alexnet(weights, device, amp)


def load(root: Path, names: tuple[str, ...], *, cache: Path | None = None, skip_bad: bool = False) -> dict[str, Task]:
    """The tasks of those names, by name.

    Raises:
        ForgetlessError: as `MAS2018.build` of the data.
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

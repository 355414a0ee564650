"""Your own image datasets, learned in order by a network pretrained on ImageNet."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts import images
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.networks.pretrained import pretrained, refuse_small
from forgetless.lab.running.experiment import Experiment
from forgetless.learn import methods
from forgetless.learn.heads import MultiHead
from forgetless.learn.method import Method
from forgetless.learn.recipe import Recipe
from forgetless.model.parameters import listing


@dataclass(frozen=True, kw_only=True)
class PictureSequence(Settings):
    """Learn your own image datasets, one after the other.

    With the defaults fine-tuning learns clearly more than a frozen backbone, so that there is something to protect.
    Methods that anchor weights hold back most of the movement of each task's training, as `--strength auto` does.
    Every picture is decoded once; batch-norm statistics are frozen.
    """

    NAME: ClassVar[str] = "sequence"
    tasks: tuple[Path, ...] = setting(
        help="A folder with train/CLASS/ and test/CLASS/, or train.parquet and test.parquet; repeat it.",
        place=True,
        option="task",
    )
    network: str = images.network_setting()
    size: int = images.size_setting()
    limit: int = images.limit_setting(1500)
    epochs: int = setting(15, help="Passes over each task.", least=1)
    lr: float = images.rate_setting()
    batch_size: int = images.batch_setting(32)
    skip_bad: bool = images.skip_setting()

    def build(self) -> Experiment:
        """The experiment.

        Raises:
            ForgetlessError: no task, two of the same name, a network that is not installed, or a folder that is no
                image dataset.
        """
        names = [folder.resolve().name for folder in self.tasks]
        if not names or len(set(names)) < len(names):
            raise ForgetlessError(f"a sequence needs task folders of different names, not {listing(names)}.")
        recipe = Recipe(self.lr, self.epochs, self.batch_size, clip=5.0, schedule="cosine", freeze_batchnorm=True)
        refuse_small(self.network, self.size)  # before reading pictures
        read = functools.partial(images.load, size=self.size, limit=self.limit, skip_bad=self.skip_bad)
        return Experiment(
            self.NAME,
            [read(folder) for folder in self.tasks],
            functools.partial(_start, self.network),
            recipe,
            create=_create,
            **self.described(default_strength="auto"),
        )


def _create(name: str, strength: float | str | None = None, **settings: Any) -> Method:
    """A method whose strength is "auto" where none is given and it takes that."""
    method = methods.create(name, strength, **settings)
    if strength is None and method.automatic:
        method.set_strength("auto")
    return method


def _start(network: str, seed: int) -> MultiHead:
    """The pretrained network; a function of the module, so that other processes can import it."""
    return pretrained(network)

"""Facts: a network learns to find <subject, predicate, object> in pictures, in four tasks that share all of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from forgetless.lab.experiments.parts import facts, images
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.facts.retrieval import retrieval
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.search import Search
from forgetless.lab.running.tuning import Tuning
from forgetless.learn.optimizers import adam
from forgetless.learn.recipe import Recipe

METHODS = ("finetune", "joint", "frozen", "si", "ewc", "local-mas", "mas")
STRENGTH = 5.0  # the paper's, for facts


@dataclass(frozen=True, kw_only=True)
class FactTasks(Settings):
    """Memory Aware Synapses 2018, section 5.3, on facts at hand: a pretrained network and an embedding for each part.

    The tasks share the embeddings too, and nothing tells the network which task a picture is from. MAS runs with the
    paper's λ = 5; the strengths of the other methods are found by stability decay on the second task.
    """

    NAME: ClassVar[str] = "facts"
    data: Path | None = setting(
        None,
        help="A folder of facts: train.parquet and test.parquet with subject, predicate and object, 6DS, or VRD.",
        absent="pictures of two digits of MNIST",
        place=True,
    )
    split: str = setting("random", help="How facts are split into four tasks.", choices=facts.SPLITS)
    held_out: int = setting(9, help="Facts left out of all tasks, whose parts occur in others.", least=0)
    tune: bool = setting(False, help="Find the strength of MAS by stability decay too.")
    network: str = images.network_setting()
    size: int = images.size_setting()
    epochs: int = setting(15, help="Passes over each task.", least=1)
    lr: float = setting(
        2e-4, help="Adam's rate at the start of each task; it falls to zero along a cosine.", positive=True
    )
    batch_size: int = images.batch_setting(32)
    skip_bad: bool = images.skip_setting()
    cache: Path = images.cache_setting()

    def build(self) -> Experiment:
        """The experiment.

        Raises:
            ForgetlessError: the folder holds no facts, or a picture, the network or the word vectors are missing.
        """
        start = functools.partial(facts.embedding, self.network)
        start(0)  # refuse it before reading pictures
        stream = facts.stream(self.data, self.split, self.held_out, self.size, self.cache, self.skip_bad)
        shown = facts.probes(stream)
        return Experiment(
            self.NAME,
            stream.tasks,
            start,
            Recipe(self.lr, self.epochs, self.batch_size, adam, clip=5.0, schedule="cosine", freeze_batchnorm=True),
            **self.described(data=stream.source),
            tuning=Tuning(Search(), fixed={} if self.tune else {"mas": STRENGTH}),
            methods=METHODS,
            look=functools.partial(facts.look, stream, shown),
            keep=functools.partial(facts.keep, stream, shown, self.network, self.size),
            page=retrieval,
        )

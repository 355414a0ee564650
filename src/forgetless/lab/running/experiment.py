"""What an experiment is: a stream of tasks, a network, a recipe, and the methods to compare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from forgetless.lab.running.jobs import Job, Runner
from forgetless.lab.running.online import Online
from forgetless.lab.running.tuning import Tuning
from forgetless.lab.running.watched import Look
from forgetless.lab.traces import Written
from forgetless.learn import methods
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task


@dataclass(frozen=True)
class Experiment:
    """An experiment, ready to run. What is to run in several processes must be picklable.

    Attributes:
        name: what it is called on the command line and in every result.
        tasks: the stream, in order.
        network: seed → the network at the start, the same for every method.
        recipe: how each task is learned.
        config: what else defines it, JSON-able; the tasks and the recipe are added.
        arguments: the words after `forgetless run NAME` that give the same experiment.
        create: what makes the methods, called as `forgetless.learn.methods.create`.
        tuning: how one strength for the whole stream is found where none is given; None for each method's own.
        methods: the ones to compare by default.
        settings: method → its settings here, where they are not its own ("strength" among them).
        look: what is looked at after every task beside R. Single numbers go into the run's `figures`.
        keep: what is kept of a run in `kept/METHOD-SEED.safetensors`, with its header: the network at the end, and the
            tensors that were looked at, `[T, …]`.
        written: inputs of a task → a text for each sample, where they are texts: for the page of the run.
        page: makes a page of its own in the run directory, from what was kept.
        online: learn the stream in one pass, by an online learner; its methods are those of
            `forgetless.learn.online_learners`, and the recipe is not used.
    """

    name: str
    tasks: Sequence[Task]
    network: Callable[[int], Network]
    recipe: Recipe
    config: Mapping[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    create: Callable[..., Method] = methods.create
    tuning: Tuning | None = None
    methods: Sequence[str] = ("finetune", "frozen", "mas")
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    look: Look | None = None
    keep: Callable[[Network, Mapping[str, Tensor]], tuple[Mapping[str, Tensor], Mapping[str, Any]]] | None = None
    written: Written | None = None
    page: Callable[[Path], None] | None = None
    online: Online | None = None


@dataclass(frozen=True)
class Suite:
    """Experiments that belong together and are shown as one.

    Attributes:
        name: what it is called on the command line.
        experiments: the folder of each in the run directory → the experiment.
        table: what is shown in the end: folder → content of `results.json`, to text.
    """

    name: str
    experiments: Mapping[str, Experiment]
    table: Callable[[Mapping[str, Mapping[str, Any]]], str]


class Comparison(ABC):
    """An experiment without a stream of tasks: variants of one network, each with every seed, and results of its own.

    Attributes:
        name: what it is called on the command line.
        methods: the variants to compare by default.
    """

    name: str
    methods: Sequence[str]

    @abstractmethod
    def run(
        self,
        names: Sequence[str] | None,
        seeds: Sequence[int],
        out: Path,
        *,
        resume: bool,
        runner: Runner,
        on_plan: Callable[[Sequence[Job]], None],
        on_progress: Callable[[Job, Progress], None],
    ) -> dict[str, Any]:
        """Run every variant with every seed; arguments and errors as `forgetless.lab.running.run.run_all`.

        Returns:
            The content of `results.json`.
        """

    @abstractmethod
    def table(self, results: Mapping[str, Any]) -> str:
        """The content of `results.json` as text."""

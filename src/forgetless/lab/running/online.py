"""Online learners in experiments: each at its own learning rate, found on the first tasks alone."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn import metrics, online_learners
from forgetless.learn.network import Network
from forgetless.learn.online_learners import create
from forgetless.learn.position import Progress
from forgetless.learn.seeding import derive, permutation
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.learner import Learner
from forgetless.learn.streaming.loop import learn_online
from forgetless.learn.task import Task

FIRST = 2  # tasks that a rate is found on
HELD_OUT = 5  # one in so many of their training samples is held out
TRIALS = 2  # runs of each rate


@dataclass(frozen=True)
class Online:
    """How online learners run in an experiment.

    Attributes:
        budget: updates and buffer; its rate is used where there are no `rates`.
        rates: among these each method's own rate is found; empty for the budget's.
        look: evaluate after every so many batches too; None for at the end of each task.
    """

    budget: Budget
    rates: tuple[float, ...] = ()
    look: int | None = None

    @staticmethod
    def create(name: str, **settings: Any) -> Learner:
        """See `forgetless.learn.online_learners.create`."""
        return online_learners.create(name, **settings)

    def worth(self, batches: int) -> float:
        """How many steps of the optimizer so many batches are."""
        return float(batches * self.budget.glances)

    def settings(self) -> dict[str, Any]:
        """What defines it, JSON-able."""
        own = self.budget.settings()
        if self.rates:
            own["lr"] = None
        return {**own, "rates": list(self.rates), "look": self.look}

    def rate(
        self,
        name: str,
        settings: Mapping[str, Any],
        network: Callable[[int], Network],
        tasks: Sequence[Task],
        folder: Path | None = None,
    ) -> float:
        """The rate at which a method ends the first two tasks best, on a held-out fifth of their training samples.

        Two runs per rate, with seeds of their own; of equal rates the smaller. A rate that diverges is out.

        Args:
            name: the method.
            settings: its settings.
            network: seed → the network at the start.
            tasks: the stream.
            folder: keeps what was found, as `METHOD.json`; None to keep nothing.

        Raises:
            ForgetlessError: every rate diverges.
        """
        if not self.rates:
            return self.budget.lr
        path = None if folder is None else folder / f"{name}.json"
        if path is not None and path.exists():
            scores: dict[str, float] = files.decoded(files.read_json(path), dict[str, float], path)
        else:
            scores = {str(rate): self.score(name, settings, network, tasks, rate) for rate in self.rates}
            if path is not None:
                files.write_json(path, scores)
        best = max(sorted(self.rates), key=lambda rate: scores.get(str(rate), -1.0))
        if scores.get(str(best), -1.0) < 0:
            raise ForgetlessError(f"{name!r} diverges at every rate of {', '.join(map(str, self.rates))}.")
        return best

    def score(
        self,
        name: str,
        settings: Mapping[str, Any],
        network: Callable[[int], Network],
        tasks: Sequence[Task],
        rate: float,
    ) -> float:
        """The average accuracy after the first two tasks on a held-out fifth of their training samples, of two runs.

        Args:
            name: the method.
            settings: its settings.
            network: seed → the network at the start.
            tasks: the stream.
            rate: the learning rate.

        Returns:
            A share; −1 where learning diverges.
        """
        short = [_shortened(task) for task in tasks[:FIRST]]
        budget = dataclasses.replace(self.budget, lr=rate)
        found = []
        for trial in range(TRIALS):
            seed = derive(0, "learning rate", trial)
            try:
                learned = learn_online(network(seed), short, create(name, **settings), budget, seed=seed)
            except ForgetlessError as error:
                if "lower lr" in str(error):
                    return -1.0
                raise
            found.append(metrics.average_accuracy(learned.accuracy))
        return statistics.fmean(found)

    def learn(
        self,
        learner: Learner,
        model: Network,
        tasks: Sequence[Task],
        rate: float,
        seed: int,
        checkpoint: Path | None = None,
        tell: Callable[[Progress], None] | None = None,
    ) -> dict[str, Any]:
        """Learn the stream once; what goes into the run's entry in `results.json`.

        Returns:
            `accuracy` and `seconds` as of every run, and under `online` the rate, the looks, the passes and what the
            learner found out.
        """
        budget = dataclasses.replace(self.budget, lr=rate)
        found = learn_online(
            model,
            tasks,
            learner,
            budget,
            seed=seed,
            look=self.look,
            checkpoint=checkpoint,
            on_progress=tell,
        )
        online = {
            "lr": rate,
            "average_anytime_accuracy": metrics.average_anytime_accuracy(found.looks),
            "worst_case_accuracy": metrics.worst_case_accuracy(found.looks),
            "looks": [[at, scores] for at, scores in found.looks],
            "passes": dataclasses.asdict(found.passes),
            **found.figures,
        }
        seconds = {phase: round(each, 3) for phase, each in found.seconds.items()}
        return {"accuracy": found.accuracy, "seconds": seconds, "online": online}


def _shortened(task: Task) -> Task:
    """The task with a fifth of its training samples in the place of its test samples, which are left alone."""
    size = len(task.samples)
    order = permutation(size, derive(0, task.name, "held out"))
    held = max(1, math.ceil(size / HELD_OUT))
    train, test = (task.samples.take(chosen) for chosen in (order[held:].sort().values, order[:held].sort().values))
    return dataclasses.replace(task, train=train, test=test)

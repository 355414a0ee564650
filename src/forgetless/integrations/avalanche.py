"""`ForgetlessPlugin` for Avalanche's strategies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avalanche.benchmarks import OnlineCLExperience
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_results import MetricValue
from avalanche.models.utils import avalanche_forward, is_multi_task_module
from torch import Tensor, nn
from torch.utils.data import DataLoader

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.integrations.parts.held_weights import HeldWeights
from forgetless.integrations.parts.protection import Reader
from forgetless.model.parameters import fingerprint, named
from forgetless.model.ranks import alone
from forgetless.protect.anchor import Anchor
from forgetless.protect.strength.dial import Dial


class ForgetlessPlugin(SupervisedPlugin):  # type: ignore[misc,unused-ignore]
    """Protects what a network has learned from the earlier experiences of an Avalanche stream.

        strategy = Naive(model=model, optimizer=optimizer, plugins=[ForgetlessPlugin()])
        for experience in benchmark.train_stream:
            strategy.train(experience)

    After an experience its importance is measured on the experience's own samples (`forgetless.mas`: exact, in eval
    mode, with the transformations for evaluation), `Ω ← γ Ω + Ω_task` and `θ* ← θ`; while the next ones are learned an
    `Anchor` acts in the steps of the strategy's optimizer. Heads of multi-task models are measured by the task labels
    of their samples; units that a classifier grows are free until they have been learned.

    Published for the loggers after every epoch: `forgetless/drift`, `forgetless/strength` and
    `forgetless/frozen_fraction`. Between experiences `save` and `load` keep θ* and Ω in a file; a pickled
    plugin has them too.
    """

    def __init__(
        self, old: Any = None, strength: float | str | Dial = "auto", *, gamma: float = 1.0, **measuring: Any
    ) -> None:
        """Nothing is measured before `train()`.

        Args:
            old: what the model can do before its first experience, which is protected from then on: unlabeled samples
                (also the `dataset` of an experience), an `Importance`, or the path of its file; None: nothing.
            strength: "auto" (`HoldShare()`: most of the movement of an experience's training is held back), λ, or a
                dial such as `HoldShare(0.9)`.
            gamma: γ in [0, 1]: below 1 earlier experiences fade.
            measuring: what `forgetless.mas` takes besides: `forward`, `exclude`, `output`, `until`, …

        Raises:
            ForgetlessError: empty old data, a strength that is none, or a γ out of range.
        """
        super().__init__()
        if not 0 <= gamma <= 1:
            raise ForgetlessError(f"gamma must be between 0 and 1, not {gamma!r}.")
        self._old, self._gamma, self._settings = old, gamma, (strength, None, measuring)
        self._protection = HeldWeights(old, *self._settings, later=True)
        self._loaded: dict[str, Tensor] | None = None

    @property
    def anchor(self) -> Anchor | DeltaAnchor | None:
        """θ* and Ω, once there is something to protect."""
        return self._protection.anchor

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measure the old data before the first experience; attach.

        Raises:
            ForgetlessError: several processes, a stream without tasks, another model than before, old data or an
                importance that do not fit, or an optimizer that cannot be followed.
        """
        _refuse(strategy)
        if self._loaded is not None:
            self._restore(strategy.model, self._loaded)
        elif self.anchor is None and self._old is not None:
            reader = Reader(_converted(strategy))
            self._protection.make(strategy.model, reader, **_forward(strategy.model))
        elif self.anchor is not None and not self._protection.is_of(strategy.model):
            raise ForgetlessError(
                "the strategy trains another model than the one whose weights are protected; give it a "
                "ForgetlessPlugin of its own."
            )
        if self.anchor is not None:
            self._protection.attach(strategy.optimizer)

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse an optimizer that has taken the attached one's place."""
        if self.anchor is not None:
            self._protection.refuse_swapped(strategy.optimizer)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publish the figures."""
        if self.anchor is not None:
            for name, value in self._protection.figures().items():
                strategy.evaluator.publish_metric_value(MetricValue(self, name, value, strategy.clock.train_iterations))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Let the optimizer go; measure what was learned, and protect it from now on."""
        self._protection.detach()
        batches = _converted(strategy)(strategy.experience.dataset)
        self._protection.learned(strategy.model, batches, self._gamma, **_forward(strategy.model))

    def save(self, path: str | Path) -> None:
        """Write θ* and Ω to the file `path` (safetensors), whole or not at all.

        Raises:
            ForgetlessError: there is nothing to protect yet.
        """
        if self.anchor is None:
            raise ForgetlessError("there is nothing to save yet: train on an experience first, or give old data.")
        self.anchor.save(path)

    def load(self, path: str | Path, model: nn.Module) -> None:
        """Go on from what `save` wrote.

        Args:
            path: the file.
            model: the network, with the weights that it had then.

        Raises:
            ForgetlessError: the file is missing, damaged or another model's, or the weights are others.
        """
        state, hashes = self._protection.read(path, model)
        parameters = named(model)
        if any(name in parameters and fingerprint(parameters[name]) != value for name, value in hashes.items()):
            raise ForgetlessError(
                f"{path} was saved at other weights than the model has now; load the model's own checkpoint first."
            )
        self._restore(model, state)

    def _restore(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        self._protection.restore(model, state, Reader())
        self._loaded = None

    def __getstate__(self) -> dict[str, Any]:
        kept = self.__dict__ | ({} if self.anchor is None else {"_loaded": self.anchor.state_dict(), "_old": None})
        return {name: value for name, value in kept.items() if name != "_protection"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._protection = HeldWeights(self._old, *self._settings, later=True)


def _refuse(strategy: Any) -> None:
    if not alone():  # Avalanche only warns of it
        raise ForgetlessError(
            "ForgetlessPlugin measures in one process, and several train here; train in one, or write the loop "
            "(docs/distributed.md)."
        )
    if isinstance(strategy.experience, OnlineCLExperience):
        raise ForgetlessError(
            "ForgetlessPlugin measures at the end of a task, and an online stream is cut into pieces of a few samples; "
            "train on the experiences of the stream itself, or use a learner for streams (docs/online.md)."
        )
    if sum(isinstance(each, ForgetlessPlugin) for each in strategy.plugins) > 1:
        raise ForgetlessError("the strategy has two ForgetlessPlugins; give it one.")


def _forward(model: nn.Module) -> dict[str, Any]:
    """How samples go through a model that also takes their task labels."""
    if not is_multi_task_module(model):
        return {}
    return {"forward": lambda network, batch: avalanche_forward(network, batch[0], batch[-1])}


def _converted(strategy: Any) -> Any:
    """From an experience's samples to batches (inputs, targets, task labels) on the strategy's device; others stay."""

    def batches(data: Any) -> Any:
        if not hasattr(data, "collate_fn") or isinstance(data, DataLoader):
            return data
        return _moved(DataLoader(data.eval(), strategy.train_mb_size, collate_fn=data.collate_fn), strategy.device)

    return batches


def _moved(loader: DataLoader[Any], device: Any) -> Iterator[tuple[Any, ...]]:
    for batch in loader:
        yield tuple(part.to(device) for part in batch)

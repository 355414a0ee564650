"""`ForgetlessPlugin` inside of Avalanche's strategies: what is measured, protected, published, saved and refused."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it says of solvers that are not installed
    pytest.importorskip("avalanche")
    from avalanche.benchmarks import benchmark_from_datasets, split_online_stream
    from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
    from avalanche.benchmarks.scenarios.task_aware import with_task_labels
    from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as dataset
    from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
    from avalanche.training import Naive
    from avalanche.training.plugins import EvaluationPlugin

    from forgetless.integrations.avalanche import ForgetlessPlugin

import forgetless
from forgetless.measure import reference

BATCH = 8


def stream(tasks: int = 3, *, labeled: bool = False, grows: bool = False, dtype: Any = torch.float32) -> Any:
    """Experiences of 24 samples, two classes each: the same two or, where it grows, new ones."""
    draw = torch.Generator().manual_seed(0)
    sets = []
    for task in range(tasks):
        x = torch.randn(24, 4, generator=draw, dtype=dtype)
        y = torch.arange(24) % 2 + (2 * task if grows else 0)
        sets.append(dataset(x, y, task_labels=task if labeled else 0))
    return with_task_labels(with_classes_timeline(benchmark_from_datasets(train=sets)))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 2))


class Heads(MultiTaskModule):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh())
        self.head = MultiHeadClassifier(width, 2, masking=False)

    def forward(self, x: Any, task_labels: Any) -> Any:
        return self.head(self.body(x), task_labels)


def strategy(model: nn.Module, *plugins: Any, kind: Any = Naive, **given: Any) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    plan = {"train_mb_size": BATCH, "train_epochs": 2, "evaluator": EvaluationPlugin(loggers=[]), **given}
    return kind(model=model, optimizer=optimizer, plugins=list(plugins), **plan)


def samples(experience: Any) -> tuple[torch.Tensor, torch.Tensor]:
    found = [experience.dataset[n] for n in range(len(experience.dataset))]
    return torch.stack([each[0] for each in found]), torch.tensor([each[1] for each in found])


def equal(left: nn.Module, right: nn.Module) -> bool:
    states = left.state_dict(), right.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def chosen(strength: Any) -> Any:
    return forgetless.HoldShare(0.9) if strength == "a share" else strength


@pytest.mark.parametrize("strength", ["auto", 3.0, "a share"])
def test_it_is_the_plain_loop_to_the_bit(strength: Any) -> None:
    made = strategy(network(), ForgetlessPlugin(strength=chosen(strength)))
    unprotected = strategy(network())
    for experience in stream().train_stream:
        made.train(experience, shuffle=False)
        unprotected.train(experience, shuffle=False)

    model, anchor = network(), None
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for experience in stream().train_stream:
        x, y = samples(experience)
        if anchor is not None:
            anchor.attach(optimizer)
        for _ in range(2):
            for inputs, labels in DataLoader(TensorDataset(x, y), BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
        importance = forgetless.mas(model, DataLoader(x, BATCH), progress=False)
        if anchor is None:
            dial = forgetless.HoldShare() if strength == "auto" else chosen(strength)
            anchor = forgetless.Anchor(model, importance, dial)
        else:
            anchor.detach()
            anchor.consolidate(importance)
    assert equal(made.model, model)
    assert not equal(made.model, unprotected.model)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)  # which Avalanche's heads write their answers into
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
def test_the_importance_is_exact_by_the_heads_of_the_samples() -> None:
    plugin = ForgetlessPlugin()
    made = strategy(Heads().double(), plugin)
    tasks = stream(2, labeled=True, dtype=torch.float64)
    total: dict[str, torch.Tensor] = {}
    for number, experience in enumerate(tasks.train_stream):
        made.train(experience)
        x = samples(experience)[0]
        alone = reference.mas(made.model, x, forward=lambda model, batch, label=number: model(batch, label))
        for name, omega in alone.mean().items():
            total[name] = total.get(name, 0) + omega
    assert plugin.anchor is not None
    assert plugin.anchor.importance.keys() == total.keys()
    for name, omega in plugin.anchor.importance.items():
        torch.testing.assert_close(omega, total[name].to(omega.dtype), rtol=1e-6, atol=1e-12)
        assert bool((omega > 0).any()), name


def test_units_that_a_classifier_grows_are_free_until_they_are_learned() -> None:
    torch.manual_seed(0)
    plugin = ForgetlessPlugin(strength=1e9)
    made = strategy(nn.Sequential(nn.Linear(4, 12), nn.Tanh(), IncrementalClassifier(12, 2)), plugin)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for experience in stream(2, grows=True).train_stream:
            made.train(experience)
            seen.append(copy.deepcopy(made.model[2].classifier))
    assert seen[1].weight.shape == (4, 12)
    torch.testing.assert_close(seen[1].weight[:2], seen[0].weight, rtol=1e-4, atol=1e-4)
    assert plugin.anchor is not None
    assert plugin.anchor.weights["2.classifier.weight"].shape == (4, 12)


def test_what_it_knew_before_is_protected_from_the_first_step() -> None:
    old = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    model = network()
    before = copy.deepcopy(model)
    strategy(model, ForgetlessPlugin(old, 1e9)).train(stream(1).train_stream[0])
    torch.testing.assert_close(model(old), before(old), rtol=1e-3, atol=1e-3)


def test_figures_are_published() -> None:
    made = strategy(network(), ForgetlessPlugin())
    for experience in stream(2).train_stream:
        made.train(experience)
    found = made.evaluator.get_all_metrics()
    assert set(found) >= {f"forgetless/{name}" for name in ("drift", "strength", "frozen_fraction")}
    assert found["forgetless/drift"][0] == [9, 12]
    assert found["forgetless/drift"][1][-1] > 0


@pytest.mark.parametrize("way", ["own file", "pickled"])
@pytest.mark.parametrize("strength", ["auto", 3.0, "a share"])
def test_resumed_training_ends_with_the_same_bits(tmp_path: Path, way: str, strength: Any) -> None:
    tasks = stream().train_stream
    whole = strategy(network(), ForgetlessPlugin(strength=chosen(strength)))
    part = strategy(network(), plugin := ForgetlessPlugin(strength=chosen(strength)))
    for experience in tasks[:2]:
        whole.train(experience, shuffle=False)
        part.train(experience, shuffle=False)
    plugin.save(tmp_path / "anchor.safetensors")
    again = pickle.loads(pickle.dumps(plugin)) if way == "pickled" else ForgetlessPlugin(strength=chosen(strength))
    resumed = strategy(network(), again)
    resumed.model.load_state_dict(part.model.state_dict())
    resumed.make_optimizer(reset_optimizer_state=True)
    resumed.optimizer.load_state_dict(part.optimizer.state_dict())
    if way == "own file":
        again.load(tmp_path / "anchor.safetensors", resumed.model)
    for made in (whole, resumed):
        made.train(tasks[2], shuffle=False)
    assert equal(whole.model, resumed.model)
    assert not equal(whole.model, part.model)


def refused(made: Any, said: str, experience: Any = None) -> None:
    with pytest.raises(forgetless.ForgetlessError, match=said):
        made.train(experience or stream(1).train_stream[0])


def test_what_is_refused(tmp_path: Path) -> None:
    online = split_online_stream(stream(1).train_stream, experience_size=8)
    refused(strategy(network(), ForgetlessPlugin()), "online stream", next(iter(online)))
    refused(strategy(network(), ForgetlessPlugin(), ForgetlessPlugin()), "two ForgetlessPlugins")
    with pytest.raises(forgetless.ForgetlessError, match="gamma must be between 0 and 1, not 2"):
        ForgetlessPlugin(gamma=2)
    with pytest.raises(forgetless.ForgetlessError, match="nothing to protect"):
        ForgetlessPlugin([])
    with pytest.raises(forgetless.ForgetlessError, match="strength must be"):
        ForgetlessPlugin(strength="strong")
    with pytest.raises(forgetless.ForgetlessError, match="nothing to save yet"):
        ForgetlessPlugin().save(tmp_path / "anchor")
    plugin = ForgetlessPlugin()
    strategy(network(), plugin).train(stream(1).train_stream[0])
    refused(strategy(network(), plugin), "another model")
    plugin.save(tmp_path / "anchor")
    with pytest.raises(forgetless.ForgetlessError, match="saved at other weights"):
        ForgetlessPlugin().load(tmp_path / "anchor", network())


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetless.integrations.avalanche.alone", lambda: False)
    refused(strategy(network(), ForgetlessPlugin()), "measures in one process")


def test_an_optimizer_that_is_swapped_is_refused() -> None:
    class Swapped(Naive):
        def training_epoch(self, **given: Any) -> None:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
            super().training_epoch(**given)

    refused(strategy(network(), ForgetlessPlugin(torch.randn(8, 4)), kind=Swapped), "optimizer was replaced")

"""The contract every online learner keeps, over the registry; and what each minimizes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn import metrics
from forgetless.learn.families.memory import Remembered
from forgetless.learn.online_learners import LEARNERS, create
from forgetless.learn.position import Progress
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.loop import Streamed
from online import BUDGET, classes, learned
from streams import network, same, stream

#: Settings that make a meta step happen in a short stream.
SETTINGS = {"mango": {"meta_every": 2}, "mas-gated": {"meta_every": 2}}


class Killed(Exception):
    """Stands for a process that ends without a word."""


def outcome(found: Streamed) -> tuple[object, ...]:
    return found.accuracy, found.looks, found.passes, found.figures


@pytest.mark.parametrize("name", LEARNERS)
def test_it_is_where_its_name_says(name: str) -> None:
    assert LEARNERS[name].name == name == create(name).name
    module = name.replace("++", "-plus-plus").replace("-", "_")
    assert LEARNERS[name].__module__ == f"forgetless.learn.online_learners.{module}"
    assert importlib.import_module(LEARNERS[name].__module__).__doc__


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        *((name, "class") for name in LEARNERS),
        ("mango", "domain"),
        ("mango", "task"),
        ("der++", "task"),
        ("gdumb", "task"),
    ],
)
def test_killed_in_the_middle_and_resumed_it_gives_the_same_bits(name: str, scenario: str, tmp_path: Path) -> None:
    tasks = classes(2) if scenario == "class" else stream(2, 24)
    options = {"scenario": scenario, "settings": SETTINGS.get(name, {}), "look": 2}
    whole = learned(name, tasks, **dict(options))

    def kill(progress: Progress) -> None:
        if (progress.task, progress.step) == (2, 3):
            raise Killed

    options |= {"checkpoint": tmp_path / "run.safetensors", "every": 0.0}
    with pytest.raises(Killed):
        learned(name, tasks, on_progress=kill, **dict(options))
    model, found = learned(name, tasks, **dict(options))
    assert same(model, whole[0])
    assert outcome(found) == outcome(whole[1])


def test_replaying_learners_see_the_same_samples() -> None:
    """With no gates and no penalty the gated learner is ER, to the bit; with gates of ½ it is the control."""
    for gate, other in (("none", "er"), ("half", "er-half")):
        settings = {"gate": gate, "penalized": False}
        assert same(learned("mango", classes(), settings=settings)[0], learned(other, classes())[0])


def test_the_control_is_er_at_half_the_rate() -> None:
    half = Budget(BUDGET.lr / 2, 8, 2, 20, 8)
    one, other = (learned(name, classes(), budget=budget)[0] for name, budget in (("er-half", BUDGET), ("er", half)))
    for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5, msg=name)


def test_replay_remembers_what_fine_tuning_forgets() -> None:
    tasks, budget = classes(samples=60), Budget(0.05, 8, 2, 60, 16)

    def average(name: str) -> float:
        return metrics.average_accuracy(learned(name, tasks, noisy=False, budget=budget)[1].accuracy)

    names = ("er", "er-ace", "der++", "gdumb", "mango")
    least, found = average("finetune"), {name: average(name) for name in names}
    assert all(each > least + 0.05 for each in found.values()), (least, found)


def test_what_it_costs_is_counted() -> None:
    """24 samples a task, twice 8 at a time; the buffer of 20 fills as the stream comes."""
    tasks = stream(1, 24)
    plain = learned("finetune", tasks, scenario="task")[1].passes
    assert (plain.forward, plain.backward) == (48, 48)
    er = learned("er", tasks, scenario="task")[1].passes
    assert (er.forward, er.backward) == (48 + 32, 48 + 32)  # the first batch finds an empty buffer
    gem = learned("a-gem", tasks, scenario="task")[1].passes
    assert (gem.forward, gem.backward) == (48 + 32, 48 + 32)
    mir = learned("mir", tasks, scenario="task", settings={"candidates": 2})[1].passes
    # Glances on the third batch find 16 samples and choose 8 of them: twice 16 forward, and the batch both ways.
    assert (mir.forward, mir.backward) == (80 + 2 * (32 + 8), 80 + 2 * 8)


def test_er_ace_leaves_out_the_logits_of_other_classes() -> None:
    tasks = classes(2)
    learner = create("er-ace")
    model = network(scenario="class")
    for task in tasks:
        task.objective.prepare(model, task.name)
    learner.begin(model, tasks, torch.optim.SGD(model.parameters(), 0.0), BUDGET)
    inputs, labels = tasks[1].train
    loss = learner.glance(Remembered(tasks[1].name, tasks[1].objective, (inputs[:6], labels[:6])), 0, True)
    logits = model(inputs[:6], tasks[1].name)[:, 2:]
    assert loss == pytest.approx(float(F.cross_entropy(logits, labels[:6])), rel=1e-6)


def test_der_keeps_the_outputs_of_the_moment() -> None:
    tasks = classes(1)
    learner = create("der++")
    model = network(scenario="class")
    tasks[0].objective.prepare(model, tasks[0].name)
    learner.begin(model, tasks, torch.optim.SGD(model.parameters(), 0.0), BUDGET)
    inputs, labels = tasks[0].train
    part = Remembered(tasks[0].name, tasks[0].objective, (inputs[:8], labels[:8]))
    learner.glance(part, 0, True)
    learner.keep(part)
    (kept,) = learner._buffer.all()  # type: ignore[attr-defined]
    torch.testing.assert_close(kept.outputs, model(inputs[:8], tasks[0].name).detach())
    plain = float(F.cross_entropy(model(inputs[8:16], tasks[0].name), labels[8:16]))
    found = learner.glance(Remembered(tasks[0].name, tasks[0].objective, (inputs[8:16], labels[8:16])), 1, True)
    again = float(F.cross_entropy(model(inputs[:8], tasks[0].name), labels[:8]))
    assert found == pytest.approx(plain + 0.5 * again, rel=1e-5)  # nothing has moved, so the outputs are as kept


def test_mir_takes_what_the_step_would_hurt_most_and_leaves_the_weights() -> None:
    tasks = classes(2)
    learner = create("mir")
    model = network(scenario="class")
    for task in tasks:
        task.objective.prepare(model, task.name)
    learner.begin(model, tasks, torch.optim.SGD(model.parameters(), 0.1), Budget(0.1, 8, 1, 20, 4))
    old, new = (Remembered(task.name, task.objective, task.train) for task in tasks)
    learner.keep(old)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = learner._drawn(new.take(torch.arange(8)))  # type: ignore[attr-defined]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    (held,) = learner._buffer.all()  # type: ignore[attr-defined]
    loss = F.cross_entropy(model(held.batch[0], old.task), held.batch[1], reduction="none")
    torch.autograd.backward(
        F.cross_entropy(model(new.batch[0][:8], new.task), new.batch[1][:8] + model.first(new.task))
    )
    optimizer.step()
    rise = F.cross_entropy(model(held.batch[0], old.task), held.batch[1], reduction="none") - loss
    expected = held.batch[0][rise.topk(4).indices]
    assert {tuple(row.tolist()) for row in drawn[0].batch[0]} == {tuple(row.tolist()) for row in expected}


def test_er_mas_protects_by_what_the_buffer_says() -> None:
    free, held = (learned("er-mas", classes(2), settings={"strength": λ}, noisy=False)[0] for λ in (0.0, 1e9))
    early = learned("er", classes(2)[:1], noisy=False)[0]
    moved = [
        sum(
            float((a - b).detach().norm())
            for a, b in zip(m.backbone.parameters(), early.backbone.parameters(), strict=True)
        )
        for m in (free, held)
    ]
    assert same(free, learned("er", classes(2), noisy=False)[0])
    assert moved[1] < moved[0]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("magno", {}, "no online method 'magno'; there are 'finetune', 'er'"),
        ("er", {"lambda": 1}, "the method 'er' has no setting 'lambda'"),
        ("mango", {"gate": "absolute"}, "gate must be one of 'signed', 'magnitude', 'half', 'none', not 'absolute'"),
        ("mango", {"meta_every": 0}, "meta_every must be at least 1, not 0"),
        ("mango", {"meta_lr": 0.0}, "meta_lr must be above 0"),
        ("mas-gated", {"kappa": -1.0}, "kappa must be a finite number of 0 or more, not -1.0"),
        ("mir", {"candidates": 0}, "candidates must be at least 1"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ForgetlessError, match=said):
        create(name, **settings)

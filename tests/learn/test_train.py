from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn import train
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.methods import create
from forgetless.learn.network import Network
from forgetless.learn.optimizers import sgd
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.samples import Batch
from forgetless.learn.seeding import derive, permutation
from forgetless.learn.task import Task
from forgetless.learn.train import Outcome, learn
from streams import INPUTS, Plain, network, same, stream

SGD = functools.partial(sgd, weight_decay=1e-3)
RECIPE = Recipe(lr=0.1, epochs=2, batch_size=24, optimizer=SGD, clip=1.0, schedule="cosine")
STREAM = stream(3)
STEPS = 4  # in a task: epochs × batches
EVENTS = 3 * (STEPS + 2) + 2  # steps, measuring and testing of each task, and two warm starts


class Killed(Exception):
    """Stands for a process that ends without a word."""


def kill_at(event: int, how: type[BaseException] = Killed) -> Callable[[Progress], None]:
    seen = Counter[str]()

    def on_progress(progress: Progress) -> None:
        seen["events"] += 1
        if seen["events"] == event:
            raise how

    return on_progress


@pytest.fixture(scope="module")
def whole() -> tuple[MultiHead, Outcome]:
    """The run that nothing interrupts, in a network in which modes and random numbers matter."""
    model = network(noisy=True)
    return model, learn(model, STREAM, create("mas"), RECIPE, seed=3)


def again(path: Path, *, kill: Callable[[Progress], None] | None = None, every: float = 0) -> tuple[MultiHead, Outcome]:
    model = network(noisy=True)
    return model, learn(model, STREAM, create("mas"), RECIPE, seed=3, checkpoint=path, every=every, on_progress=kill)


def assert_same(found: tuple[MultiHead, Outcome], expected: tuple[MultiHead, Outcome]) -> None:
    assert found[1].accuracy == expected[1].accuracy
    assert same(found[0], expected[0])


# ---- the loop


def test_it_is_the_loop_one_would_write() -> None:
    """Fine-tuning against a loop that shares nothing with it but the order of samples and the heads' first weights."""
    found, expected = network(), network()
    recipe = dataclasses.replace(RECIPE, warm_start=False, batch_size=48)
    learn(found, STREAM[:2], create("finetune"), recipe, seed=5)
    for task in STREAM[:2]:
        torch.manual_seed(derive(5, task.name, "head"))
        expected.grow(task.name, 3)
        optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        for step in range(2):
            order = permutation(48, derive(5, task.name, "order", step))
            optimizer.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * step / 2)) / 2
            optimizer.zero_grad()
            F.cross_entropy(expected(task.train[0][order], task.name), task.train[1][order]).backward()
            nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
            optimizer.step()
    assert same(found, expected)


def test_the_matrix_is_what_the_network_does() -> None:
    model = network()
    outcome = learn(model, STREAM, create("finetune"), RECIPE, seed=0)
    for j, task in enumerate(STREAM):
        right = model(task.test[0], task.name).argmax(1) == task.test[1]
        assert outcome.accuracy[-1][j] == float(right.double().mean())
    assert [[entry is None for entry in row] for row in outcome.accuracy] == [
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]


def test_the_seed_decides_and_nothing_else() -> None:
    runs = []
    for seed in (1, 1, 2):
        torch.rand(len(runs))  # the caller's random state plays no part …
        before = torch.get_rng_state()
        model = network(noisy=True)
        learn(model, STREAM, create("finetune"), RECIPE, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)  # … and is left alone
        runs.append(model)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@given(samples=st.integers(1, 40), batch_size=st.integers(1, 45), epochs=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_every_sample_once_an_epoch_in_equal_steps(samples: int, batch_size: int, epochs: int) -> None:
    part = (torch.arange(samples).float()[:, None].expand(-1, INPUTS).clone(), torch.zeros(samples).long())
    method = Plain()
    learn(network(), [classification("t", ("a",), part, part)], method, Recipe(1e-9, epochs, batch_size), seed=0)
    steps = math.ceil(samples / batch_size)
    assert len(method.batches) == steps * epochs
    for epoch in range(epochs):
        batches = method.batches[epoch * steps : (epoch + 1) * steps]
        assert sorted(torch.cat(batches)[:, 0].tolist()) == list(range(samples))
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1


def test_the_method_is_called_at_its_points() -> None:
    method = Plain()
    learn(network(), STREAM[:2], method, RECIPE, seed=0)
    assert method.calls == ["begin task.0", "end task.0", "begin task.1", "end task.1"]


def test_progress() -> None:
    seen: list[Progress] = []
    learn(network(), STREAM[:2], create("finetune"), RECIPE, seed=0, on_progress=seen.append)
    assert [(each.task, each.phase) for each in seen] == [
        *[(1, "train")] * 4,
        (1, "measure"),
        (1, "evaluate"),
        (2, "warm_start"),
        *[(2, "train")] * 4,
        (2, "measure"),
        (2, "evaluate"),
    ]
    steps = [each for each in seen if each.phase == "train"]
    assert [each.step for each in steps] == [1, 2, 3, 4] * 2
    assert [each.epoch for each in steps] == [1, 1, 2, 2] * 2
    assert {(each.tasks, each.steps) for each in steps} == {(2, STEPS)}
    assert all(math.isfinite(each.loss) for each in steps)
    assert [each.name for each in steps] == ["task.0"] * STEPS + ["task.1"] * STEPS


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("hold", [False, True])
def test_statistics_are_held_once_the_backbone_is_trained(pretrained: bool, hold: bool) -> None:
    model = network(noisy=True, pretrained=pretrained)
    norm = model.backbone[1]
    counts = {1: 0, 2: 0}

    def on_progress(progress: Progress) -> None:
        counts[progress.task] = int(norm.num_batches_tracked)

    recipe = dataclasses.replace(RECIPE, freeze_batchnorm=hold)
    learn(model, STREAM[:2], create("finetune"), recipe, seed=0, on_progress=on_progress)
    assert counts[1] == (0 if hold and pretrained else STEPS)
    assert counts[2] - counts[1] == (0 if hold else STEPS)


@pytest.mark.parametrize(("pretrained", "warm", "expected"), [(False, True, 1), (True, True, 2), (True, False, 0)])
def test_heads_are_warm_started_once_the_backbone_is_trained(pretrained: bool, warm: bool, expected: int) -> None:
    seen: list[str] = []
    learn(
        network(pretrained=pretrained),
        STREAM[:2],
        create("finetune"),
        dataclasses.replace(RECIPE, warm_start=warm),
        seed=0,
        on_progress=lambda progress: seen.append(progress.phase),
    )
    assert seen.count("warm_start") == expected


def test_streams_that_cannot_be_learned() -> None:
    with pytest.raises(ForgetlessError, match=r"^a stream needs tasks of different names, not \[\]\.$"):
        learn(network(), [], create("finetune"), RECIPE, seed=0)
    with pytest.raises(ForgetlessError, match=r"^a stream needs tasks of different names, not \['task.0', 'task.0'\]"):
        learn(network(), [STREAM[0], STREAM[0]], create("finetune"), RECIPE, seed=0)


# ---- tasks that share a head


def test_where_one_head_grows_all_classes_so_far_must_be_told_apart() -> None:
    model = network(scenario="class")
    outcome = learn(model, STREAM, create("er"), RECIPE, seed=0)
    for j, task in enumerate(STREAM):
        logits = model(task.test[0], task.name)
        assert logits.shape[1] == 9
        right = logits.argmax(1) == task.test[1] + 3 * j
        assert outcome.accuracy[-1][j] == float(right.double().mean())
    assert outcome.accuracy[0][1:] == [None, None]


def test_where_one_head_is_shared_tasks_to_come_are_tested_too() -> None:
    model = network(scenario="domain")
    outcome = learn(model, STREAM, create("finetune"), RECIPE, seed=0)
    for j, task in enumerate(STREAM):
        right = model(task.test[0], task.name).argmax(1) == task.test[1]
        assert outcome.accuracy[-1][j] == float(right.double().mean())
    assert None not in [entry for row in outcome.accuracy for entry in row]


@pytest.mark.parametrize("scenario", ["domain", "class"])
def test_a_shared_head_is_not_started_anew(scenario: str) -> None:
    seen: list[str] = []
    model = network(pretrained=True, scenario=scenario)
    learn(
        model, STREAM[:2], create("finetune"), RECIPE, seed=0, on_progress=lambda progress: seen.append(progress.phase)
    )
    assert seen.count("warm_start") == 1


def test_the_checkpoint_of_another_scenario(tmp_path: Path) -> None:
    learn(network(scenario="class"), STREAM, create("finetune"), RECIPE, seed=0, checkpoint=tmp_path / "c")
    with pytest.raises(ForgetlessError, match="scenario is 'class' there and 'domain' here"):
        learn(network(scenario="domain"), STREAM, create("finetune"), RECIPE, seed=0, checkpoint=tmp_path / "c")


# ---- resuming


@pytest.mark.parametrize("event", range(1, EVENTS + 1))
def test_killed_anywhere_it_ends_with_the_same_bits(
    event: int, tmp_path: Path, whole: tuple[MultiHead, Outcome]
) -> None:
    with pytest.raises(Killed):
        again(tmp_path / "c", kill=kill_at(event))
    assert_same(again(tmp_path / "c"), whole)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.tuples(st.integers(1, EVENTS), st.booleans()), min_size=1, max_size=4))
def test_killed_again_and_again(
    kills: list[tuple[int, bool]], tmp_path_factory: pytest.TempPathFactory, whole: tuple[MultiHead, Outcome]
) -> None:
    path = tmp_path_factory.mktemp("run") / "c"
    for event, often in kills:
        try:
            again(path, kill=kill_at(event), every=0 if often else math.inf)
        except Killed:
            continue
    assert_same(again(path), whole)


def test_killed_while_the_checkpoint_is_written(
    tmp_path: Path, whole: tuple[MultiHead, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Counter[str]()

    def cut(tensors: object, path: str, metadata: object) -> None:
        written["files"] += 1
        if written["files"] == 7:
            Path(path).write_bytes(b"half a file")
            raise Killed
        save(tensors, path, metadata=metadata)

    save = files.tensors.save_file
    monkeypatch.setattr(files.tensors, "save_file", cut)
    with pytest.raises(Killed):
        again(tmp_path / "c")
    assert [each.name for each in tmp_path.iterdir()] == ["c"]
    assert_same(again(tmp_path / "c"), whole)


def test_killed_for_real(tmp_path: Path, whole: tuple[MultiHead, Outcome]) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "support"), *sys.path]!r}
import test_train
def die(progress):
    if (progress.task, progress.step) == (2, 3):
        os.kill(os.getpid(), signal.SIGKILL)
test_train.again(Path({str(tmp_path / "c")!r}), kill=die)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert_same(again(tmp_path / "c"), whole)


def test_ctrl_c_waits_for_the_step_and_saves(
    tmp_path: Path, whole: tuple[MultiHead, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = MultiHead.forward, Counter[str]()

    def pressed(self: MultiHead, inputs: Tensor, task: str) -> Tensor:
        seen["steps"] += self.training
        if seen["steps"] == 3 and self.training:
            signal.raise_signal(signal.SIGINT)
        return forward(self, inputs, task)

    monkeypatch.setattr(MultiHead, "forward", pressed)
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "c", every=math.inf)
    _, header = files.read_tensors(tmp_path / "c", "checkpoint")
    assert (header["position"]["index"], header["position"]["step"]) == (0, 3)
    monkeypatch.undo()
    assert_same(again(tmp_path / "c"), whole)


def test_a_finished_run_is_not_run_again(tmp_path: Path, whole: tuple[MultiHead, Outcome]) -> None:
    _, first = again(tmp_path / "c")
    model, second = again(tmp_path / "c", kill=kill_at(1))
    assert_same((model, second), whole)
    assert second.seconds == first.seconds


def test_seconds_add_up_over_resumes(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        again(tmp_path / "c", kill=kill_at(EVENTS - 2))
    _, header = files.read_tensors(tmp_path / "c", "checkpoint")
    before = header["position"]["seconds"]
    _, outcome = again(tmp_path / "c")
    assert set(outcome.seconds) == {"warm_start", "train", "measure", "evaluate"}
    assert all(outcome.seconds[phase] >= before[phase] > 0 for phase in before)


def test_the_interval_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves a second a step: each 3 steps inside a task, and always when its training or it ends."""
    clock, written = Counter[str](), []
    monkeypatch.setattr(train.time, "monotonic", lambda: clock["seconds"])
    monkeypatch.setattr(
        train.checkpoints, "write", lambda path, config, position, parts: written.append(position.copy())
    )
    learn(
        network(),
        STREAM[:2],
        create("finetune"),
        RECIPE,
        seed=0,
        checkpoint=tmp_path / "c",
        every=3,
        on_progress=lambda progress: clock.update(seconds=progress.phase == "train"),
    )
    positions = [(each["index"], each["step"]) for each in written]
    assert positions == [(0, 3), (0, 4), (1, 0), (1, 3), (1, 4), (2, 0)]


# ---- a checkpoint that does not fit


def _other_task() -> list[Task]:
    inputs, labels = STREAM[1].train
    return [STREAM[0], dataclasses.replace(STREAM[1], train=(inputs + 1e-3, labels)), STREAM[2]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"recipe": dataclasses.replace(RECIPE, lr=0.2)}, "the recipe's lr is 0.1 there and 0.2 here"),
        ({"method": create("mas", 2.0)}, "mas's strength is 1.0 there and 2.0 here"),
        ({"method": create("frozen")}, "method is 'mas' there and 'frozen' here"),
        ({"tasks": _other_task()}, "task 2 is 'task.1 "),
        ({"tasks": STREAM[:2]}, "task 3 is 'task.2 "),
        ({"model": network(1, noisy=True)}, "the network at the start is "),
    ],
)
def test_a_checkpoint_of_another_run(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(Killed):
        again(path, kill=kill_at(9))
    before = path.read_bytes()
    arguments = {
        "model": network(noisy=True),
        "tasks": STREAM,
        "method": create("mas"),
        "recipe": RECIPE,
        "seed": 3,
        **change,
    }
    with pytest.raises(ForgetlessError) as caught:
        learn(**arguments, checkpoint=path)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{path} is the checkpoint of another run: ")
    assert sentence in str(caught.value)
    assert path.read_bytes() == before


def test_a_checkpoint_that_lacks_something(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(Killed):
        again(path, kill=kill_at(9))
    tensors, header = files.read_tensors(path, "checkpoint")
    tensors.pop("model/backbone.0.weight")
    files.write_tensors(path, tensors, "checkpoint", header)
    with pytest.raises(ForgetlessError) as caught:
        again(path)
    assert str(caught.value) == f"{path} is damaged: it does not hold a whole run."


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"index": "1"}, "index must be an integer, not '1'."),
        ({"step": -1}, "step must be from 0 to"),
        ({"step": 1.5}, "step must be an integer, not 1.5."),
        ({"accuracy": [[None]]}, "its position is not one in a stream of 3 tasks."),
        ({"seconds": {"sleep": 1.0}}, "its position is not one in a stream of 3 tasks."),
        ({"index": 99}, "its position is not one in a stream of 3 tasks."),
    ],
)
def test_a_checkpoint_whose_position_is_none(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(Killed):
        again(path, kill=kill_at(9))
    tensors, header = files.read_tensors(path, "checkpoint")
    files.write_tensors(path, tensors, "checkpoint", {**header, "position": {**header["position"], **change}})
    with pytest.raises(ForgetlessError, match=re.escape(sentence)) as caught:
        again(path)
    assert str(caught.value).startswith(f"{path} is damaged: ")


def test_running_out_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    with pytest.raises(Killed):
        again(path, kill=kill_at(9))
    monkeypatch.setattr(MultiHead, "load_state_dict", raising(torch.OutOfMemoryError("no memory")))
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        again(path)


def raising(error: Exception) -> Callable[..., None]:
    def function(*args: object, **kwargs: object) -> None:
        raise error

    return function


# ---- what diverges


@dataclasses.dataclass
class Poisoned(Plain):
    """Adds NaN to the loss of one step, until it is cured."""

    step: int = dataclasses.field(default=0, init=False)

    def penalty(self, batch: Batch) -> Tensor | None:
        super().penalty(batch)
        return torch.tensor(math.nan) if len(self.batches) == self.step else None


def test_a_loss_that_becomes_nan(tmp_path: Path) -> None:
    expected = network()
    learn(expected, STREAM, Poisoned(), RECIPE, seed=0)
    method = Poisoned()
    method.step = 7
    with pytest.raises(ForgetlessError) as caught:
        learn(network(), STREAM, method, RECIPE, seed=0, checkpoint=tmp_path / "c", every=0)
    assert str(caught.value) == (
        "the loss became nan in task 'task.1', step 3, under 'plain'; lower lr (now 0.1) or set clip."
    )
    cured = network()
    learn(cured, STREAM, Poisoned(), RECIPE, seed=0, checkpoint=tmp_path / "c")
    assert same(cured, expected)


@pytest.mark.parametrize("when", ["the last step", "the end"])
def test_weights_that_become_infinite_where_no_loss_shows_it(when: str, tmp_path: Path) -> None:
    model = network()

    class Wild(Plain):
        def penalty(self, batch: Batch) -> Tensor | None:
            super().penalty(batch)
            if when == "the last step" and len(self.batches) == STEPS:
                model.backbone[0].bias.register_hook(lambda gradient: gradient * math.inf)
            return None

        def end(self, model: Network, task: Task) -> None:
            nn.init.constant_(model.backbone[0].bias, math.inf)  # type: ignore[index,arg-type]

    with pytest.raises(ForgetlessError) as caught:
        learn(model, STREAM, Wild(), dataclasses.replace(RECIPE, clip=None), seed=0, checkpoint=tmp_path / "c")
    assert str(caught.value) == (
        "the weights 'backbone.0.bias' became NaN or Inf in task 'task.0', step 4, under 'plain'; "
        "lower lr (now 0.1) or set clip."
    )
    assert (tmp_path / "c").exists() == (when == "the end")


def test_logits_that_are_nan_are_no_class() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(INPUTS, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.layer(inputs) if self.training else self.layer(inputs) * math.nan

    with pytest.raises(ForgetlessError, match=r"^the outputs of task 'task.0' hold NaN or Inf in eval mode\.$"):
        learn(MultiHead(Broken(), 4), STREAM, create("finetune"), RECIPE, seed=0)

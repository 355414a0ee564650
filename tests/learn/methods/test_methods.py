"""The contract every method keeps, over the registry."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.lab.running.search import strengthen
from forgetless.learn import methods, metrics
from forgetless.learn.classification import classes_of
from forgetless.learn.families.composed import Composed
from forgetless.learn.families.projection import away_from
from forgetless.learn.heads import MultiHead
from forgetless.learn.method import Method
from forgetless.learn.methods import METHODS, create
from forgetless.learn.methods.ewc import EWC
from forgetless.learn.methods.imm_mean import IMMMean
from forgetless.learn.methods.lwf import LwF
from forgetless.learn.methods.online_ewc import OnlineEWC
from forgetless.learn.network import Network
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.learn.train import Outcome, learn
from forgetless.measure import reference
from forgetless.measure.importance import Importance
from streams import network, same, stream

STREAM = stream(3)
RECIPE = Recipe(lr=0.1, epochs=8, batch_size=24)
STEPS = 16
NAMES = [*METHODS, "mas+er", "mas+lwf"]
STRONG = [name for name in NAMES if create(name).strength is not None]
AUTOMATIC = [name for name in STRONG if create(name).automatic]
MERGERS = {"imm-mean", "imm-mode"}  # merge weights at every strength
HOARDERS = {"joint", "mas-remeasured"}  # keep all data, or inputs

LEFT = {"a-gem": 0.9}  # it only refuses to step where the loss on its few samples would rise
# Where the default would show nothing on a stream as small as this.
STRENGTHS = {"l2sp": 1.0, "si": 100.0, "lwf": 2.0, "der++": 0.2}
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"memory": 24} for name in ("er", "der++", "a-gem")},
    "rwalk": {"window": 3},
    "ebll": {"code": 4, "fitting": 20},
}


def make(name: str, strength: float | None = None) -> Method:
    if name not in METHODS:
        return Composed([make(part, strength) for part in name.split("+")])
    method = create(name, STRENGTHS.get(name), **SETTINGS.get(name, {}))
    return method if strength is None else dataclasses.replace(method, strength=strength)


def run(name: str, strength: float | None = None, *, noisy: bool = False, **more: Any) -> tuple[MultiHead, Outcome]:
    model = network(noisy=noisy)
    return model, learn(model, STREAM, make(name, strength), RECIPE, seed=1, **more)


@functools.cache
def whole(name: str, noisy: bool = False) -> tuple[MultiHead, Outcome]:
    """The run that nothing interrupts."""
    return run(name, noisy=noisy)


def test_the_registry_knows_each_by_its_own_name() -> None:
    assert all(METHODS[name].name == name == create(name).name for name in METHODS)
    assert all(METHODS[name].__doc__ for name in METHODS)
    for name, kind in METHODS.items():  # a file is found by the method's name
        assert kind.__module__.rpartition(".")[2] == name.replace("-", "_").replace("++", "_plus_plus")


def test_the_folder_holds_methods_and_nothing_else() -> None:
    folder = Path(methods.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == {kind.__module__.rpartition(".")[2] for kind in METHODS.values()}
    for name in files:
        own = list(vars(importlib.import_module(f"forgetless.learn.methods.{name}")).values())
        kinds = [each for each in own if isinstance(each, type) and issubclass(each, Method)]
        assert [each for each in kinds if each.__module__.endswith(f".{name}")] == [
            kind for kind in METHODS.values() if kind.__module__.endswith(f"methods.{name}")
        ]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"finetune"}))
def test_less_is_forgotten_than_by_fine_tuning(name: str) -> None:
    plain, found = whole("finetune")[1].accuracy, whole(name)[1].accuracy
    assert metrics.forgetting(plain) > 0.15
    assert metrics.forgetting(found) < LEFT.get(name, 0.6) * metrics.forgetting(plain)
    assert metrics.average_accuracy(found) > metrics.average_accuracy(plain)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_task_is_learned_as_by_fine_tuning(name: str) -> None:
    assert whole(name)[1].accuracy[0] == whole("finetune")[1].accuracy[0]


@pytest.mark.parametrize("name", sorted({*STRONG} - MERGERS))
def test_strength_0_is_fine_tuning_exactly(name: str) -> None:
    (model, outcome), (plain, expected) = run(name, 0.0, noisy=True), whole("finetune", noisy=True)
    assert same(model, plain)
    assert outcome.accuracy == expected.accuracy


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    assert same(run(name, noisy=True)[0], whole(name, noisy=True)[0])


class Killed(Exception):
    """Stands for a process that ends without a word."""


PLACES = [(2, "train", 5), (2, "measure", STEPS), (3, "warm_start", 0), (3, "train", STEPS)]


def killed_again_and_again(path: Path, go: Callable[..., Any], places: list[tuple[int, str, int]]) -> Any:
    """Let `go` be killed at each place in turn, and go on from its checkpoint; gives what it comes to."""

    def kill(progress: Progress) -> None:
        if left and (progress.task, progress.phase, progress.step) == left[0]:
            raise Killed

    left = list(places)
    while left:
        with pytest.raises(Killed):
            go(checkpoint=path, every=0, on_progress=kill)
        left.pop(0)
    return go(checkpoint=path)


@pytest.mark.parametrize("name", NAMES)
def test_killed_in_the_middle_it_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    model, outcome = killed_again_and_again(tmp_path / "c", functools.partial(run, name, noisy=True), PLACES)
    expected_model, expected = whole(name, True)
    assert same(model, expected_model)
    assert outcome.accuracy == expected.accuracy


@pytest.mark.parametrize("name", sorted({*NAMES} - HOARDERS))
def test_memory_is_constant_in_the_number_of_tasks(name: str) -> None:
    """What it keeps, heads and EBLL's encoders apart (one per task), is as large in the third task as in the second."""
    model, method, sizes = network(), make(name), Counter[int]()

    def weigh(progress: Progress) -> None:
        if progress.phase == "train":
            kept = {key: each for key, each in method.state().items() if "heads." not in key and "encoder/" not in key}
            sizes[progress.task] = sum(each.nbytes for each in kept.values())

    learn(model, STREAM, method, RECIPE, seed=1, on_progress=weigh)
    assert sizes[3] == sizes[2]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stays_behind_in_the_network(name: str) -> None:
    model, _ = whole(name)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_state_survives_a_round_trip_between_tasks(name: str) -> None:
    model = network()
    method = make(name)
    learn(model, STREAM[:2], method, RECIPE, seed=1)
    fresh = make(name)
    fresh.load_state(model, {key: tensor.clone() for key, tensor in method.state().items()}, STREAM[:2])
    before, after = method.state(), fresh.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("scenario", ["domain", "class"])
@pytest.mark.parametrize("name", NAMES)
def test_where_tasks_share_a_head_it_is_resumed_to_the_same_bits(name: str, scenario: str, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=2)

    def go(**more: Any) -> tuple[MultiHead, Outcome]:
        model = network(noisy=True, scenario=scenario)
        return model, learn(model, STREAM[:2], make(name), recipe, seed=1, **more)

    model, outcome = killed_again_and_again(tmp_path / "c", go, [(2, "train", 3), (2, "measure", 4)])
    expected_model, expected = go()
    assert same(model, expected_model)
    assert outcome.accuracy == expected.accuracy


@pytest.mark.parametrize("name", sorted({*STRONG} - MERGERS))
def test_a_strength_that_is_changed_between_tasks_is_the_one_that_acts(name: str) -> None:
    """A search for every task's strength does that: let go after the first task, a method is fine-tuning from there."""

    def learned(method: Method, then: float | None) -> MultiHead:
        model = network()
        learn(model, STREAM[:1], method, RECIPE, seed=1)
        if then is not None:
            strengthen(method, then)
        learn(model, STREAM[1:2], method, RECIPE, seed=1)
        return model

    first, *rest = [name] if name in METHODS else name.split("+")
    free = make("finetune") if not rest else Composed([make(first, 0.0), *map(make, rest)])
    expected = learned(free, None)
    assert same(learned(make(name), 0.0), expected)
    assert not same(learned(make(name), None), expected)


def automatic(name: str) -> Method:
    method = make(name)
    method.set_strength("auto")
    return method


@pytest.mark.parametrize("name", AUTOMATIC)
def test_auto_finds_a_strength_that_keeps_old_tasks(name: str) -> None:
    """It holds most of the movement, whatever the scale of Ω is; what it found is told."""
    method, plain = automatic(name), whole("finetune")[1].accuracy
    found = learn(network(), STREAM, method, RECIPE, seed=1).accuracy
    assert metrics.forgetting(found) < metrics.forgetting(plain)
    strength = method.found_strength()
    assert strength is not None
    assert 0 < strength < math.inf
    if name in METHODS:
        assert method.settings()["strength"] == "auto"


@pytest.mark.parametrize("name", ["mas", "ewc", "si", "l2sp", "mas+er"])
def test_with_auto_it_is_resumed_to_the_same_bits(name: str, tmp_path: Path) -> None:
    def go(**more: Any) -> tuple[MultiHead, Outcome, float | None]:
        model, method = network(noisy=True), automatic(name)
        outcome = learn(model, STREAM, method, RECIPE, seed=1, **more)
        return model, outcome, method.found_strength()

    model, outcome, strength = killed_again_and_again(tmp_path / "c", go, PLACES)
    expected_model, expected, whole_strength = go()
    assert same(model, expected_model)
    assert (outcome.accuracy, strength) == (expected.accuracy, whole_strength)


@pytest.mark.parametrize("name", sorted({*AUTOMATIC} & {*METHODS}))
def test_a_number_takes_the_place_of_auto_between_tasks_and_auto_of_a_number(name: str) -> None:
    def learned(first: float | Literal["auto"], then: float | Literal["auto"]) -> tuple[MultiHead, Method]:
        model, method = network(), make(name)
        method.set_strength(first)
        learn(model, STREAM[:1], method, RECIPE, seed=1)
        method.set_strength(then)
        learn(model, STREAM[1:2], method, RECIPE, seed=1)
        return model, method

    assert same(learned("auto", 2.0)[0], learned(2.0, 2.0)[0])
    later, method = learned(2.0, "auto")
    assert same(later, learned("auto", "auto")[0])
    found = method.found_strength()
    assert found is not None
    assert found != 2.0


def test_ewc_with_auto_weighs_all_tasks_alike() -> None:
    """What λ was found for a task is no part of how much it counts in the next one's Ω."""
    automatically, by_number = automatic("ewc"), make("ewc", 1.0)
    for method in (automatically, by_number):
        assert isinstance(method, EWC)
        model = network()
        learn(model, STREAM[:2], method, dataclasses.replace(RECIPE, lr=1e-30), seed=1)  # the weights stay as they are
    (first,), (second,) = automatically.anchors(), by_number.anchors()
    found, expected = first.importance, second.importance
    assert all(torch.allclose(found[key], expected[key], rtol=1e-5, atol=0) for key in expected)


@pytest.mark.parametrize("scenario", ["domain", "class"])
@pytest.mark.parametrize("name", ["mas", "local-mas", "l2sp", "ewc", "online-ewc", "si", "rwalk"])
def test_a_shared_head_is_held_too(name: str, scenario: str) -> None:
    method, model = make(name), network(scenario=scenario)
    learn(model, STREAM[:2], method, RECIPE, seed=1)
    kept = method.state()
    assert float(kept["anchor/importance.heads.shared.weight"].sum()) > 0
    assert kept["anchor/importance.heads.shared.weight"].shape[0] == (6 if scenario == "class" else 3)


@pytest.mark.parametrize("name", ["l2sp", "imm-mean"])
def test_rows_that_a_head_has_just_grown_are_free(name: str) -> None:
    model, method = network(scenario="class"), make(name)
    learn(model, STREAM[:2], method, RECIPE, seed=1)
    for kind in ("weight", "bias"):
        held = method.state()[f"anchor/importance.heads.shared.{kind}"]
        assert bool((held[:3] == 1).all())
        assert bool((held[3:] == 0).all())


def test_l2sp_holds_them_too_where_it_is_told_to() -> None:
    """At an immense λ the rows of the second task stay where they were drawn; free, they learn."""
    moved = {}
    for new_rows in (True, False):
        model, method = network(scenario="class"), create("l2sp", 1e9, new_rows=new_rows)
        learn(model, STREAM[:2], method, RECIPE, seed=1)
        drawn = method.state()["anchor/weights.heads.shared.weight"][3:]
        moved[new_rows] = float((model.head(STREAM[1].name).weight[3:] - drawn).abs().max())
    assert moved[True] < 1e-6
    assert moved[False] > 1e-3


@pytest.mark.parametrize("scenario", ["domain", "class"])
def test_old_answers_are_those_of_the_shared_head(scenario: str) -> None:
    """At a task's first step they are what they were, but for what new classes take; then the penalty tells the way."""
    found = []

    class Spied(LwF):
        def penalty(self, batch: Batch) -> Tensor | None:
            found.append(super().penalty(batch))
            return found[-1]

    learn(network(scenario=scenario), STREAM[:2], Spied(), RECIPE, seed=1)
    kept = [float(each) for each in found if each is not None]
    assert len(kept) == STEPS
    assert kept[0] > 0.1 if scenario == "class" else kept[0] == pytest.approx(0, abs=1e-6)
    assert min(kept[1:]) > 1e-6


def test_separate_anchors_are_kept_as_their_exact_sum() -> None:
    """EWC's one anchor against the sum over tasks of `F_k (θ − θ_k)²`, by its gradient, where a head has grown."""
    model, method, terms = network(scenario="class"), make("ewc"), []

    class Spied(EWC):
        def measure(self, model: Network, task: Task) -> Importance:
            found = super().measure(model, task)
            weights = {name: each.detach().clone() for name, each in model.named_parameters() if name in found.sums}
            terms.append((found.mean(), weights))
            return found

    method = Spied()
    learn(model, STREAM, method, RECIPE, seed=1)
    kept = method.state()
    generator = torch.Generator().manual_seed(0)
    for name, now in model.named_parameters():
        moved = torch.randn(now.shape, generator=generator)
        slope = torch.zeros_like(now)
        for fisher, weights in terms:
            corner = tuple(slice(size) for size in weights[name].shape)
            slope[corner] += 2 * fisher[name] * (now.detach() + moved - 0)[corner] - 2 * fisher[name] * weights[name]
        found = 2 * kept[f"anchor/importance.{name}"] * (now.detach() + moved - kept[f"anchor/weights.{name}"])
        assert torch.allclose(found, slope, rtol=1e-3, atol=1e-5 * float(slope.abs().max()))


@pytest.mark.parametrize("name", ["mas", "local-mas", "ewc", "si", "rwalk", "ebll", "imm-mean", "imm-mode"])
def test_what_is_taken_back_is_where_the_network_is(name: str) -> None:
    """A checkpoint is read on the processor, and a run on a GPU continues with it."""
    method = make(name)
    learn(network(), STREAM[:2], method, RECIPE, seed=1)
    kept, model, again = method.state(), network(), make(name)
    for task in STREAM[:2]:
        model.grow(task.name, len(classes_of(task)))
    again.load_state(model.to("meta"), kept, STREAM[:2])
    assert kept
    elsewhere = {key for key, tensor in again.state().items() if tensor.ndim and tensor.device.type != "meta"}
    assert elsewhere == set()


def test_online_ewc_lets_old_tasks_fade() -> None:
    measured = []

    class Spied(OnlineEWC):
        def measure(self, model: Network, task: Task) -> Importance:
            measured.append(super().measure(model, task))
            return measured[-1]

    method = Spied(0.0, gamma=0.5)
    learn(network(), STREAM, method, RECIPE, seed=1)
    first, second, third = (each.mean() for each in measured)
    kept = method.state()
    for name in third:
        expected = first[name] / 4 + second[name] / 2 + third[name]
        torch.testing.assert_close(kept[f"anchor/importance.{name}"], expected)


def test_merged_weights_are_the_mean_of_the_tasks_and_learning_goes_on_from_the_last() -> None:
    ends: list[dict[str, Tensor]] = []

    class Spied(IMMMean):
        def precision(self, model: Network, task: Task) -> dict[str, Tensor]:
            ends.append({name: each.detach().clone() for name, each in model.backbone.named_parameters()})
            return super().precision(model, task)

    model, plain = network(), network()
    learn(model, STREAM, Spied(0.0), RECIPE, seed=1)
    learn(plain, STREAM, create("finetune"), RECIPE, seed=1)
    for name, weights in model.backbone.named_parameters():
        assert torch.equal(
            ends[-1][name], plain.backbone.get_parameter(name)
        )  # strength 0, before merging: fine-tuning
        assert torch.allclose(weights, torch.stack([end[name] for end in ends]).mean(0), atol=1e-6)


def test_measured_anew_is_the_sum_over_all_tasks_on_the_network_as_it_is() -> None:
    model, method = network(), make("mas-remeasured")
    learn(model, STREAM[:2], method, RECIPE, seed=1)
    kept = method.state()
    expected: dict[str, Tensor] = {}
    for task in STREAM[:2]:
        found = reference.mas(
            model.eval(),
            task.train[0],
            forward=lambda net, batch, name=task.name: net(batch, name),
            exclude="heads",
        )
        for name, omega in found.mean().items():
            expected[name] = expected.get(name, torch.zeros_like(omega)) + omega
    for name, omega in expected.items():
        assert torch.allclose(kept[f"anchor/importance.{name}"], omega, rtol=1e-4, atol=1e-6 * float(omega.max()))


def test_samples_kept_to_measure_anew_are_few_where_so_set() -> None:
    method = create("mas-remeasured", memory=5)
    learn(network(), STREAM[:2], method, RECIPE, seed=1)
    assert [len(each) for key, each in method.state().items() if key.startswith("inputs/")] == [5, 5]


def test_the_modulus_per_batch_is_less_than_per_sample() -> None:
    found = {}
    for name, settings in (("mas", {}), ("mas-per-batch", {"batch": 24}), ("mas-per-batch", {"batch": 1})):
        method = create(name, **settings)
        learn(network(), STREAM[:1], method, RECIPE, seed=1)
        found[name, settings.get("batch")] = method.state()["anchor/importance.backbone.0.weight"]
    exact = found["mas", None]
    assert torch.allclose(found["mas-per-batch", 1], exact, rtol=1e-4, atol=1e-6 * float(exact.max()))
    assert bool((found["mas-per-batch", 24] <= exact * (1 + 1e-5)).all())
    assert float(found["mas-per-batch", 24].sum()) < 0.9 * float(exact.sum())


def test_a_gradient_that_would_undo_is_turned_away() -> None:
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([3.0, 1.0])
    reference = (torch.tensor([-2.0, 1.0, 0.0]), None, torch.tensor([1.0]))
    away_from(weights, reference)
    g, r = torch.tensor([1.0, -2, 0.5, 3, 1, 0]), torch.tensor([-2.0, 1, 0, 0, 0, 1])
    expected = g - (g @ r) / (r @ r) * r
    assert torch.allclose(torch.cat([each.grad for each in weights if each.grad is not None]), expected)
    assert float(expected @ r) == pytest.approx(0, abs=1e-6)
    before = [each.grad.clone() for each in weights if each.grad is not None]
    away_from(weights, (torch.tensor([0.0, -1.0, 0.0]), None, None))  # agrees: nothing changes
    assert all(torch.equal(each.grad, was) for each, was in zip(weights, before, strict=True) if each.grad is not None)


def test_a_composition_says_what_it_is_made_of() -> None:
    method = create("mas+er", 0.5)
    assert (method.name, method.strength) == ("mas+er", 0.5)
    assert method.settings() == {"mas.strength": 0.5, "er.strength": 1.0, "er.memory": 500}
    assert create("der+++mas").name == "der+++mas"
    assert create("finetune+a-gem").strength is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mas+mas", "a composition takes two methods or more, each once, not 'mas', 'mas'."),
        ("mas+magic", "there is no method 'magic'; there are 'finetune'"),
        ("mas+", "there is no method ''; there are 'finetune'"),
    ],
)
def test_a_composition_that_makes_no_sense(name: str, sentence: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        create(name)
    assert str(caught.value).startswith(sentence)


def test_a_setting_that_is_not_there() -> None:
    with pytest.raises(
        ForgetlessError, match=r"^the method 'er' has no setting 'size'; it has 'strength', 'memory'\.$"
    ):
        create("er", size=3)
    assert create("er", memory=3).settings() == {"strength": 1.0, "memory": 3}


def test_a_method_that_is_not_there() -> None:
    with pytest.raises(ForgetlessError, match=r"^there is no method 'magic'; there are 'finetune', 'frozen', 'mas'"):
        create("magic")


def test_a_strength_for_a_method_without() -> None:
    with pytest.raises(ForgetlessError, match=r"^the method 'finetune' takes no strength\.$"):
        create("finetune", 1.0)


def test_a_strength_in_words() -> None:
    assert create("mas+er", "auto").strength == "auto"
    with pytest.raises(ForgetlessError, match=r"^the strength of the method 'lwf' must be a number, not 'auto'\.$"):
        create("lwf", "auto")
    with pytest.raises(
        ForgetlessError, match=r"^the strength of the method 'mas' must be a number or 'auto', not 'much'\.$"
    ):
        create("mas", "much")
    composed = create("lwf+mas", 2.0)
    with pytest.raises(ForgetlessError, match=r"^the strength of the method 'lwf' must be a number, not 'auto'\.$"):
        composed.set_strength("auto")
    assert composed.strength == 2.0


@pytest.mark.parametrize("strength", [-1.0, math.inf, math.nan])
def test_a_strength_that_makes_no_sense(strength: float) -> None:
    with pytest.raises(
        ForgetlessError, match=rf"^the strength must be a finite number of 0 or more, not {strength}\.$"
    ):
        create("mas", strength)
    with pytest.raises(ForgetlessError, match=r"^the strength must be a finite number"):
        create("lwf").set_strength(strength)


def test_the_method_of_the_page_runs_and_resumes(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "methods.md").read_text(encoding="utf-8")
    block = page.partition("## Your own method")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": "page"}
    sys.modules["page"] = types.ModuleType("page")  # dataclasses looks there
    try:
        exec(block, names)
    finally:
        del sys.modules["page"]
    found: Outcome = names["outcome"]
    assert metrics.average_accuracy(found.accuracy) > 0.7

    def again(**options: Any) -> Outcome:
        torch.manual_seed(0)
        model = names["MultiHead"](nn.Sequential(nn.Linear(8, 32), nn.ReLU()), features=32)
        recipe = Recipe(lr=0.1, epochs=5, batch_size=20)
        return learn(model, names["tasks"], names["Near"](factor=1.0), recipe, seed=0, **options)

    def stop(progress: Progress) -> None:
        if (progress.task, progress.step) == (2, 7):
            raise KeyboardInterrupt

    whole = again()
    names["Near"]().load_state(names["model"], {"0.weight": torch.ones(32, 8)})  # between tasks: `begin` was not called
    with pytest.raises(KeyboardInterrupt):
        again(checkpoint=tmp_path / "run", every=0, on_progress=stop)
    assert again(checkpoint=tmp_path / "run").accuracy == whole.accuracy

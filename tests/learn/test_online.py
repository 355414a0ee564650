"""`forgetless.TaskFreeMAS` against a loop written out, and stopped at any sample."""

from __future__ import annotations

import copy
import functools
import gc
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import forgetless
from exactness import unchanged
from forgetless import Anchor, ForgetlessError, Importance, TaskFreeMAS, files
from forgetless.model import batches
from streams import same

Refresh = Literal["plateau", "batch"]
Samples = list[tuple[Tensor, Tensor]]
BOTH: tuple[Refresh, ...] = ("plateau", "batch")
SETTINGS: dict[str, Any] = {"window": 4, "mean": 0.9, "variance": 0.2, "buffer": 10}
#: Of a stream that rises and settles again, where one concept follows another.
STRENGTH, STEPS = 0.1, 36

pytestmark = pytest.mark.filterwarnings("ignore:the pull stops")


def network(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))


def samples(steps: int = STEPS, concepts: int = 2, size: int = 8) -> Samples:
    """Batches of `size` samples, and of one now and then, with labels by one rule after another."""
    generator = torch.Generator().manual_seed(0)
    rules = [torch.randn(6, 3, generator=generator) for _ in range(concepts)]
    found = []
    for number in range(steps):
        inputs = torch.randn(size if number % 7 else 1, 6, generator=generator)
        found.append((inputs, (inputs @ rules[number * concepts // steps]).argmax(1)))
    return found


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), 0.3, momentum=0.5)


def adam(model: nn.Module) -> Optimizer:
    return torch.optim.Adam(model.parameters(), 0.05)


def losses_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def started(
    make: Callable[[nn.Module], Optimizer] = sgd,
    *,
    kind: type[TaskFreeMAS] = TaskFreeMAS,
    seed: int = 0,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[nn.Sequential, TaskFreeMAS]:
    model = network(seed, dropout)
    return model, kind(model, make(model), **{"strength": STRENGTH, **SETTINGS, **options})


def learned(stream: TaskFreeMAS, model: nn.Module, parts: Samples) -> list[str | None]:
    """The event of each step."""
    return [stream.step(losses_of(model, batch), batch) for batch in parts]


def everything(stream: TaskFreeMAS, model: nn.Module) -> dict[str, Tensor]:
    """All that the stream, the network and the optimizer hold, copied."""
    (attached,) = stream.anchor._attached
    kept = {f"{n}/{key}": each for n, own in enumerate(attached.optimizer.state.values()) for key, each in own.items()}
    held = {**stream.state_dict(), **{f"model/{name}": each for name, each in model.state_dict().items()}, **kept}
    return {name: each.clone() for name, each in held.items() if isinstance(each, Tensor)}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit; NaN stands for nothing yet."""
    return one.keys() == other.keys() and all(
        torch.equal(each.nan_to_num(-1.0), other[name].nan_to_num(-1.0)) for name, each in one.items()
    )


# ---- what it does


def by_hand(
    model: nn.Module, optimizer: Optimizer, parts: Samples, refresh: Refresh
) -> tuple[list[str | None], dict[str, Tensor], list[Importance]]:
    """The loop written out with an anchor, a sort and `forgetless.mas`; the events, Ω and what was measured."""
    anchor = Anchor(model, None, STRENGTH).attach(optimizer)
    window, mean, variance, size = SETTINGS.values()
    hard: list[tuple[float, Tensor]] = []
    seen: list[float] = []
    events: list[str | None] = []
    measured: list[Importance] = []
    settled: tuple[float, float] | None = None
    rising = True

    def pooled() -> Importance:
        sums = {name: total.clone() for name, total in measured[0].sums.items()}
        for other in measured[1:]:
            for name, total in other.sums.items():
                sums[name] += total
        return Importance(sums, sum(each.count for each in measured))

    for inputs, labels in parts:
        found = F.cross_entropy(model(inputs), labels, reduction="none")
        optimizer.zero_grad()
        found.mean().backward()
        optimizer.step()
        hard = sorted([*hard, *zip(found.tolist(), inputs, strict=True)], key=lambda each: -each[0])[:size]
        seen.append(found.detach().double().mean().item())
        last = torch.tensor(seen[-window:], dtype=torch.float64)
        if refresh == "batch":
            measured.append(forgetless.mas(model, inputs, progress=False))
        event = None
        if len(last) == window:
            now, spread = float(last.mean()), float(last.var(correction=0))
            if settled is not None and not rising and now > settled[0] + math.sqrt(settled[1]):
                rising, event = True, "peak"
            if rising and now < mean and spread < variance:
                rising, event, settled = False, "plateau", (now, spread)
                if refresh == "plateau":
                    measured.append(forgetless.mas(model, torch.stack([each for _, each in hard]), progress=False))
                anchor.consolidate(pooled(), 0.0)
        events.append(event)
    return events, {name: omega.clone() for name, omega in anchor.importance.items()}, measured


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("unchecked", "float64")
@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("refresh", BOTH)
def test_it_is_the_loop_one_would_write(refresh: Refresh, make: Callable[[nn.Module], Optimizer]) -> None:
    model, stream = started(make, refresh=refresh)
    events = learned(stream, model, samples())
    expected = network()
    found, omega, measured = by_hand(expected, make(expected), samples(), refresh)
    assert events == found
    assert events.count("plateau") == stream.updates > 1
    assert "peak" in events
    # In float64, far below what float32 could tell apart: to the bit it would depend on the processor.
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=1e-12, atol=1e-14)
    assert list(omega) == list(stream.anchor.importance)
    torch.testing.assert_close(dict(stream.anchor.importance), omega, rtol=1e-12, atol=1e-14)
    assert stream.importance is not None
    assert stream.importance.count == sum(each.count for each in measured)
    assert (stream.steps, stream.skipped) == (STEPS, 0)


def test_omega_is_the_mean_over_plateaus_of_what_was_measured_on_the_hard_buffer() -> None:
    model, stream = started()
    found: list[dict[str, Tensor]] = []
    for batch in samples():
        if stream.step(losses_of(model, batch), batch) == "plateau":
            assert len(stream.hard) == 10
            assert stream.hard.batch is not None
            found.append(forgetless.mas(model, stream.hard.batch[0], progress=False).mean())
            for name, omega in stream.anchor.importance.items():
                assert torch.allclose(omega, torch.stack([each[name] for each in found]).mean(0), rtol=1e-5), name
                assert torch.equal(stream.anchor.weights[name], model.get_parameter(name))
    assert len(found) > 1
    assert any(not torch.allclose(found[0][name], found[1][name], rtol=1e-2) for name in found[0])


def test_by_batch_it_pools_every_batch_from_the_first() -> None:
    model, stream = started(refresh="batch")
    counts = [0.0]
    for batch in samples(12):
        stream.step(losses_of(model, batch), batch)
        assert stream.importance is not None
        counts.append(stream.importance.count)
        assert counts[-1] - counts[-2] == len(batch[0])
    assert stream.anchor.importance == {}  # nothing is protected before the first plateau


def drift(model: nn.Module, weights: dict[str, Tensor], omega: dict[str, Tensor], top: bool) -> float:
    """How far the tenth of the weights that matters most (or least) has moved, in the mean."""
    found = [(model.get_parameter(name).detach() - weights[name]).abs().flatten() for name in omega]
    order = torch.cat([each.flatten() for each in omega.values()]).argsort(descending=top)
    return float(torch.cat(found)[order[: len(order) // 10]].mean())


def test_what_matters_stays_where_it_is_after_the_first_plateau_and_nothing_is_held_before() -> None:
    ends = {}
    for strength in (0.0, 10.0):
        model, stream = started(strength=strength, mean=0.45, variance=0.1)
        parts = samples(60)
        start = next(n for n, batch in enumerate(parts) if stream.step(losses_of(model, batch), batch) == "plateau")
        at = {name: each.clone() for name, each in model.state_dict().items()}
        omega, weights = dict(stream.anchor.importance), dict(stream.anchor.weights)
        for batch in parts[start + 1 : start + 25]:
            stream.step(losses_of(model, batch), batch, observe=False)
        ends[strength] = start, at, {top: drift(model, weights, omega, top) for top in (True, False)}
    (free_start, free, moved), (start, held, kept) = ends[0.0], ends[10.0]
    assert free_start == start
    assert all(torch.equal(free[name], held[name]) for name in free)
    assert kept[True] < 0.2 * moved[True]
    assert kept[True] < 0.5 * kept[False]


def test_detached_it_lets_everything_move() -> None:
    model, stream = started(strength=10.0)
    parts = samples()
    start = next(n for n, batch in enumerate(parts) if stream.step(losses_of(model, batch), batch) == "plateau")
    bare = network()
    bare.load_state_dict(model.state_dict())
    optimizer = sgd(bare)
    (attached,) = stream.anchor._attached
    optimizer.load_state_dict(copy.deepcopy(attached.optimizer.state_dict()))
    stream.detach()
    for batch in parts[start + 1 :]:
        stream.step(losses_of(model, batch), batch)
        optimizer.zero_grad()
        losses_of(bare, batch).mean().backward()
        optimizer.step()
    assert same(model, bare)
    assert stream.steps == STEPS


# ---- the forms of a step


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("refresh", BOTH)
def test_a_step_of_ones_own_is_looked_at_alike(refresh: Refresh) -> None:
    model, stream = started(refresh=refresh)
    events = learned(stream, model, samples())
    own = network()
    optimizer = sgd(own)
    looking = TaskFreeMAS(own, optimizer, STRENGTH, refresh=refresh, **SETTINGS)
    found = []
    for batch in samples():
        losses = losses_of(own, batch)
        optimizer.zero_grad()
        (1024 * losses.mean()).backward()  # as a loop that scales its losses
        for parameter in own.parameters():
            assert parameter.grad is not None
            parameter.grad /= 1024
        optimizer.step()
        found.append(looking.observe(losses, batch))
    assert found == events
    assert equal(everything(looking, own), everything(stream, model))


def test_further_steps_on_a_batch_count_for_nothing() -> None:
    model, stream = started()
    batch = samples(3)[1]
    stream.step(losses_of(model, batch), batch)
    before, weights = {name: each.clone() for name, each in stream.state_dict().items()}, network()
    weights.load_state_dict(model.state_dict())
    assert stream.step(losses_of(model, batch), batch, observe=False) is None
    assert equal(stream.state_dict(), before)
    assert not same(model, weights)


@pytest.mark.filterwarnings("error:Converting a tensor")
def test_the_buffer_is_learned_along() -> None:
    """The mean over the batch and the buffer is minimized, and the buffer's losses are those of now."""
    model, stream = started()
    own = network()
    optimizer = sgd(own)
    anchor = Anchor(own, None, STRENGTH).attach(optimizer)
    hard: list[tuple[float, Tensor, Tensor]] = []
    for inputs, labels in samples():
        replayed = None if stream.hard.batch is None else losses_of(model, stream.hard.batch)
        event = stream.step(losses_of(model, (inputs, labels)), (inputs, labels), replayed=replayed)

        losses = losses_of(own, (inputs, labels))
        parts = [losses]
        if hard:
            kept = (torch.stack([x for _, x, _ in hard]), torch.stack([y for *_, y in hard]))
            parts.append(losses_of(own, kept))
            hard = [(loss, x, y) for loss, (_, x, y) in zip(parts[1].tolist(), hard, strict=True)]
        optimizer.zero_grad()
        torch.cat(parts).mean().backward()
        optimizer.step()
        hard = sorted([*hard, *zip(losses.tolist(), inputs, labels, strict=True)], key=lambda each: -each[0])[:10]
        if event == "plateau":
            assert stream.importance is not None
            anchor.consolidate(stream.importance, 0.0)
        assert stream.hard.losses.tolist() == [loss for loss, *_ in hard]
        assert stream.plateaus.state()[-1] == torch.cat(parts).detach().double().mean()
    assert stream.updates
    assert same(model, own)


def test_a_mean_makes_all_samples_of_its_batch_equally_hard() -> None:
    model, stream = started(strength=0.0)  # for other samples are hard, and Ω is another
    plain, every = started(strength=0.0)
    for batch in samples()[:20]:
        stream.step(losses_of(model, batch).mean(), batch)
        every.step(losses_of(plain, batch), batch)
        mean = stream.plateaus.state()[-1]
        assert float(mean) == pytest.approx(float(every.plateaus.state()[-1]), rel=1e-5)
        held = stream.hard.losses
        assert torch.isin(mean.float(), held) or bool((held >= mean.float()).all())
    for name, each in plain.state_dict().items():
        assert torch.allclose(model.state_dict()[name], each, rtol=1e-4, atol=1e-6)
    losses = stream.hard.losses.tolist()
    assert len(set(losses)) < len(losses)


def test_a_mean_weighs_as_many_samples_as_it_is_over_beside_the_buffer() -> None:
    model, stream = started()
    plain, every = started()
    for batch in samples(12):
        for net, each, reduced in ((model, stream, True), (plain, every, False)):
            hard = None if each.hard.batch is None else losses_of(net, each.hard.batch)
            losses = losses_of(net, batch)
            each.step(losses.mean() if reduced else losses, batch, replayed=hard)
        each.hard.load(stream.hard.tree(), torch.device("cpu"))  # which samples are hard differs, and is not the point
        assert float(stream.plateaus.state()[-1]) == pytest.approx(float(every.plateaus.state()[-1]), rel=1e-5)
    for name, each in plain.state_dict().items():
        assert torch.allclose(model.state_dict()[name], each, rtol=1e-4, atol=1e-6), name


def test_batches_may_be_mappings() -> None:
    model, stream = started()
    expected, tuples = started()
    events = []
    for inputs, labels in samples():
        batch = {"input": inputs, "labels": labels}
        events.append(stream.step(losses_of(model, (inputs, labels)), batch))
    assert learned(tuples, expected, samples()) == events
    assert same(model, expected)
    assert stream.hard.batch is not None
    assert tuples.hard.batch is not None
    assert stream.hard.batch.keys() == {"input", "labels"}
    assert torch.equal(stream.hard.batch["labels"], tuples.hard.batch[1])


def test_the_options_of_a_measurement() -> None:
    def forward(model: nn.Module, batch: Any) -> Any:
        return {"twice": 2 * model(batch[0]), "other": model(batch[0]).square()}

    model, stream = started(forward=forward, output="twice", exclude="3")
    learned(stream, model, samples())
    plain, expected = started(exclude="3.*", strength=4 * STRENGTH)
    learned(expected, plain, samples())
    assert stream.updates
    assert stream.anchor.importance.keys() == {"0.weight", "0.bias"}
    for name, omega in expected.anchor.importance.items():
        assert torch.allclose(stream.anchor.importance[name], 4 * omega, rtol=1e-3)


# ---- losses that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_and_changes_nothing(bad: float) -> None:
    model, stream = started(adam)
    learned(stream, model, samples(20))
    batch = samples(20)[5]
    before = everything(stream, model)
    losses = losses_of(model, batch)
    spoiled = torch.where(torch.arange(len(losses)) == 3, bad, losses)
    replayed = torch.full((len(stream.hard),), bad)
    with unchanged(model):
        for loss, more in ((spoiled, None), (spoiled.mean(), None), (losses, replayed)):
            for take in (stream.step, stream.observe):
                with pytest.raises(ForgetlessError, match=rf"^the loss became {bad} at step 21; nothing has changed\."):
                    take(loss, batch, replayed=more)
    assert equal(everything(stream, model), before)


def test_such_batches_may_be_left_out_and_are_counted() -> None:
    model, stream = started(nonfinite="skip")
    plain, expected = started()
    for number, batch in enumerate(samples()):
        expected.step(losses_of(plain, batch), batch)
        assert stream.step(losses_of(model, batch), batch) != "skipped"
        if number % 9 == 0:
            assert stream.step(losses_of(model, batch) * math.nan, batch) == "skipped"
            assert stream.observe(losses_of(model, batch) / 0, batch) == "skipped"
    assert stream.skipped == 8
    assert stream.steps == expected.steps == STEPS
    assert same(model, plain)
    own, other = stream.state_dict(), expected.state_dict()
    assert equal({**own, "skipped": torch.tensor(0)}, other)


@pytest.mark.parametrize(
    ("loss", "replayed", "sentence"),
    [
        (torch.rand(3), None, r"a loss is one per sample or their mean; the batch has 8 and the loss 3\.$"),
        (torch.rand(8, 2), None, r"a loss is one per sample or their mean; the batch has 8 and the loss 16\.$"),
        (torch.rand(8), torch.rand(3), r"the buffer holds 10 samples, and \[3\] losses are given\.$"),
    ],
)
def test_losses_of_another_number_are_refused_and_change_nothing(
    loss: Tensor, replayed: Tensor | None, sentence: str
) -> None:
    model, stream = started(adam)
    learned(stream, model, samples(20))
    batch = samples(20)[5]
    zero = 0 * losses_of(model, batch).sum()
    before = everything(stream, model)
    with unchanged(model):
        for take in (stream.step, stream.observe):
            with pytest.raises(ForgetlessError, match=sentence):
                take(loss + zero, batch, replayed=replayed)
    assert equal(everything(stream, model), before)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"refresh": "task"}, "^refresh must be 'plateau' or 'batch', not 'task'.$"),
        ({"nonfinite": "ignore"}, "^nonfinite must be 'stop' or 'skip', not 'ignore'.$"),
        ({"strength": -1.0}, "strength must be a finite number of 0 or more, not -1.0"),
        ({"window": 1}, "a window of losses needs two or more"),
        ({"mean": 0.0}, "the mean of a plateau must be below a positive number"),
        ({"variance": math.nan}, "the variance of a plateau must be below a positive number"),
        ({"buffer": 0}, "a buffer of hard samples holds one or more"),
        ({"exclude": "*"}, "no trainable parameter to measure"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], sentence: str) -> None:
    model = network()
    optimizer = sgd(model)
    with pytest.raises(ForgetlessError, match=sentence):
        TaskFreeMAS(model, optimizer, **options)
    assert not optimizer._optimizer_step_post_hooks


def test_an_optimizer_of_another_network() -> None:
    with pytest.raises(ForgetlessError, match="the optimizer holds none of the anchored parameters"):
        TaskFreeMAS(network(), sgd(network()))


# ---- stopped, and going on


class OnlineEWC(TaskFreeMAS):
    """Its Ω is drawn, by the numbers of the samples."""

    estimator = "fisher"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("kind", "refresh", "make"),
    [
        (TaskFreeMAS, "plateau", sgd),
        (TaskFreeMAS, "plateau", adam),
        (TaskFreeMAS, "batch", sgd),
        (TaskFreeMAS, "batch", adam),
        (OnlineEWC, "plateau", sgd),
    ],
)
def test_stopped_at_any_sample_it_ends_with_the_same_bits(
    kind: type[TaskFreeMAS], refresh: Refresh, make: Callable[[nn.Module], Optimizer], tmp_path: Path
) -> None:
    """In a network that draws random numbers, begun anew with other weights in another state of the generator."""
    parts = samples()
    model, whole = started(make, kind=kind, refresh=refresh, dropout=0.1)
    events: list[str | None] = []
    for number, batch in enumerate(parts):
        whole.save(tmp_path / f"{number}")
        events += learned(whole, model, [batch])
    whole.save(tmp_path / f"{len(parts)}")
    assert events.count("plateau") > 1
    expected = everything(whole, model)

    @settings(max_examples=6 if refresh == "plateau" else 3)
    @given(st.integers(0, len(parts)))
    @example(0)
    @example(events.index("plateau") + 1)
    def goes_on(moment: int) -> None:
        again, stream = started(make, kind=kind, seed=5, refresh=refresh, dropout=0.1, strength=7.0)
        torch.rand(3)
        assert stream.load(tmp_path / f"{moment}") == stream.steps == moment
        assert learned(stream, again, parts[moment:]) == events[moment:]
        assert equal(everything(stream, again), expected)
        assert stream.importance is not None
        assert whole.importance is not None
        assert stream.importance.count == whole.importance.count
        assert stream.anchor.strength == STRENGTH

    goes_on()


def test_it_goes_on_in_the_same_process() -> None:
    """Back to an earlier moment, with what it holds itself."""
    model, stream = started()
    learned(stream, model, samples()[:30])
    (attached,) = stream.anchor._attached
    state = {name: each.clone() for name, each in stream.state_dict().items()}
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    inner = {
        name: {k: v.clone() for k, v in own.items()} for name, own in attached.optimizer.state_dict()["state"].items()
    }
    learned(stream, model, samples()[30:])
    expected = everything(stream, model)
    model.load_state_dict(weights)
    attached.optimizer.load_state_dict({**attached.optimizer.state_dict(), "state": inner})
    stream.load_state_dict(state)
    learned(stream, model, samples()[30:])
    assert equal(everything(stream, model), expected)


def saved(path: Path, **options: Any) -> None:
    model, stream = started(adam, **options)
    learned(stream, model, samples()[:30])
    stream.save(path)


def cut(path: Path) -> None:
    saved(path)
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    saved(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def of_another_network(path: Path) -> None:
    """The same names in other shapes, after layers that fit."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 4))
    stream = TaskFreeMAS(model, adam(model), STRENGTH, **SETTINGS)
    learned(stream, model, samples()[:30])
    stream.save(path)


def of_other_names(path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 3))
    stream = TaskFreeMAS(model, adam(model), STRENGTH, **SETTINGS)
    learned(stream, model, samples(3))
    stream.save(path)


def of_sgd(path: Path) -> None:
    model, stream = started(sgd)
    learned(stream, model, samples()[:30])
    stream.save(path)


def written_anew(change: Callable[[dict[str, Tensor]], None], path: Path) -> None:
    """A file whose checksums are right, and whose tensors are not those of a stream."""
    saved(path)
    tensors, header = files.read_tensors(path, "stream")
    change(tensors)
    files.write_tensors(path, tensors, "stream", header)


def without_a_generator(tensors: dict[str, Tensor]) -> None:
    del tensors["generator/cpu"]


def with_half_a_generator(tensors: dict[str, Tensor]) -> None:
    tensors["generator/cpu"] = tensors["generator/cpu"][:40]


def with_a_fifth_parameter(tensors: dict[str, Tensor]) -> None:
    tensors["optimizer/4%2Fexp_avg"] = torch.zeros(1)


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "other optimizer": (of_sgd, "of a stream with optimizer='SGD', not 'Adam'"),
    "no generator": (functools.partial(written_anew, without_a_generator), "is damaged, or of another model"),
    "half a generator": (functools.partial(written_anew, with_half_a_generator), "is damaged, or of another model"),
    "a fifth parameter": (functools.partial(written_anew, with_a_fifth_parameter), "none of its 4 parameters"),
    "missing": (lambda path: None, "does not exist"),
    "cut": (cut, "is damaged"),
    "flipped": (flipped, "is damaged: the bytes of"),
    "other refresh": (lambda path: saved(path, refresh="batch"), "of a stream with refresh='batch', not 'plateau'"),
    "another file": (lambda path: Anchor(network(), None, 1.0).save(path), "is no stream file: it holds 'anchor'"),
    "other shapes": (of_another_network, "does not fit the model"),
    "other names": (of_other_names, "does not fit the model"),
    "longer window": (lambda path: saved(path, window=9), "the state of a window of 4 losses does not fit"),
}


@pytest.mark.parametrize("which", FILES)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(which: str, tmp_path: Path) -> None:
    make, sentence = FILES[which]
    make(tmp_path / "s")
    model, stream = started(adam, seed=1)
    learned(stream, model, samples()[:32])
    assert stream.updates
    before, strength = everything(stream, model), stream.anchor.strength
    with unchanged(model), pytest.raises(ForgetlessError, match=sentence):
        stream.load(tmp_path / "s")
    assert equal(everything(stream, model), before)
    assert stream.anchor.strength == strength
    learned(stream, model, samples()[32:])  # and it goes on


def altered(state: dict[str, Tensor], change: str) -> dict[str, Tensor]:
    what, _, name = change.partition(" ")
    if what == "without":
        return {key: each for key, each in state.items() if not key.startswith(name)}
    if what == "doubled":
        return {
            key: torch.stack([each, each]).flatten(0, 1 if each.dim() else 0) if key == name else each
            for key, each in state.items()
        }
    if what == "negative":
        return {key: -each if key.startswith(name) else each for key, each in state.items()}
    if what == "renamed":
        return {key.replace(name, "strange"): each for key, each in state.items()}
    assert what == "scalar"
    return {key: each.flatten()[0] if key == name else each for key, each in state.items()}


#: What is done to a state, and after how many steps it was taken: the first plateau comes with the seventh.
CHANGES = [
    *[f"without {name}" for name in ("anchor", "skipped", "stream", "stream/counts", "stream/plateaus")],
    *[f"without stream/{name}" for name in ("importance", "hard/losses", "hard/batch", "hard/batch/0")],
    *[f"doubled stream/{name}" for name in ("hard/losses", "counts", "plateaus", "importance/0.weight")],
    *("doubled skipped", "scalar stream/counts", "scalar stream/plateaus", "renamed 0.weight"),
    *("negative stream/importance", "negative stream/counts"),
]
EARLIER = [change for change in CHANGES if "importance" in change or "renamed" in change]


@functools.cache
def state_of(refresh: Refresh, steps: int) -> dict[str, Tensor]:
    model, stream = started(refresh=refresh)
    learned(stream, model, samples()[:steps])
    return {name: each.clone() for name, each in stream.state_dict().items()}


@pytest.mark.parametrize(
    ("refresh", "steps", "change"),
    [*[("plateau", 30, change) for change in CHANGES], *[("batch", 5, change) for change in EARLIER]],
)
def test_a_state_that_is_incomplete_or_damaged_is_refused_and_changes_nothing(
    refresh: Refresh, steps: int, change: str
) -> None:
    whole = state_of(refresh, steps)
    state = altered(whole, change)
    assert not equal(state, whole)
    model, stream = started(seed=1, refresh=refresh, strength=0.5)
    learned(stream, model, samples()[: steps + 2])
    before = everything(stream, model)
    with pytest.raises(ForgetlessError):
        stream.load_state_dict(state)
    assert equal(everything(stream, model), before)
    assert stream.anchor.strength == 0.5
    stream.load_state_dict(whole)
    assert stream.steps == steps


def test_an_optimizer_that_keeps_no_tensors_is_not_saved(tmp_path: Path) -> None:
    model, stream = started()
    learned(stream, model, samples(3))
    (attached,) = stream.anchor._attached
    next(iter(attached.optimizer.state.values()))["note"] = "text"
    with pytest.raises(ForgetlessError, match="keeps 'note' as a str"):
        stream.save(tmp_path / "s")
    assert not (tmp_path / "s").exists()


# ---- however long


def alive() -> int:
    gc.collect()
    return sum(isinstance(each, Tensor) for each in gc.get_objects())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("refresh", "rounds"), [("plateau", 50), ("batch", 4)])
def test_memory_does_not_grow_with_the_stream(refresh: Refresh, rounds: int) -> None:
    """60 steps a round, in which concepts follow one another: 3,000 in all."""
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    stream = TaskFreeMAS(model, sgd(model), 0.001, refresh=refresh, **SETTINGS)
    parts = samples(60)

    def kept(rounds: int) -> tuple[dict[str, int], int]:
        for batch in rounds * parts:
            stream.step(losses_of(model, batch), batch)
        return {name: each.nbytes for name, each in stream.state_dict().items()}, alive()

    early = kept(2)
    updates = stream.updates
    assert kept(rounds - 2) == early
    assert stream.steps == 60 * rounds
    assert stream.updates > updates > 0
    assert batches.size(stream.hard.batch) == 10

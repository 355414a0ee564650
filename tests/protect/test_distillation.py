"""Old answers as a target: the divergence by hand in float64, what counts, what is left alone, and what is refused."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import forgetless
from forgetless import Distillation
from forgetless.errors import ForgetlessError
from processes import Processes

OLD, NEW = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (24, 12))
LABELS = torch.arange(12) % 3


def network(seed: int = 0, outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, outputs)]
    return nn.Sequential(*layers).double()


def moved(model: nn.Module, by: float = 0.3) -> None:
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(by * torch.randn(each.shape, generator=draw, dtype=each.dtype))


def by_hand(teacher: nn.Module, model: nn.Module, rows: Tensor, temperature: float = 1.0) -> Tensor:
    teacher, model = copy.deepcopy(teacher).eval(), copy.deepcopy(model).eval()
    old, now = ((each(rows) / temperature).softmax(-1) for each in (teacher, model))
    return temperature**2 * (old * (old.log() - now.log())).sum(-1).mean()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.state_dict().items()}


def step(model: nn.Module, optimizer: optim.Optimizer, added: Tensor | None = None) -> None:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(NEW), LABELS)
    (loss if added is None else loss + added).backward()
    optimizer.step()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_is_the_divergence_by_hand(temperature: float) -> None:
    model = network().train()
    before = copy.deepcopy(model)
    kept = Distillation(model, OLD, 0.7, temperature=temperature, batch_size=24)
    moved(model)
    found = kept.loss()
    torch.testing.assert_close(found, 0.7 * by_hand(before, model, OLD, temperature), rtol=1e-12, atol=0)
    assert kept.divergence == pytest.approx(float(found) / 0.7, rel=1e-12)


@pytest.mark.parametrize("shuffled", [False, True])
def test_nothing_is_left_behind(shuffled: bool) -> None:
    model = network().train()
    before, random = weights(model), torch.get_rng_state()
    kept = Distillation(model, DataLoader(TensorDataset(OLD), 5, shuffle=True) if shuffled else OLD)
    kept.loss().backward()
    kept.load_state_dict(kept.state_dict())
    assert all(torch.equal(before[name], each) for name, each in weights(model).items())
    assert torch.equal(random, torch.get_rng_state())
    assert model.training
    assert model[3].training


@given(st.integers(0, 50), st.floats(0.1, 5), st.floats(0, 2))
def test_at_the_old_weights_it_is_at_its_least(seed: int, temperature: float, by: float) -> None:
    model = network(seed)
    kept = Distillation(model, OLD, temperature=temperature, batch_size=24)
    loss = kept.loss()
    loss.backward()
    assert abs(float(loss)) < 1e-12
    assert all(float(each.grad.abs().max()) < 1e-12 for each in model.parameters() if each.grad is not None)
    moved(model, by)
    assert float(kept.loss()) >= 0


@pytest.mark.parametrize("accumulated", [1, 3])
def test_attached_it_adds_the_gradient_once_a_step(accumulated: int) -> None:
    in_loss, attached = network().eval(), network().eval()
    term = Distillation(in_loss, OLD, 2.0, batch_size=8)
    optimizer = optim.SGD(attached.parameters(), 0.1)
    kept = Distillation(attached, OLD, 2.0, batch_size=8).attach(optimizer)
    for _ in range(5):
        step(in_loss, other := optim.SGD(in_loss.parameters(), 0.1), term.loss())
        assert other is not optimizer
        optimizer.zero_grad()
        for _ in range(accumulated):
            (F.cross_entropy(attached(NEW), LABELS) / accumulated).backward()
        optimizer.step()
    assert kept.steps == term.steps == 5
    for name, each in weights(in_loss).items():
        torch.testing.assert_close(each, weights(attached)[name], rtol=1e-10, atol=1e-12)
    kept.detach()
    step(attached, optimizer)
    assert kept.steps == 5


def test_a_step_with_a_closure_is_the_same() -> None:
    found = []
    for closed in (False, True):
        model = network().eval()
        optimizer = optim.SGD(model.parameters(), 0.1)
        Distillation(model, OLD, batch_size=8).attach(optimizer)

        def closure(model: nn.Module = model, optimizer: optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(NEW), LABELS)
            loss.backward()
            return loss

        for _ in range(3):
            if closed:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        found.append(weights(model))
    assert all(torch.equal(each, found[1][name]) for name, each in found[0].items())


@pytest.mark.parametrize("fused", [False, True])
def test_loss_scaling_makes_no_difference(fused: bool) -> None:
    found = []
    for scaled in (False, True):
        model = network().eval()
        optimizer = optim.SGD(model.parameters(), 0.1, fused=fused)
        Distillation(model, OLD, 3.0, batch_size=8).attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        for _ in range(3):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(NEW), LABELS)).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append(weights(model))
    for name, each in found[0].items():
        torch.testing.assert_close(each, found[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [optim.SGD, optim.SparseAdam])
def test_sparse_gradients(make: Any) -> None:
    words, found = torch.tensor([[1, 2], [3, 1]]), []
    for sparse in (False, True) if make is optim.SGD else (True,):
        torch.manual_seed(0)
        model = nn.EmbeddingBag(5, 3, sparse=sparse, mode="sum").double()
        optimizer = make(model.parameters(), 0.1)
        kept = Distillation(model, words + 1).attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(words), torch.tensor([0, 1])).backward()
            optimizer.step()
        assert kept.steps == 3
        found.append(weights(model)["weight"])
    torch.testing.assert_close(found[0], found[-1], rtol=1e-12, atol=0)


def test_a_frozen_core_keeps_its_bits_beside_it() -> None:
    model = network().eval()
    before = weights(model)
    masks = {"0.weight": torch.arange(32).view(8, 4) % 2 == 0}
    optimizer = optim.SGD(model.parameters(), 0.1)
    Distillation(model, OLD, 2.0, batch_size=8).attach(optimizer)
    core = forgetless.FrozenCore(model, masks)
    core.attach(optimizer)
    expected = network().eval()
    by_hand = optim.SGD(expected.parameters(), 0.1)
    Distillation(expected, OLD, 2.0, batch_size=8).attach(by_hand)
    for _ in range(3):
        step(model, optimizer)
        step(expected, by_hand)
        with torch.no_grad():
            expected[0].weight[masks["0.weight"]] = before["0.weight"][masks["0.weight"]]
    for name, each in weights(expected).items():
        torch.testing.assert_close(weights(model)[name], each, rtol=1e-10, atol=1e-12)
    assert torch.equal(model[0].weight[masks["0.weight"]], before["0.weight"][masks["0.weight"]])
    with pytest.raises(ForgetlessError, match="a frozen core is attached"):
        Distillation(model, OLD).attach(optimizer)


class Uncopied(nn.Sequential):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot be copied")


@pytest.mark.parametrize("how", ["a forward that was replaced", "no copy"])
def test_a_model_that_cannot_be_copied_answers_with_its_old_weights(how: str) -> None:
    model = network() if how != "no copy" else Uncopied(*network())
    if how != "no copy":
        through = model.forward
        model.forward = lambda x: through(x)  # as wrappers do; a copy of the model keeps this very function
    kept, expected = Distillation(model, OLD, batch_size=7), Distillation(network(), OLD, batch_size=7)
    other = expected._model
    for _ in range(3):
        for each in (model, other):
            moved(each)
            each(OLD)  # moves the statistics of batch norm
        found = kept.loss()
        torch.testing.assert_close(found, expected.loss(), rtol=0, atol=0)
        for each, loss in ((model, found), (other, None)):
            assert all(isinstance(part, nn.Parameter) for part in each.parameters())
            assert loss is None or torch.autograd.grad(loss, [*each.parameters()], allow_unused=True)[0].any()
    state = expected.state_dict()
    assert all(torch.equal(each, kept.state_dict()[name]) for name, each in state.items())
    again = Distillation(model, OLD, batch_size=7)
    again.load_state_dict(state)
    assert float(kept.loss().detach()) == float(again.loss().detach()) > 0.01
    model[4] = nn.Linear(8, 5).double()
    with pytest.raises(ForgetlessError, match="other weights than when its answers were taken"):
        kept.loss()


def test_classes_of_pictures_that_are_put_last() -> None:
    torch.manual_seed(0)
    model, pictures = nn.Conv2d(1, 3, 1).double(), torch.randn(2, 1, 4, 5, dtype=torch.float64)
    before = copy.deepcopy(model)
    kept = Distillation(model, pictures, output=lambda out: out.flatten(2).transpose(1, 2))
    moved(model)
    p, q = (each(pictures).softmax(1) for each in (before, model))
    torch.testing.assert_close(kept.loss(), (p * (p / q).log()).sum(1).mean())


def test_rows_of_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"input": OLD.float().tolist()}).with_format("torch")
    model = network().float()
    kept = Distillation(model, rows, batch_size=10, forward=lambda net, batch: net(batch["input"]))
    other = Distillation(model, OLD.float(), batch_size=10)
    moved(model)
    for _ in range(4):
        torch.testing.assert_close(kept.loss(), other.loss())


def test_pictures_in_a_list_keep_their_channels() -> None:
    """Three pictures of three channels: the first axis of a picture is not that of the samples."""
    pictures = [torch.randn(3, 2, 2, dtype=torch.float64) for _ in range(3)]
    seen: list[Tensor] = []

    def forward(model: nn.Module, batch: Any) -> Tensor:
        seen.extend(batch[0])
        return model(torch.stack(batch[0]).flatten(1)[:, :4])

    kept = Distillation(network(), (pictures, [None] * 3), forward=forward)
    for _ in range(3):
        kept.loss()
    assert all(any(torch.equal(each, picture) for picture in pictures) for each in seen)


def test_it_keeps_what_fine_tuning_loses() -> None:
    found = {}
    for strength in (0.0, 1.0):
        model = network().eval()
        before = copy.deepcopy(model)
        optimizer = optim.Adam(model.parameters(), 0.05)
        Distillation(model, OLD, strength, batch_size=12).attach(optimizer)
        for _ in range(60):
            step(model, optimizer)
        found[strength] = float(by_hand(before, model, OLD)), float(F.cross_entropy(model(NEW), LABELS))
    assert found[1.0][0] < 0.2 * found[0.0][0]
    assert found[1.0][1] < 1.0  # and something new was learned: ln 3 is chance


class Reader(nn.Module):
    """Tokens `[N, T]` → logits of every position, of one answer, or of where an answer starts."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kind = kind
        self.words, self.head = nn.Embedding(7, 5), nn.Linear(5, 1 if kind in ("sign", "start_logits") else 7)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        states = self.words(input_ids).tanh()
        if self.kind == "sign":
            return self.head((states * attention_mask[..., None]).sum(1))[:, 0]
        found = self.head(states)
        return {"start_logits": found[..., 0]} if self.kind == "start_logits" else {"logits": found}


@pytest.mark.parametrize("kind", ["logits", "start_logits", "sign"])
def test_padding_does_not_count(kind: str) -> None:
    ids = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2], [3, 0, 0, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": (torch.arange(5) < torch.tensor([[3], [5], [1]])).long()}
    model = Reader(kind).double()
    before = copy.deepcopy(model)
    kept = Distillation(model, batch, batch_size=3)
    moved(model)
    total, answers = 0.0, 0
    for row, length in zip(ids, (3, 5, 1), strict=True):
        part = {"input_ids": row[None, :length], "attention_mask": torch.ones(1, length)}
        old, now = (each(**part) for each in (before, model))
        if kind == "sign":
            p, q = old.sigmoid(), now.sigmoid()
            gap = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        else:
            p, q = (next(iter(each.values())).softmax(-1) for each in (old, now))
            gap = (p * (p / q).log()).sum(-1)
        total, answers = total + float(gap.sum()), answers + gap.numel()
    assert float(kept.loss()) == pytest.approx(total / answers, rel=1e-9)


def test_positions_are_chosen_by_labels() -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    batch = {"input_ids": ids, "attention_mask": torch.ones(1, 4), "labels": torch.tensor([[-100, -100, 3, 4]])}
    model = Reader("logits").double()
    before = copy.deepcopy(model)
    kept = Distillation(model, batch, mask="labels")
    moved(model)
    p, q = (each(ids, torch.ones(1, 4))["logits"][0, 1:3].softmax(-1) for each in (before, model))
    assert float(kept.loss()) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-9)


@pytest.mark.parametrize("data", ["tensor", "tuple", "dataset", "list", "loader", "rows"])
def test_a_resumed_training_ends_with_the_same_bits(data: str) -> None:
    def made() -> tuple[nn.Module, optim.Optimizer, Distillation]:
        old: Any = {
            "tensor": OLD,
            "tuple": (OLD, torch.zeros(24)),
            "dataset": TensorDataset(OLD),
            "list": list(OLD.split(5)),
            "loader": DataLoader(TensorDataset(OLD), batch_size=7),
            "rows": list(OLD),
        }[data]
        model = network()
        kept = Distillation(model, old, batch_size=7, collate_fn=torch.stack if data == "rows" else None)
        optimizer = optim.AdamW(model.parameters(), 0.1)
        return model, optimizer, kept.attach(optimizer)

    def go(model: nn.Module, optimizer: optim.Optimizer, steps: range) -> None:
        for number in steps:
            torch.manual_seed(number)
            step(model, optimizer)

    whole = made()
    go(*whole[:2], range(9))
    first = made()
    go(*first[:2], range(5))
    state = copy.deepcopy((first[0].state_dict(), first[1].state_dict(), first[2].state_dict()))
    again = made()
    again[0].load_state_dict(state[0])  # made at other weights than those that are to be remembered
    again[1].load_state_dict(state[1])
    again[2].load_state_dict(state[2])
    go(*again[:2], range(5, 9))
    assert all(torch.equal(each, weights(again[0])[name]) for name, each in weights(whole[0]).items())
    assert again[2].steps == 9


def test_other_old_samples_than_those_of_the_state_are_warned_of() -> None:
    rows = [each.clone() for each in OLD]
    state = Distillation(network(), rows, collate_fn=torch.stack).state_dict()
    Distillation(network(), rows, collate_fn=torch.stack).load_state_dict(state)
    said = "not those that the training began with: "
    with pytest.warns(UserWarning, match=f"{said}there were {len(rows)}, and there are {len(rows) - 1} now; give"):
        Distillation(network(), rows[:-1], collate_fn=torch.stack).load_state_dict(state)
    others = Distillation(network(), [each + 1 for each in rows], collate_fn=torch.stack)
    with pytest.warns(UserWarning, match=f"{said}the first batch is another"):
        others.load_state_dict(state)
    others.load_state_dict({key: each for key, each in state.items() if key != "samples"})  # of an earlier version
    loader = Distillation(network(), DataLoader(OLD, batch_size=4))  # type: ignore[arg-type]
    assert "samples" not in loader.state_dict()
    loader.load_state_dict(state)


def test_samples_that_are_read_differently_each_time_are_told_by_their_count() -> None:
    draw = torch.Generator().manual_seed(0)

    def noisy(samples: list[Tensor]) -> Tensor:
        return torch.stack(samples) + torch.rand(len(samples), 1, generator=draw)

    state = Distillation(network(), list(OLD), collate_fn=noisy).state_dict()
    assert state["samples"].tolist() == [len(OLD), 0]
    Distillation(network(), list(OLD), collate_fn=noisy).load_state_dict(state)


def test_every_sample_has_its_turn_in_every_epoch() -> None:
    seen: list[float] = []

    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.extend(batch[:, 0].tolist())
        return model(batch)

    kept = Distillation(network(), OLD, batch_size=10, forward=forward)
    seen.clear()
    for _ in range(6):
        kept.loss()
    first, second = seen[:24], seen[24:]
    assert sorted(first) == sorted(second) == sorted(OLD[:, 0].tolist())
    assert first != second


def test_adapters_need_no_copy() -> None:
    pytest.importorskip("peft")
    from lora_models import words, wrapped

    model, same = wrapped(), wrapped()
    bare, copied = Distillation(model, words(1)), Distillation(same, words(1), teacher=copy.deepcopy(same).eval())
    assert bare.state_dict().keys() == {"steps", "base", "samples"}
    for each in (model, same):
        draw = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for parameter in each.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype))
    torch.testing.assert_close(bare.loss(), copied.loss())
    assert bare.divergence > 1e-3
    late = Distillation(model, words(1))  # the adapters are trained: the base is not the model
    assert "base" not in late.state_dict()
    with pytest.raises(ForgetlessError, match='make the Distillation with teacher="base"'):
        late.load_state_dict(bare.state_dict())
    resumed = Distillation(model, words(1), teacher="base")
    resumed.load_state_dict(bare.state_dict())
    assert torch.equal(resumed.loss(), bare.loss())
    assert resumed.steps == bare.steps == 2
    with pytest.raises(ForgetlessError, match="holds a copy of a model, and this one has none of its own"):
        resumed.load_state_dict(late.state_dict())
    with resumed.before_learning() as base:
        before = base(words(2))
    torch.testing.assert_close(before, wrapped()(words(2)))
    assert not torch.equal(before, model(words(2)))


def test_a_base_that_training_changes_is_copied() -> None:
    peft = pytest.importorskip("peft")
    layers: Any = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    model = peft.get_peft_model(layers, peft.LoraConfig(target_modules=["0"], r=2)).double()
    assert "base" not in Distillation(model, OLD).state_dict()  # its statistics move
    with pytest.raises(ForgetlessError, match="teacher='base' cannot be: "):
        Distillation(model, OLD, teacher="base")


def test_adapters_inside_of_another_module_need_no_copy() -> None:
    pytest.importorskip("peft")
    from lora_models import words, wrapped

    model = nn.Sequential(wrapped())
    kept = Distillation(model, words(1))
    assert kept.state_dict().keys() == {"steps", "base", "samples"}
    with torch.no_grad():
        for each in model.parameters():
            each.add_(float(each.requires_grad))
    with kept.before_learning() as base:
        torch.testing.assert_close(base(words(2)), wrapped()(words(2)))


def test_what_a_sample_draws_leaves_the_random_numbers_and_is_drawn_again() -> None:
    class Augmented(TensorDataset):
        def __getitem__(self, number: int) -> Any:
            return OLD[number] + torch.rand(4, dtype=torch.float64)

    model, before = network(), torch.get_rng_state()
    seen: list[Tensor] = []
    kept = Distillation(model, Augmented(OLD), batch_size=24, forward=lambda net, x: (seen.append(x), net(x))[1])
    seen.clear()
    kept.loss()
    kept.loss()
    kept.load_state_dict({**kept.state_dict(), "steps": torch.tensor(1)})
    kept.loss()
    first, second, again = seen[1::2]
    assert not torch.equal(first.sort(0).values, second.sort(0).values)
    assert torch.equal(second, again)
    assert torch.equal(before, torch.get_rng_state())


def test_classes_that_join_had_no_probability() -> None:
    model = network()
    kept = Distillation(model, OLD, batch_size=24)
    wide = nn.Linear(8, 5).double()
    with torch.no_grad():
        wide.weight[:3], wide.bias[:3] = model[4].weight, model[4].bias
        wide.weight[3:], wide.bias[3:] = 0, 0
    before = copy.deepcopy(model).eval()
    model[4] = wide
    q, p = copy.deepcopy(model).eval()(OLD).softmax(-1)[:, :3], before(OLD).softmax(-1)
    torch.testing.assert_close(kept.loss(), (p * (p / q).log()).sum(-1).mean())


class Encoder(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Any:
        return {"last_hidden_state": super().forward(x)}


def bad(value: float) -> nn.Module:
    model = network()
    with torch.no_grad():
        model[4].bias.fill_(value)
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Distillation(network(), OLD, -1.0), "strength must be a finite number"),
        (lambda: Distillation(network(), OLD, temperature=0), "temperature must be a finite number above 0, not 0"),
        (lambda: Distillation(network(), OLD, batch_size=-2), "batch_size must be an integer of 1 or more, not -2"),
        (lambda: Distillation(network(), OLD, batch_size=0), "batch_size must be an integer of 1 or more, not 0"),
        (lambda: Distillation(network(), OLD, seed=-1), "seed must be an integer of 0 or more, not -1"),
        (lambda: Distillation(m := network(), OLD, teacher=m), "the teacher computes with weights of the model itself"),
        (lambda: Distillation(nn.Conv2d(1, 2, 1).double(), OLD[:, None, None]), "logits must be real, [N, K] or"),
        (lambda: Distillation(Encoder(), OLD), "last_hidden_state, which holds no logits"),
        (lambda: Distillation(network(), (row for row in OLD.split(4))), "can be read only once"),
        (lambda: Distillation(network(), []), "the old samples are none: the data are empty"),
        (lambda: Distillation(network(), OLD[:0]), "the old samples are none"),
        (lambda: Distillation(network(), OLD[:, :2]), "the old samples do not fit the model"),
        (lambda: Distillation(bad(math.nan), OLD), "answers the old samples with NaN or Inf"),
        (lambda: Distillation(network(), OLD).attach(optim.SGD([nn.Parameter(OLD)], 0.1)), "holds none of the model's"),
        (lambda: Distillation(m := network(), OLD).attach(optim.LBFGS(m.parameters())), "LBFGS"),
        (lambda: Distillation(network(), OLD).load_state_dict({}), "has no 'steps'"),
        (
            lambda: Distillation(network(), OLD).load_state_dict(Distillation(network(outputs=2), OLD).state_dict()),
            "is of another model",
        ),
    ],
)
def test_what_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ForgetlessError, match=re.escape(said)):
        make()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("steps", lambda each: each.double(), "has no 'steps'"),
        ("steps", lambda each: each * math.nan, "has no 'steps'"),
        ("teacher.0.weight", Tensor.long, "is of another model"),
        ("teacher.0.weight", lambda each: each.T, "is of another model"),
    ],
)
def test_a_state_that_was_altered(name: str, change: Any, said: str) -> None:
    made = Distillation(network(), OLD)
    before = {key: each.clone() for key, each in made.state_dict().items()}
    with pytest.raises(ForgetlessError, match=said):
        made.load_state_dict({**before, name: change(before[name])})
    assert all(torch.equal(each, before[key]) for key, each in made.state_dict().items())


def test_samples_that_become_fewer() -> None:
    data = TensorDataset(OLD)
    made = Distillation(network(), data, batch_size=8)
    made.loss()
    data.tensors = (OLD[:2],)
    with pytest.raises(ForgetlessError, match=r"^the old samples have become fewer, 2, in the middle of an epoch"):
        made.loss()


def test_answers_that_depend_on_nothing_that_learns() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)
    made = Distillation(model, OLD).attach(optimizer)
    model.requires_grad_(False)
    model.register_parameter("beside", nn.Parameter(torch.ones(2)))
    optimizer.add_param_group({"params": [model.beside]})
    optimizer.step()
    assert made.divergence == 0
    assert model.beside.grad is None


def test_it_does_not_count_twice() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)
    kept = Distillation(model, OLD).attach(optimizer)
    with pytest.raises(ForgetlessError, match="would count twice"):
        kept.loss()
    with pytest.raises(ForgetlessError, match="attached already"):
        kept.attach(optimizer)


def test_answers_that_become_nan_are_told_in_the_next_step() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)
    Distillation(model, OLD).attach(optimizer)
    step(model, optimizer)
    with torch.no_grad():
        model[4].bias.fill_(math.nan)
    optimizer.step()
    with pytest.raises(ForgetlessError, match="became NaN or Inf in step 2"):
        optimizer.step()


def test_maximizing_optimizers_and_parameters_without_a_gradient() -> None:
    model = network().eval()
    before = copy.deepcopy(model)
    moved(model)
    optimizer = optim.SGD(model.parameters(), 0.05, maximize=True)
    Distillation(model, OLD, batch_size=24, teacher=before).attach(optimizer)
    far = float(by_hand(before, model, OLD))
    for _ in range(5):
        optimizer.zero_grad()
        optimizer.step()
    assert float(by_hand(before, model, OLD)) < far


def replica(rank: int) -> dict[str, Tensor]:
    """What one of two processes does."""
    together = DistributedDataParallel(network().eval())
    with pytest.raises(ForgetlessError, match="as DistributedDataParallel wraps it"):
        Distillation(together.module, OLD).attach(optim.SGD(together.parameters(), 0.1))
    optimizer = optim.SGD(together.parameters(), 0.1)
    Distillation(together, OLD, 2.0, batch_size=6).attach(optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(together(NEW[rank::2]), LABELS[rank::2]).backward()
        optimizer.step()
    return weights(together.module)


def test_replicas_take_turns_at_the_batches(two: Processes) -> None:
    found = two.run(replica)
    model = network().eval()
    optimizer = optim.SGD(model.parameters(), 0.1)
    Distillation(model, OLD, 2.0, batch_size=12).attach(optimizer)  # the two batches of six, in the same order
    for _ in range(4):
        step(model, optimizer)
    for name, each in weights(model).items():
        torch.testing.assert_close(found[0][name], each, rtol=1e-9, atol=1e-12)
        assert torch.equal(found[0][name], found[1][name])


def test_clipping_that_is_told_shortens_old_answers_alike() -> None:
    """The step goes along g + λ k, as where both are clipped together, and λ means what it says."""

    def stepped(told: bool) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        model, old = nn.Linear(4, 3).double(), torch.randn(6, 4, dtype=torch.float64)
        kept = Distillation(model, old, 300.0, batch_size=6)
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))  # not alike for all classes, which logits would not show
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        (50 * model(old).square().sum() + kept.loss()).backward()
        together = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
        before = torch.cat([each.detach().flatten() for each in model.parameters()])
        optimizer.zero_grad()
        kept.attach(optimizer)
        (50 * model(old).square().sum()).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        if told:
            kept.clipped(norm, 0.1)
        optimizer.step()
        after = torch.cat([each.detach().flatten() for each in model.parameters()])
        return before - after, together

    moved, together = stepped(told=True)
    torch.testing.assert_close(F.cosine_similarity(moved, together, dim=0).item(), 1.0, rtol=1e-12, atol=0)
    assert moved.norm() < 0.2
    moved, together = stepped(told=False)
    assert F.cosine_similarity(moved, together, dim=0) < 0.999


def test_clipping_by_value_shortens_old_answers_as_it_shortens_the_norm() -> None:
    torch.manual_seed(0)
    model, old = nn.Linear(4, 3).double(), torch.randn(6, 4, dtype=torch.float64)
    kept = Distillation(model, old, 300.0, batch_size=6)
    with torch.no_grad():
        model.weight.add_(torch.randn_like(model.weight))
    start, optimizer = copy.deepcopy(model.state_dict()), torch.optim.SGD(model.parameters(), 1.0)
    (pull,) = torch.autograd.grad(kept.loss(), [model.weight])
    kept.attach(optimizer)
    for told in (True, False):  # what was told counts for one step
        model.load_state_dict(start)
        optimizer.zero_grad()
        model(old)[:, 0].square().sum().backward()
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        left, new = nn.utils.get_total_norm(gradients) / norm, gradients[0].clone()
        if told:
            kept.clipped(norm)
        optimizer.step()
        assert left < 0.5
        torch.testing.assert_close(start["weight"] - model.weight, new + (left if told else 1) * pull)
    with pytest.raises(ForgetlessError, match="clipped to a norm above 0, not 0"):
        Distillation(nn.Linear(4, 3), torch.randn(6, 4)).clipped(1.0, 0)

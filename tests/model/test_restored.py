"""Whatever happens inside, the model is as it was found; a measurement of a batch that fails leaves nothing either."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless
from exactness import errors, unchanged, worst
from forgetless import Importance
from forgetless.measure import reference
from forgetless.measure.engine.tape import Tape
from forgetless.model.restored import unhooked, untouched


def made() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(5, 4, max_norm=0.5), nn.Flatten(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)
    )
    model[4].bias.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    return model.train()


TOKENS = torch.tensor([[0, 1], [2, 3], [4, 0]])


def disturb(model: nn.Module) -> None:
    assert not model.training
    model(TOKENS).square().sum().backward()
    model.train()
    model(TOKENS)  # moves the statistics, draws random numbers, renormalizes rows
    model.requires_grad_(True)


def test_what_a_model_does_inside_is_undone() -> None:
    model = made()
    with unchanged(model), untouched(model):
        disturb(model)


def test_also_after_an_exception() -> None:
    model = made()

    def fail() -> None:
        with untouched(model):
            disturb(model)
            raise RuntimeError("in the middle")

    with unchanged(model), pytest.raises(RuntimeError, match="in the middle"):
        fail()


def test_these_tests_see_what_is_not_undone() -> None:
    model = made()
    with pytest.raises(AssertionError), unchanged(model):
        model(TOKENS)


def tapes() -> list[Tape]:
    return [each for each in gc.get_objects() if isinstance(each, Tape)]


def test_no_pass_stays_in_memory() -> None:
    """The graph holds the tape and the tape the graph: somebody must let go, or every batch is kept for good."""
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    gc.disable()
    try:
        before = tapes()  # of a test that failed, whose traceback holds them
        forgetless.mas(model, torch.randn(4, 3), progress=False)
        assert len(tapes()) == len(before)
    finally:
        gc.enable()


def test_autocast_keeps_no_copies_of_weights_that_a_measurement_made() -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        with untouched(model), torch.no_grad():
            model(x)
        assert torch.is_autocast_cache_enabled()
        value = model(x).float().square().sum()
    gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)


class Merging(nn.Linear):
    """LoRA as written by hand: `train(False)` merges A and B into the weight, `train(True)` takes them out."""

    def __init__(self, trainable: bool) -> None:
        super().__init__(4, 3)
        self.A, self.B, self.merged = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(3, 2)), False
        self.weight.requires_grad_(trainable)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (self.B @ self.A).detach() * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.merged else super().forward(x) + x @ self.A.T @ self.B.T


class Wrapped(nn.Module):
    """Parameters, buffers and attributes that a forward pass writes by `write`."""

    def __init__(self, write: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.lin, self.write = nn.Linear(4, 3), write
        self.register_buffer("steps", torch.zeros(3))
        self.plain, self.kept, self.count = torch.ones(3), [torch.zeros(3)], 0

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.lin(x)
        with torch.no_grad():
            self.write(self, result)
        return result


def _set(name: str) -> Callable[[Any, Tensor], None]:
    return lambda m, result: setattr(m, name, result)


WRITES: dict[str, Callable[[Any, Tensor], Any]] = {
    "a weight": lambda m, _: m.lin.weight.clamp_(-0.1, 0.1),
    "a weight's data": lambda m, _: m.lin.weight.data.mul_(0),
    "a weight by index": lambda m, _: m.lin.weight.__setitem__(0, 7.0),
    "a view of a weight": lambda m, _: m.lin.weight[1].view(2, 2).fill_(3),
    "a bias by out=": lambda m, _: torch.zeros(3, out=m.lin.bias.data),
    "a buffer": lambda m, _: m.steps.add_(1),
    "another buffer": lambda m, _: setattr(m, "steps", m.steps + 1),
    "a tensor attribute": lambda m, _: m.plain.add_(1),
    "another tensor attribute": _set("plain"),
    "a new attribute": _set("state"),
    "a list": lambda m, result: m.kept.append(result),
    "a tensor in a list": lambda m, _: m.kept[0].add_(1),
    "a number": lambda m, _: setattr(m, "count", m.count + 1),
}


def state(model: Wrapped) -> list[Any]:
    tensors = [model.lin.weight, model.lin.bias, model.steps, model.plain, *model.kept]
    return [len(model.kept), model.count, sorted(vars(model)), *(tensor.tolist() for tensor in tensors)]


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("fails", [False, True], ids=["", "raises"])
def test_what_a_forward_pass_writes_is_put_back(what: str, fails: bool) -> None:
    torch.manual_seed(0)
    model = Wrapped(WRITES[what])
    if fails:
        first = WRITES[what]

        def write(m: Any, result: Tensor) -> None:
            first(m, result)
            raise KeyError("in the middle")

        model.write = write
    before, x = state(model), torch.randn(5, 4)
    for _ in range(2):  # what the first measurement has learned serves the second
        with unchanged(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                forgetless.mas(model, x, progress=False)
            except forgetless.ForgetlessError as error:
                assert fails or "depends on the other samples of its batch or on chance" in str(error)  # noqa: PT017
        assert state(model) == before


def test_a_write_that_comes_later_is_told() -> None:
    model = Wrapped(lambda m, result: m.lin.weight.mul_(1) if len(result) == 3 else None)
    with pytest.warns(UserWarning, match=r"has written 'lin\.weight' during a later forward pass.*copy"):
        forgetless.mas(model, [torch.randn(2, 4), torch.randn(3, 4)], progress=False)


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable base", "frozen base"])
@pytest.mark.parametrize("fails", [False, True], ids=["", "raises"])
def test_layers_that_merge_in_eval_mode_are_left_alone(trainable: bool, fails: bool) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Merging(trainable), nn.Tanh()).double(), torch.randn(6, 4).double()
    with unchanged(model):
        if fails:
            with pytest.raises(forgetless.ForgetlessError):
                forgetless.mas(model, x[:, :3], progress=False)
        else:
            found = forgetless.mas(model, x, progress=False)
    assert not model[0].merged
    if not fails:
        assert worst(found, reference.mas(model, x)) < 1e-10


def test_merged_adapters_are_told() -> None:
    model = Merging(True).eval()
    with pytest.warns(UserWarning, match="adapters of 'Merging' are merged into the weights"):
        found = forgetless.mas(model, torch.randn(3, 4), progress=False)
    assert set(found.unused) == {"A", "B"}


@pytest.mark.parametrize("batch_size", [None, 1])
def test_hooks_of_parameters_do_not_run(batch_size: int | None) -> None:
    torch.manual_seed(0)
    model, x, calls = nn.Linear(4, 3), torch.randn(5, 4), []
    expected = reference.mas(model, x)
    model.weight.register_hook(lambda gradient: calls.append("hook") or gradient * 0)
    model.weight.register_post_accumulate_grad_hook(lambda parameter: calls.append("after"))
    assert worst(forgetless.mas(model, x, batch_size=batch_size, progress=False), expected) < 1e-5
    assert not calls
    model(x).sum().backward()
    assert calls == ["hook", "after"]
    assert not model.weight.grad.any()


class Recurrent(nn.Module):
    """Keeps its hidden state for the next batch."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.rnn, self.detached = nn.RNN(4, 5, batch_first=True), detached
        self.hidden: Any = None

    def forward(self, x: Tensor) -> Tensor:
        start = None if self.hidden is None else self.hidden[:, : len(x)].contiguous()
        result, hidden = self.rnn(x, start)
        self.hidden = hidden.detach() if self.detached else hidden
        return result[:, -1]


@pytest.mark.parametrize("detached", [True, False])
def test_a_state_does_not_reach_the_next_sample(detached: bool) -> None:
    torch.manual_seed(0)
    model, x = Recurrent(detached).double(), torch.randn(5, 3, 4).double()
    found = forgetless.mas(model, x, progress=False)
    assert model.hidden is None
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for row in x:
        model.hidden = None
        gradients = torch.autograd.grad(model(row[None]).square().sum(), list(model.parameters()))
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += gradient.abs()
    assert max(errors(found, Importance(sums, 5, "mas")).values()) < 1e-10


@pytest.mark.parametrize("lengths", [[3, 4, 6, 6], [6, 6, 3, 4], [3, 4], [2, 2, 2]])
@pytest.mark.parametrize("frozen", [False, True])
def test_encoders_take_one_path(lengths: list[int], frozen: bool) -> None:
    """Without gradients an encoder drops padded positions: another output, and another shape."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.out = nn.TransformerEncoder(layer, 1), nn.Linear(8, 3)
            self.enc.requires_grad_(not frozen)

        def forward(self, x: Tensor, pad: Tensor) -> Tensor:
            return self.out(self.enc(x, src_key_padding_mask=pad).mean(1))

    model = Net().eval()
    batch = {"x": torch.randn(len(lengths), 6, 8), "pad": torch.arange(6) >= torch.tensor(lengths)[:, None]}
    enabled = torch.backends.mha.get_fastpath_enabled()
    found = forgetless.mas(model, batch, progress=False)
    assert torch.backends.mha.get_fastpath_enabled() == enabled
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert worst(found, reference.mas(model, batch)) < 1e-3
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def test_threads_wait_for_each_other() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    inside, most, guard = [0], [0], threading.Lock()

    def forward(module: nn.Module, x: Tensor) -> Tensor:
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        found: Tensor = module(x)
        with guard:
            inside[0] -= 1
        return found

    results: list[Any] = []

    def run() -> None:
        results.append(forgetless.mas(model, torch.ones(4, 4), forward=forward, progress=False))

    threads = [threading.Thread(target=run) for _ in range(4)]
    with unchanged(model):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 4
    assert most == [1]
    assert all(torch.equal(each.sums["0.weight"], results[0].sums["0.weight"]) for each in results)


def test_what_waits_for_gradients_is_not_called() -> None:
    parameter = nn.Parameter(torch.ones(2))
    called: list[Tensor] = []
    parameter.register_post_accumulate_grad_hook(called.append)
    with unhooked([parameter]):
        parameter.sum().backward()
    assert not called
    parameter.sum().backward()
    assert len(called) == 1

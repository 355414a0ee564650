"""A frozen core: its bits, its gradients, the watch over it, its file, and what is refused."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.measure.selection import core_masks
from forgetless.model.parameters import fingerprints
from forgetless.protect.frozen.freeze import FrozenCore, freeze
from forgetless.protect.frozen.share import mask_of, share_of
from frozen import loss, network, random_masks, same, trained, weights
from warned import said


def importance(model: nn.Module, seed: int = 0) -> Importance:
    draw = torch.Generator().manual_seed(seed)
    sums = {name: torch.rand(p.shape, generator=draw, dtype=p.dtype) for name, p in model.named_parameters()}
    return Importance(sums, 2.0, weights=fingerprints(dict(model.named_parameters())))


@pytest.mark.parametrize("granularity", ["element", "row", "tensor"])
def test_three_lines(granularity):
    model = network(dtype=torch.float32)
    before, found = weights(model), importance(model)
    core = freeze(model, found, keep=0.6, granularity=granularity)
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    assert core.attach(optimizer) is core
    trained(model, optimizer, 5)
    masks = core_masks(found, 0.6, granularity)
    assert same(weights(model), before, masks)
    moved = {name: ~(before[name] == now) for name, now in weights(model).items()}
    assert all(torch.equal(moved[name], ~masks[name]) for name in masks)
    status = core.status()
    assert (status.frozen, status.steps) == (sum(int(mask.sum()) for mask in masks.values()), 5)
    assert status.covered == status.elements == sum(each.numel() for each in before.values())
    assert status.fraction == status.frozen / status.covered
    assert status.per_parameter
    assert "weight" not in repr(status), "hundreds of names are no status"


@pytest.mark.parametrize("seed", range(6))
def test_gradients_of_the_core_are_zero_whatever_they_were(seed):
    model = network(seed)
    masks = random_masks(model, seed)
    reference = copy.deepcopy(model)
    core = FrozenCore(model, masks)
    for _ in range(2):  # they add up
        loss(model, 0).backward()
        loss(reference, 0).backward()
    for (name, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        if masks[name].all():
            assert parameter.grad is None
            assert not parameter.requires_grad
        else:
            assert torch.equal(parameter.grad, other.grad.masked_fill(masks[name], 0))
    free = [p.grad[~masks[n]].flatten() for n, p in model.named_parameters() if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.testing.assert_close(norm, torch.cat(free).norm())
    core.remove()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_nan_in_the_core_does_not_reach_clipping_and_nan_elsewhere_does():
    weight = nn.Parameter(torch.ones(2, 3))
    model = nn.ParameterDict({"w": weight})
    mask = torch.tensor([[True, False, False], [False, False, True]])
    FrozenCore(model, {"w": mask})
    (weight * torch.tensor([[float("nan"), 1, 2], [3, 4, float("inf")]])).sum().backward()
    assert weight.grad.tolist() == [[0, 1, 2], [3, 4, 0]]


def test_a_gradient_that_others_share_is_left_to_them():
    a, b = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
    FrozenCore(nn.ParameterList([a, b]), {"0": torch.tensor([True, False, True])})
    (a + b).sum().backward()
    assert a.grad.tolist() == [0, 1, 0]
    assert b.grad.tolist() == [1, 1, 1]


def test_gradients_that_were_there_are_masked_too():
    model = network()
    loss(model, 0).backward()
    masks = random_masks(model, 1)
    FrozenCore(model, masks)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or not parameter.grad[masks[name]].any()


def test_whole_tensors_stay_still_when_they_require_a_gradient_again():
    model = network()
    core = FrozenCore(model, {"mix.weight": torch.ones(4, 4, dtype=torch.bool)})
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    core.attach(optimizer)
    before = weights(model)
    model.requires_grad_(True)
    trained(model, optimizer, 3)
    assert same(weights(model), before, core.masks())
    assert not model.mix.weight.grad.any()
    assert model.mix.weight not in optimizer.state


@pytest.mark.parametrize("layout", ["transposed", "channels last"])
def test_weights_that_are_not_contiguous(layout):
    torch.manual_seed(0)
    model: Any = nn.Linear(6, 5) if layout == "transposed" else nn.Conv2d(3, 4, 3)
    if layout == "transposed":
        model.weight = nn.Parameter(torch.randn(6, 5).t())
    else:
        model.to(memory_format=torch.channels_last)
    for mask in (torch.rand(model.weight.shape) < 0.5, (torch.arange(len(model.weight)) < 2)):
        whole = mask if mask.dim() > 1 else mask.view(-1, *(1,) * (model.weight.dim() - 1)).expand(model.weight.shape)
        core = FrozenCore(model, {"weight": whole})
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        core.attach(optimizer)
        before = weights(model)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(2, 6) if layout == "transposed" else torch.randn(2, 3, 5, 5)).square().sum().backward()
            optimizer.step()
        assert torch.equal(model.weight == before["weight"], whole)
        core.remove()


def test_a_compiled_model_and_a_deep_copy():
    model = network(dtype=torch.float32)
    masks = random_masks(model, 3)
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager")
    core = FrozenCore(compiled, masks)
    optimizer = optim.Adam(compiled.parameters(), lr=0.1)
    core.attach(optimizer)
    before = weights(model)
    trained(compiled, optimizer, 3)
    assert same(weights(model), before, masks)
    other = optim.Adam(plain.parameters(), lr=0.1)
    FrozenCore(plain, masks).attach(other)
    trained(plain, other, 3)
    for name, now in weights(plain).items():
        torch.testing.assert_close(weights(model)[name], now)


# -- the watch


def test_an_optimizer_that_is_not_attached_is_noticed_again_and_again():
    model = network()
    core = FrozenCore(model, {"scale": mask(), "mix.weight": torch.eye(4, dtype=torch.bool)})
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    with pytest.warns(UserWarning, match=r"elements of the frozen core in 'mix\.weight' are no longer") as caught:
        trained(model, optimizer, 6)  # the last of which nothing has looked at
    assert [re.findall(r"found (\d+) times", each) for each in said(caught)] == [[], ["2"], ["4"]]
    assert core.status().moved == 5
    assert core.status().steps == 0


def test_a_core_that_was_written_to_is_told_when_it_is_written_to_again():
    model = network()
    some = torch.tensor([True, True, True, False])
    core = FrozenCore(model, {"mix.weight": torch.eye(4, dtype=torch.bool), "mix.bias": some})
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    core.attach(optimizer)
    for name, value, told in (("mix.weight", 1.0, 1), ("mix.bias", float("nan"), 1), ("mix.bias", 1.0, 0)):
        with torch.no_grad():
            model.get_parameter(name).add_(value)  # a NaN stays one
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                optimizer.step()
        assert [f"frozen core in '{name}'" in each for each in said(caught)] == [True] * told
    assert core.status().moved == 2


def test_a_second_optimizer_beside_the_attached_one_is_noticed():
    model = network()
    core = FrozenCore(model, {"mix.weight": torch.eye(4, dtype=torch.bool)})
    first, second = optim.SGD(model.parameters(), lr=0.1), optim.AdamW(model.parameters(), lr=0.1)
    core.attach(first)
    trained(model, first, 2)
    second.step()
    with pytest.warns(UserWarning, match="something else than the steps of an attached optimizer"):
        first.step()


@pytest.mark.filterwarnings("error")
def test_it_keeps_silent_where_the_core_stands_still():
    model = network()
    FrozenCore(model, random_masks(model, 4))
    plain = optim.SGD(model.parameters(), lr=0.1)  # no decay, no momentum: the gradients alone are enough
    trained(model, plain, 3)
    before = copy.deepcopy(model.state_dict())
    trained(model, plain, 3)
    model.load_state_dict(before)
    trained(model, plain, 3)


# -- its file


@pytest.mark.parametrize("seed", range(4))
def test_a_core_that_is_read_is_the_one_that_was_written(seed, tmp_path: Path):
    model = network(seed)
    masks = random_masks(model, seed)
    core = FrozenCore(model, masks)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    core.attach(optimizer)
    trained(model, optimizer, 2)
    core.save(tmp_path / "core")
    other = network(seed)
    other.load_state_dict(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = FrozenCore.load(tmp_path / "core", other)
    assert same(loaded.masks(), core.masks())
    assert same(loaded.masks(), {name: mask for name, mask in masks.items() if mask.any()})
    assert loaded._mark == core._mark


def test_a_core_of_other_weights_or_of_another_network(tmp_path: Path):
    model = network()
    FrozenCore(model, random_masks(model, 0)).save(tmp_path / "core")
    with pytest.warns(UserWarning, match="was saved with other values in the core: .*load the model's weights before"):
        FrozenCore.load(tmp_path / "core", network(1))
    with pytest.raises(ForgetlessError, match="the core is of another model: this one has no"):
        FrozenCore.load(tmp_path / "core", nn.Linear(2, 2))
    data = bytearray((tmp_path / "core").read_bytes())
    data[-1] ^= 1
    (tmp_path / "core").write_bytes(data)
    with pytest.raises(ForgetlessError, match="is damaged"):
        FrozenCore.load(tmp_path / "core", network(2))


@pytest.mark.parametrize("shape", [(9,), (3, 5), (2, 3, 4), ()])
def test_a_share_is_its_mask(shape):
    for seed in range(6):
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
        share = share_of(mask)
        assert (share is None) is (not mask.any())
        if share is not None:
            assert torch.equal(mask_of(share), mask)
            assert share.frozen == int(mask.sum())


# -- what is refused


def mask(*shape: int, of: bool = True) -> Tensor:
    return torch.full(shape, of)


class Sharded(nn.Parameter):
    def full_tensor(self) -> Tensor:
        return self


class FlatParameter(nn.Parameter):
    pass


def holding(kind: type[nn.Parameter]) -> nn.Module:
    model = nn.Linear(2, 2)
    model.weight = kind(torch.ones(2, 2))
    return model


def broken(value: float) -> nn.Module:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = value
    return model


def partitioned() -> nn.Module:
    model = nn.Linear(2, 2)
    model.weight.ds_id = 1
    return model


def twice() -> None:
    model = nn.Linear(2, 2)
    freeze(model, importance(model))
    freeze(model, importance(model))


PART = {"weight": torch.eye(2, dtype=torch.bool)}
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "another model": (
        lambda: freeze(nn.Linear(2, 2), importance(network())),
        "the core is of another model: this one has no 'scale', 'tokens.weight', 'mix.weight', 'mix.bias'.",
    ),
    "other shapes": (
        lambda: freeze(nn.Linear(2, 2), importance(nn.Linear(3, 2))),
        "the core is of another model: its mask of 'weight' has the shape (2, 3) where the parameter has (2, 2).",
    ),
    "no mask": (
        lambda: FrozenCore(nn.Linear(2, 2), {"weight": torch.ones(2, 2)}),
        "the mask of 'weight' is no boolean tensor.",
    ),
    "everything": (
        lambda: freeze(nn.Linear(2, 2), importance(nn.Linear(2, 2)), keep=1),
        "the core is the whole model, so that nothing is left to be trained; choose a smaller keep.",
    ),
    "twice": (twice, "'weight' is frozen already; remove() that core first."),
    "NaN": (
        lambda: FrozenCore(broken(float("nan")), PART),
        "'weight' has NaN or Inf: such weights cannot be frozen.",
    ),
    "FSDP2": (
        lambda: FrozenCore(holding(Sharded), PART),
        "'weight' is sharded by FSDP, and a core of sharded parameters is not supported: use DDP, or freeze whole "
        "parameters yourself (requires_grad_(False)) before the model is sharded.",
    ),
    "FSDP1": (
        lambda: FrozenCore(holding(FlatParameter), PART),
        "'weight' is sharded by FSDP, and a core of sharded parameters is not supported: use DDP, or freeze whole "
        "parameters yourself (requires_grad_(False)) before the model is sharded.",
    ),
    "DeepSpeed": (
        lambda: FrozenCore(partitioned(), PART),
        "'weight' is partitioned by DeepSpeed, whose optimizers cannot be packed; use DDP.",
    ),
    "a strange optimizer": (
        lambda: FrozenCore(nn.Linear(2, 2), PART).attach(optim.SGD(nn.Linear(2, 2).parameters(), lr=1)),
        "the optimizer holds none of the model's parameters ('weight', 'bias'); make it from them.",
    ),
    "no optimizer": (
        lambda: FrozenCore(nn.Linear(2, 2), PART).attach(3),
        "attach() takes a torch.optim.Optimizer, not int.",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", BAD)
def test_refuses(what):
    act, sentence = BAD[what]
    with pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$"):
        act()


def test_a_refused_core_changes_nothing():
    model = broken(float("inf"))
    with pytest.raises(ForgetlessError):
        FrozenCore(model, {"bias": mask(2), "weight": torch.eye(2, dtype=torch.bool)})
    assert model.bias.requires_grad
    with torch.no_grad():
        model.weight[0, 0] = 1
    FrozenCore(model, PART)


def test_weights_that_were_trained_since_they_were_measured_are_said():
    model = nn.Linear(2, 2)
    found = importance(model)
    with torch.no_grad():
        model.bias += 1
    with pytest.warns(UserWarning, match="the importance was measured at other weights than the model has now: 'bias'"):
        freeze(model, found)


def test_sparse_gradients_are_refused_when_they_come():
    model = nn.Embedding(5, 3, sparse=True)
    FrozenCore(model, {"weight": torch.rand(5, 3) < 0.5})
    with pytest.raises(ForgetlessError, match="the gradient of 'weight', which is partly frozen, is sparse"):
        model(torch.tensor([1, 2])).sum().backward()


def test_a_thawed_layer_and_one_that_gets_no_gradient_do_not_hide_what_moves():
    for granularity, quiet in (("tensor", False), ("element", True)):
        model = network(dtype=torch.float32)
        core = freeze(model, importance(model), keep=0.6, granularity=granularity)
        first = next(iter(model.parameters()))
        model.requires_grad_(True)
        first.requires_grad_(not quiet)
        optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)  # not attached
        with pytest.warns(UserWarning, match="elements of the frozen core in"):
            trained(model, optimizer, 5)
        core.remove()


def test_parameters_that_were_replaced_are_told():
    model = network(dtype=torch.float32)
    core = freeze(model, importance(model), keep=0.5)
    name, parameter = next(iter(dict(model.named_parameters()).items()))
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, nn.Parameter(parameter.detach().clone()))
    with pytest.raises(ForgetlessError, match=re.escape(f"{name!r} were replaced by other parameters")):
        core.attach(optim.AdamW(model.parameters()))


def test_a_second_core_on_one_optimizer_is_refused():
    model = network(dtype=torch.float32)
    first, *rest = dict(model.named_parameters())
    masks = {name: torch.rand(each.shape) < 0.5 for name, each in model.named_parameters()}
    optimizer = optim.AdamW(model.parameters())
    FrozenCore(model, {first: masks[first]}).attach(optimizer)
    other = FrozenCore(model, {rest[0]: masks[rest[0]]})
    with pytest.raises(ForgetlessError, match="another frozen core is attached to this optimizer"):
        other.attach(optimizer)

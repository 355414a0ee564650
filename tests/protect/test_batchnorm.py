"""Running statistics: held through every change of mode, watched while an anchor is attached."""

from __future__ import annotations

import copy
import pickle
import re
import warnings

import pytest
import torch
from torch import nn, optim

from forgetless import Anchor, freeze_batchnorm, mas
from forgetless.errors import ForgetlessError
from forgetless.protect.batchnorm import with_statistics


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8, momentum=None),
        nn.Linear(8, 3),
    )


def shifted(rows: int = 16) -> torch.Tensor:
    return 3 + 2 * torch.randn(rows, 5, generator=torch.Generator().manual_seed(1))


def buffers(model: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


def same(before: list[torch.Tensor], model: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


def test_held_statistics_stand_still_whatever_mode_the_network_is_put_in():
    model = network().train()
    before = buffers(model)
    held = freeze_batchnorm(model)
    assert held.names == ("1", "4")
    for _ in range(3):
        model.train()
        out = model(shifted())
    assert same(before, model)
    model.eval()
    assert torch.equal(model(shifted()), out)  # what it computed while training is what it computes in eval mode
    held.release()
    model.train()
    model(shifted())
    assert not same(before, model)


def test_scale_and_shift_still_learn():
    model = network().train()
    freeze_batchnorm(model)
    model(shifted()).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model[1].parameters())


@pytest.mark.parametrize("mode", [True, False])
def test_after_release_the_layers_have_the_networks_mode(mode):
    model = network().train(mode)
    with freeze_batchnorm(model) as held:
        assert not model[1].training
        held.release()
        assert model[1].training is mode
    held.release()  # a second and third time change nothing
    assert model[1].training is mode
    assert not model[1]._forward_pre_hooks


def test_a_copy_of_a_held_network_is_held_too():
    model = network().train()
    freeze_batchnorm(model)
    twin = copy.deepcopy(model).train()
    before = buffers(twin)
    twin(shifted())
    assert same(before, twin)


def test_it_is_held_under_compile():
    model = network()
    freeze_batchnorm(model)
    before = buffers(model)
    compiled = torch.compile(model, backend="eager")
    compiled.train()
    out = compiled(shifted())
    assert same(before, model)
    torch.testing.assert_close(out, model.eval()(shifted()))


def test_it_is_frozen_in_a_model_that_was_compiled_and_run_before():
    model = network()
    compiled = torch.compile(model, backend="eager")
    compiled.train()
    compiled(shifted())
    frozen = freeze_batchnorm(model)
    before = buffers(model)
    compiled.train()
    compiled(shifted())
    assert same(before, model)
    frozen.release()
    compiled(shifted())
    assert not same(before, model)


def test_it_is_frozen_in_an_exported_model():
    model = network().train()
    freeze_batchnorm(model)
    exported = torch.export.export(model, (shifted(),)).module()
    before = {name: buffer.clone() for name, buffer in exported.named_buffers()}
    exported(shifted())
    assert all(torch.equal(buffer, before[name]) for name, buffer in exported.named_buffers())


def test_it_is_frozen_in_a_wrapper_made_later_and_after_pickling():
    model = network()
    freeze_batchnorm(model)
    for other in (nn.Sequential(model), pickle.loads(pickle.dumps(model))):
        before = buffers(other)
        other.train()(shifted())
        assert same(before, other)


def test_frozen_twice_it_is_released_by_the_last():
    model = network().train()
    first, second = freeze_batchnorm(model), freeze_batchnorm(model)
    first.release()
    first.release()
    assert not model.train()[1].training
    second.release()
    assert model[1].training
    assert "train" not in vars(model[1])


def test_instance_norm_with_statistics_counts_and_layers_without_any_do_not():
    model = nn.Sequential(
        nn.Conv1d(2, 2, 1),
        nn.InstanceNorm1d(2, track_running_stats=True),
        nn.InstanceNorm1d(2),
        nn.BatchNorm1d(2, track_running_stats=False),
        nn.GroupNorm(1, 2),
    )
    assert list(with_statistics(model)) == ["1"]


def test_a_network_without_statistics_is_refused():
    sentence = "Linear has no layer with running statistics, so there is nothing to freeze."
    with pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$"):
        freeze_batchnorm(nn.Linear(2, 2))


def steps(model: nn.Module, optimizer: optim.Optimizer, number: int = 3) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(number):
            optimizer.zero_grad()
            model(shifted()).square().mean().backward()
            optimizer.step()
    return [str(each.message) for each in caught if "statistics" in str(each.message)]


def attached(model: nn.Module, protect: bool = True) -> tuple[Anchor, optim.Optimizer]:
    importance = mas(model, shifted(), progress=False) if protect else None
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    return Anchor(model, importance, 1.0).attach(optimizer), optimizer


def test_statistics_that_move_under_an_anchor_are_told_of_once():
    model = network().train()
    _, optimizer = attached(model)
    assert steps(model.train(), optimizer) == [
        "the running statistics of '1', '4' are moving, and an anchor does not protect them: accuracy on the old "
        "data is lost through them too; call forgetless.freeze_batchnorm(model)."
    ]
    assert steps(model, optimizer) == []


def test_nothing_is_said_where_they_do_not_move():
    model = network()
    _, optimizer = attached(model)
    assert steps(model.eval(), optimizer) == []
    freeze_batchnorm(model)
    assert steps(model.train(), optimizer) == []


def test_nothing_is_said_while_there_is_nothing_to_protect_or_after_detach():
    model = network()
    _, optimizer = attached(model, protect=False)
    assert steps(model.train(), optimizer) == []
    model = network()
    anchor, optimizer = attached(model)
    anchor.detach()
    assert steps(model.train(), optimizer) == []
    assert not optimizer._optimizer_step_post_hooks

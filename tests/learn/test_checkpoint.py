from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn import checkpoint

CONFIG: checkpoint.Config = {"method": "mas", "seed": 1, "the recipe's lr": 0.1}
PARTS = {"model": {"a.weight": torch.randn(3, 2), "b": torch.tensor(5)}, "method": {"x/y": torch.randn(0)}}
POSITION = {"index": 1, "step": 12, "accuracy": [[0.5, None], [None, None]]}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "c", CONFIG, POSITION, PARTS)
    position, parts = checkpoint.read(tmp_path / "c", CONFIG)
    assert position == POSITION
    assert parts.keys() == PARTS.keys()
    for part, tensors in PARTS.items():
        assert parts[part].keys() == tensors.keys()
        assert all(torch.equal(parts[part][name], tensors[name]) for name in tensors)


def test_another_run_is_told_by_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.write(path, CONFIG, POSITION, PARTS)
    with pytest.raises(ForgetlessError) as caught:
        checkpoint.read(path, {"method": "mas", "seed": 2, "task 1": "x"})
    assert str(caught.value) == (
        f"{path} is the checkpoint of another run: seed is 1 there and 2 here; "
        "the recipe's lr is 0.1 there and 'absent' here; task 1 is 'absent' there and 'x' here; "
        "remove it to start over, or name another."
    )


def test_what_differs_is_quoted_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.write(path, {"a\nb\ufeff": "x" * 1000}, POSITION, PARTS)
    with pytest.raises(ForgetlessError) as caught:
        checkpoint.read(path, {})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(path)) + 300


def test_of_long_values_the_part_is_shown_that_differs(tmp_path: Path) -> None:
    path, alike = tmp_path / "c", "same " * 40
    checkpoint.write(path, {"task": f"{alike}red"}, POSITION, PARTS)
    with pytest.raises(ForgetlessError, match=r"task is '….{19}red' there and '….{19}green' here"):
        checkpoint.read(path, {"task": f"{alike}green"})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_no_damage_goes_unnoticed(tmp_path: Path, place: float, flip: int, cut: bool) -> None:
    path = tmp_path / "c"
    checkpoint.write(path, CONFIG, POSITION, PARTS)
    whole = bytearray(path.read_bytes())
    where = int(place * len(whole))
    if cut:
        path.write_bytes(whole[:where])
    else:
        whole[where] ^= flip
        path.write_bytes(whole)
    with pytest.raises(ForgetlessError, match=str(path)):
        checkpoint.read(path, CONFIG)


def test_another_kind_of_file(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "i", {}, "importance", {})
    with pytest.raises(ForgetlessError, match="is no checkpoint file: it holds 'importance'"):
        checkpoint.read(tmp_path / "i", CONFIG)
    files.write_tensors(tmp_path / "c", {}, "checkpoint", {"config": 1})
    with pytest.raises(ForgetlessError, match="is damaged: its header lacks the configuration or the position"):
        checkpoint.read(tmp_path / "c", CONFIG)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimizer_goes_on_as_if_nothing_had_happened(kind: type, tmp_path: Path) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {"amsgrad": True}
    torch.manual_seed(0)
    models = [nn.Linear(3, 2), nn.Linear(3, 2)]
    models[0].bias.requires_grad_(False)  # has no state
    models[1].bias.requires_grad_(False)
    first = kind(models[0].parameters(), lr=0.01, **settings)
    step(models[0], first)
    checkpoint.write(tmp_path / "c", CONFIG, {}, {"optimizer": checkpoint.optimizer_state(first)})
    models[1].load_state_dict(models[0].state_dict())
    second = kind(models[1].parameters(), lr=0.01, **settings)
    checkpoint.restore_optimizer(second, checkpoint.read(tmp_path / "c", CONFIG)[1]["optimizer"])
    for model, optimizer in zip(models, (first, second), strict=True):
        step(model, optimizer)
    assert torch.equal(models[0].weight, models[1].weight)

"""An anchor's state as tensors, and its file: what is written is read, what is damaged is refused by name."""

from __future__ import annotations

import re

import pytest
import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.protect import anchor_file
from forgetless.protect.anchor_file import State, checked
from forgetless.protect.anchored_parameter import AnchoredParameter


def state(carry: bool = False) -> State:
    kept = AnchoredParameter("w", torch.randn(2, 3), torch.rand(2, 3), torch.full((2, 3), 1e-4) if carry else None)
    return State(0.5, 0.25, {"w": kept})


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=re.escape(sentence))


@pytest.mark.parametrize("carry", [False, True])
def test_a_state_is_parsed_as_it_was(carry):
    before = state(carry)
    found = State.parsed(before.tensors())
    assert (found.strength, found.l2sp) == (0.5, 0.25)
    assert found.tensors().keys() == before.tensors().keys()
    assert all(torch.equal(tensor, before.tensors()[key]) for key, tensor in found.tensors().items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"strength": None}, "the anchor's state lacks its 'strength'."),
        ({"strength.w": torch.ones(1)}, "unexpected key 'strength.w' in the anchor's state."),
        ({"weights": torch.ones(1)}, "unexpected key 'weights' in the anchor's state."),
        ({"other": torch.zeros(1)}, "unexpected key 'other' in the anchor's state."),
        ({"carry.w": torch.full((2, 3), torch.nan)}, "the anchor's state has NaN or Inf in the carry of 'w'."),
        ({"carry.x": torch.zeros(1)}, "the carry in the anchor's state does not fit its weights: it has 'x' besides."),
        ({"weights.w": torch.full((2, 3), torch.inf)}, "the anchor's state has NaN or Inf for 'w'."),
        ({"importance.w": -torch.ones(2, 3)}, "the anchor's state has a negative importance for 'w'."),
        ({"strength": torch.ones(2)}, "the anchor's state has 2 numbers as its 'strength', not one."),
        ({"importance.w": torch.ones(2, 3, dtype=torch.cfloat)}, "no tensor of real numbers as 'importance.w'."),
        ({"weights.w": torch.ones(2, 3, dtype=torch.int64)}, "no tensor of real numbers as 'weights.w'."),
        ({"l2sp": torch.tensor(-1.0)}, "the l2sp coefficient must be a finite number of 0 or more, not -1.0."),
    ],
)
def test_a_state_that_is_none_is_refused(change, sentence):
    tensors = {key: tensor for key, tensor in {**state().tensors(), **change}.items() if tensor is not None}
    with refused(sentence):
        State.parsed(tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_state_that_was_cast_with_its_model_is_taken_and_computed_with_in_float32(dtype):
    cast = {
        key: tensor if key in ("strength", "l2sp") else tensor.to(dtype) for key, tensor in state().tensors().items()
    }
    found = State.parsed(cast).parameters["w"]
    theta = torch.randn(2, 3)
    away = theta - cast["weights.w"].float()
    assert torch.equal(found.distance(theta), (cast["importance.w"].float() * away.square()).sum())


def test_the_file_gives_back_state_shapes_and_fingerprints(tmp_path):
    path, before = tmp_path / "anchor.safetensors", state(carry=True)
    anchor_file.write(path, before, {"w": torch.ones(2, 3)})
    tensors, shapes, hashes = anchor_file.read(path)
    assert all(torch.equal(tensor, before.tensors()[key]) for key, tensor in tensors.items())
    assert tensors.keys() == before.tensors().keys()
    assert shapes["w"].shape == (2, 3)
    assert hashes.keys() == {"w"}
    assert [each.name for each in tmp_path.iterdir()] == ["anchor.safetensors"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shapes": {"w": [2, -3]}}, "is damaged: shapes.w[1] must be from 0 to "),
        ({"shapes": {"w": [2**40, 2**40]}}, "is damaged: shapes.w is the shape of a tensor that no memory holds"),
        ({"shapes": {"w": [2.5]}}, "is damaged: shapes.w[0] must be an integer, not 2.5."),
        ({"shapes": [2, 3]}, "is damaged: shapes must be an object"),
        ({"weights": {"w": 7}}, "is damaged: weights.w must be text, not 7."),
        ({"strength": True}, "is damaged: strength must be a number, not True."),
        ({"more": 1}, "is damaged: its content has the field 'more'"),
    ],
)
def test_a_header_that_no_writer_makes_is_refused(tmp_path, change, sentence):
    path = tmp_path / "anchor.safetensors"
    anchor_file.write(path, state(), {"w": torch.ones(2, 3)})
    tensors, header = files.read_tensors(path, "anchor")
    files.write_tensors(path, tensors, "anchor", {**header, **change})
    with refused(sentence):
        anchor_file.read(path)


def test_a_file_of_integers_is_refused(tmp_path):
    path = tmp_path / "anchor.safetensors"
    anchor_file.write(path, state(), {"w": torch.ones(2, 3)})
    tensors, header = files.read_tensors(path, "anchor")
    files.write_tensors(path, {**tensors, "weights.w": torch.ones(2, 3, dtype=torch.int32)}, "anchor", header)
    with refused("'weights.w' has the type int32"):
        anchor_file.read(path)


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "anchor.safetensors"
    anchor_file.write(path, state(), {"w": torch.ones(2, 3)})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ForgetlessError):
        anchor_file.read(path)


@pytest.mark.parametrize("number", [-1, float("nan"), float("inf"), "x", None, [1], 10**400])
def test_a_strength_is_a_finite_number_of_0_or_more(number):
    with refused("the strength must be a finite number of 0 or more, not "):
        checked(number)

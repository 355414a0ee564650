"""What F is: which tensors of a model's output are measured, and their squared norm per sample."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.model.outputs import Output, Select

X = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]])
Named = namedtuple("Named", "boxes scores")


class Gives(nn.Module):
    """A model whose output is a function of its input."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def norms(function: Any, select: Select = None) -> list[float]:
    return Output(select).squared_norms(Gives(function), X).tolist()


@pytest.mark.parametrize(
    ("function", "select", "expected"),
    [
        (lambda x: x, None, [5, 10, 0.25]),
        (lambda x: x.unsqueeze(1), None, [5, 10, 0.25]),
        (lambda x: (x,), None, [5, 10, 0.25]),
        (lambda x: {"loss": x.sum(), "logits": 2 * x, "hidden": x}, None, [20, 40, 1]),
        (lambda x: {"last_hidden_state": x, "pooled": 3 * x}, None, [5, 10, 0.25]),
        (lambda x: {"logits": 2 * x, "hidden": x}, "hidden", [5, 10, 0.25]),
        (lambda x: {"logits": 2 * x, "hidden": x}, ["logits", "hidden"], [25, 50, 1.25]),
        (lambda x: (x, 2 * x), 1, [20, 40, 1]),
        (lambda x: Named(x, 2 * x), "scores", [20, 40, 1]),
        (lambda x: SimpleNamespace(a=x), "a", [5, 10, 0.25]),
        (lambda x: (x, 2 * x), lambda result: result[0][:, :1], [1, 9, 0.25]),
    ],
)
def test_what_is_chosen(function: Any, select: Select, expected: list[float]) -> None:
    assert norms(function, select) == expected


def test_forward_takes_the_models_place() -> None:
    output = Output(forward=lambda model, batch: model(batch["picture"]) + 1)
    assert output.squared_norms(Gives(lambda x: x), {"picture": X}).tolist() == [13, 16, 3.25]


def test_padded_positions_leave_the_norm() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    model = Gives(lambda x: x)
    model.forward = lambda hidden, attention_mask: {"logits": hidden}  # type: ignore[method-assign,assignment]
    hidden = torch.arange(12.0).view(2, 3, 2)
    found = Output().squared_norms(model, {"hidden": hidden, "attention_mask": mask})
    assert found.tolist() == [0 + 1 + 4 + 9, 36 + 49]


def test_half_precision_is_summed_in_float32() -> None:
    found = Output().squared_norms(Gives(lambda x: x.half() * 300), X)
    assert found.dtype == torch.float32
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize(
    ("function", "select", "sentence"),
    [
        (lambda x: x.long(), None, "the output is torch.int64, not a float tensor: it has no gradient."),
        (
            lambda x: x.sum(0),
            None,
            "the output has shape (2,) for 3 samples: its first axis must be the sample axis (choose another tensor "
            "with output=, or give forward=).",
        ),
        (
            lambda x: x.sum(),
            None,
            "the output has shape () for 3 samples: its first axis must be the sample axis (choose another tensor "
            "with output=, or give forward=).",
        ),
    ],
)
def test_outputs_that_cannot_be_measured(function: Any, select: Select, sentence: str) -> None:
    with pytest.raises(ForgetlessError) as raised:
        norms(function, select)
    assert str(raised.value) == sentence


CHOOSE = "is not one tensor; choose with output= or forward= from"


@pytest.mark.parametrize(
    ("function", "select", "sentence"),
    [
        (lambda x: (x, 2 * x), None, f"the model's output {CHOOSE} 0 (3, 2), 1 (3, 2)."),
        (lambda x: {"boxes": x, "n": x[0]}, None, f"the model's output {CHOOSE} 'boxes' (3, 2), 'n' (2,)."),
        (lambda x: {"boxes": x}, "logits", "the model's output has no tensor 'logits'; it has 'boxes' (3, 2)."),
        (lambda x: (x,), 1, "the model's output has no tensor 1; it has 0 (3, 2)."),
        (lambda x: "text", None, f"the model's output {CHOOSE} no tensors (a str)."),
        (lambda x: x, lambda result: 3, f"what output= returned {CHOOSE} no tensors (a int)."),
    ],
)
def test_outputs_that_are_not_found_are_listed(function: Any, select: Select, sentence: str) -> None:
    with pytest.raises(ForgetlessError) as raised:
        norms(function, select)
    assert str(raised.value) == sentence


class Keyed(nn.Module):
    """Gives its output by keywords."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, **given: Any) -> Any:
        return self.function(**given)


MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])
HIDDEN = torch.arange(12.0).view(2, 3, 2)
ALL, KEPT = [0 + 1 + 4 + 9 + 16 + 25, 36 + 49 + 64 + 81 + 100 + 121], [0 + 1 + 4 + 9, 36 + 49]


@pytest.mark.parametrize(
    ("given", "result", "select", "expected"),
    [
        ({"attention_mask": MASK}, {"logits": HIDDEN}, None, KEPT),
        ({"attention_mask": MASK.bool()}, {"logits": HIDDEN}, None, KEPT),
        ({"attention_mask": (MASK.float() - 1) * 1e4}, {"logits": HIDDEN}, None, KEPT),  # added to the scores
        ({"attention_mask": MASK[:, :2]}, {"logits": HIDDEN}, None, ALL),
        ({"attention_mask": MASK, "decoder_input_ids": MASK}, {"logits": HIDDEN}, None, ALL),
        ({"attention_mask": MASK, "decoder_inputs_embeds": HIDDEN}, {"logits": HIDDEN}, None, ALL),
        ({"attention_mask": MASK}, {"logits": HIDDEN, "encoder_last_hidden_state": HIDDEN}, None, ALL),
        (
            {"attention_mask": 1 - MASK, "decoder_input_ids": MASK, "decoder_attention_mask": MASK},
            {"logits": HIDDEN},
            None,
            KEPT,
        ),
        (
            {"attention_mask": MASK, "decoder_input_ids": MASK},
            {"logits": 3 * HIDDEN, "encoder_last_hidden_state": HIDDEN},
            "encoder_last_hidden_state",
            KEPT,
        ),
        (
            {"attention_mask": MASK},
            {"start_logits": HIDDEN[..., 0], "end_logits": HIDDEN[..., 1]},
            ["start_logits", "end_logits"],
            KEPT,
        ),
        ({"attention_mask": MASK}, {"logits": HIDDEN[..., 0]}, None, [4 + 16, 36 + 64 + 100]),  # three classes
        ({"attention_mask": MASK}, {"logits": HIDDEN.masked_fill(MASK[..., None] == 0, torch.nan)}, None, KEPT),
        ({"attention_mask": MASK}, {"logits": HIDDEN.masked_fill(MASK[..., None] == 0, torch.inf)}, None, KEPT),
    ],
)
def test_whose_mask_it_is(given: Any, result: Any, select: Select, expected: list[float]) -> None:
    batch = {"x": HIDDEN, **given}
    assert Output(select).squared_norms(Keyed(lambda **_: result), batch).tolist() == expected


def test_a_model_that_makes_its_decoders_input_itself() -> None:
    model = Keyed(lambda **_: {"logits": HIDDEN})
    model.config = SimpleNamespace(is_encoder_decoder=True)
    assert Output().squared_norms(model, {"x": HIDDEN, "attention_mask": MASK}).tolist() == ALL


def test_nan_at_padded_positions_leaves_the_gradient_sound() -> None:
    weight = torch.ones(2, requires_grad=True)
    model = Keyed(lambda x, attention_mask: torch.where(attention_mask[..., None] > 0, x * weight, torch.nan))
    Output().squared_norms(model, {"x": HIDDEN, "attention_mask": MASK}).sum().backward()
    assert weight.grad is not None
    assert bool(torch.isfinite(weight.grad).all())


def test_a_complex_output_has_the_norm_of_its_moduli() -> None:
    assert norms(lambda x: torch.complex(x, -x).conj()) == [10, 20, 0.5]

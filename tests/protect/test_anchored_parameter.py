"""One parameter's anchor: the corner in common, the pieces, several in one, and 16-bit weights."""

from __future__ import annotations

import warnings

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.protect import anchored_parameter as module
from forgetless.protect.anchor import Anchor
from forgetless.protect.anchored_parameter import AnchoredParameter, collapsed

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(shape=shapes, growth=st.lists(st.integers(-2, 3), min_size=4, max_size=4), size=st.integers(1, 40))
def test_the_pieces_cover_the_common_corner_once(shape, growth, size):
    parameter = torch.zeros([max(0, n + g) for n, g in zip(shape, growth, strict=False)])
    anchored = AnchoredParameter("w", torch.zeros(shape), torch.zeros(shape))
    kept, module._PIECE = module._PIECE, size
    try:
        weights, target, importance = anchored.meet(parameter)
        assert weights.shape == target.shape == importance.shape
        for part in module.pieces(tuple(weights.shape), weights.device):
            assert weights[part].numel() <= max(size, weights[:1].numel() if weights.dim() else 1)
            weights[part] += 1
    finally:
        module._PIECE = kept
    expected = torch.zeros_like(parameter)
    expected[tuple(slice(n) for n in anchored.common(parameter))] = 1
    assert torch.equal(parameter, expected)


def test_a_hold_adds_to_the_earlier_importance_where_the_parameter_already_was():
    earlier = AnchoredParameter("w", torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    parameter = torch.arange(6.0).reshape(2, 3)
    grown = AnchoredParameter.at("w", parameter, torch.full((2, 3), 10.0), earlier, compact=False)
    assert torch.equal(grown.importance, torch.tensor([[11.0, 12.0, 10.0], [13.0, 14.0, 10.0]]))
    assert torch.equal(grown.weights, parameter)
    assert grown.weights.data_ptr() != parameter.data_ptr()


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_the_anchor_is_float32_or_wider(dtype, kept):
    parameter = torch.ones(3, dtype=dtype)
    anchored = AnchoredParameter.at("w", parameter, torch.ones(3), None, compact=False)
    assert anchored.weights.dtype == anchored.importance.dtype == kept


def test_a_compact_importance_is_bfloat16_and_at_most_0_4_percent_off():
    importance = torch.rand(10_000) + 1e-6
    anchored = AnchoredParameter.at("w", torch.zeros(10_000), importance, None, compact=True)
    assert anchored.importance.dtype == torch.bfloat16
    assert anchored.weights.dtype == torch.float32
    assert ((anchored.importance.float() - importance) / importance).abs().max() <= 2**-8


@given(seed=st.integers(0, 1000), tasks=st.integers(1, 4), decay=st.booleans())
def test_several_holds_collapse_into_one_exactly(seed, tasks, decay):
    generator = torch.Generator().manual_seed(seed)

    def random() -> torch.Tensor:
        return torch.randn(7, generator=generator, dtype=torch.float64)

    anchored_parameters = []
    for _ in range(tasks):
        importance = random().clamp_min(0)
        importance[0] = 0
        strength, alike = (torch.rand(2, generator=generator) * 10).tolist()
        anchored_parameters.append((strength, alike * decay, AnchoredParameter("w", random(), importance)))
    one = collapsed(anchored_parameters)
    if not decay:
        assert one.weights[0] == anchored_parameters[0][2].weights[0]
    gaps = []
    for _ in range(4):
        theta = random() * 5
        parts = [
            λ * anchored.distance(theta) + u * anchored.distance(theta, alike=True)
            for λ, u, anchored in anchored_parameters
        ]
        gaps.append(sum(parts) - one.distance(theta))
    torch.testing.assert_close(torch.stack(gaps), gaps[0].expand(4), rtol=1e-11, atol=1e-11)


def test_another_number_of_axes_is_another_parameter():
    with pytest.raises(
        ForgetlessError,
        match=r"^'w' has shape \(2, 3\) and was anchored with \(2,\): it is not the same parameter\.$",
    ):
        AnchoredParameter("w", torch.zeros(2), torch.zeros(2)).common(torch.zeros(2, 3))


@pytest.fixture
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rate", "offset", "start"), [(1e-2, 0.08, 1.0), (1e-4, 2.0, -3.0), (1e-3, 0.5, 0.01)])
def test_16_bit_weights_come_back_as_float32_ones_do(unchecked, dtype, rate, offset, start):
    """Without a gradient, pulled by s = 2·rate for 300 steps: to within a unit in the last place."""
    ends = {}
    for kind in (dtype, torch.float32):
        model = nn.Linear(3, 2, bias=False).to(kind)
        with torch.no_grad():
            model.weight.fill_(start)
        target = model.weight.detach().float().clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        anchor = Anchor(model, Importance({"weight": torch.ones(2, 3)}, 1.0), 1.0)
        with torch.no_grad():
            model.weight.add_(offset)
        anchor.attach(optimizer)
        pulled = next(iter(anchor._attached))
        steps = 300
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(steps):
                pulled(optimizer, (), {})
        ends[kind] = (model.weight.detach().float() - target, model.weight.detach().float())
    unit = torch.finfo(dtype).eps * (abs(start) + offset)
    away, _ = ends[torch.float32]
    assert bool(((ends[dtype][0] - away).abs() <= unit).all())


def test_a_carry_is_there_for_16_bit_weights_only_and_is_saved():
    model = nn.Linear(3, 2).bfloat16()
    anchor = Anchor(model, Importance({"weight": torch.ones(2, 3)}, 1.0), 0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        model.weight.add_(1)
    anchor.attach(optimizer)
    optimizer.step()
    state = anchor.state_dict()
    assert bool(state["carry.weight"].any())
    other = Anchor(model, None, 1.0)
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()["carry.weight"], state["carry.weight"])
    assert "carry.weight" not in Anchor(model.float(), Importance({"weight": torch.ones(2, 3)}, 1.0), 1.0).state_dict()

"""Every way to merge: one element at a time in double precision, what must hold for all of them, and bad settings."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forgetless.edit.merging import METHODS, mean, method_called
from forgetless.edit.merging.parts import deltas
from forgetless.edit.merging.parts import method as parts_method
from forgetless.edit.merging.parts.deltas import draw, kept
from forgetless.edit.merging.parts.method import Method, Settings, TaskVectors, Thin
from forgetless.errors import ForgetlessError

WEIGHTS = (0.5, 1.0, 0.25)


def problem(
    seed: int = 0, shape: tuple[int, ...] = (5, 7), models: int = 3
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    base = drawn()
    versions = [base + 0.1 * drawn() for _ in range(models)]
    return versions, base, [drawn().abs() for _ in range(models)]


def merged(name: str, problem: tuple[list[Tensor], Tensor, list[Tensor]], told: Settings) -> Tensor:
    versions, base, omegas = problem
    method = METHODS[name]
    return method.merge(versions, base if method.needs_base else None, omegas if method.estimators else None, told)


def reference(name: str, problem: tuple[list[Tensor], Tensor, list[Tensor]], told: Settings) -> Tensor:
    """The formulas, element by element, in Python's own numbers."""
    versions, base, omegas = problem
    shape, count = base.shape, base.numel()
    theta = [each.flatten().tolist() for each in versions]
    start, omega = base.flatten().tolist(), [each.flatten().tolist() for each in omegas]
    tau = [[value - start[i] for i, value in enumerate(each)] for each in theta]
    for k, each in enumerate(tau):
        if name == "ties" and told.density[k] < 1:
            order = sorted(range(count), key=lambda i: (-abs(each[i]), i))
            for i in order[max(1, int(told.density[k] * count)) :]:
                each[i] = 0.0
        if name.startswith("dare") and told.density[k] < 1:
            mask = kept(shape, told.density[k], draw(told.seed, told.tensor, k)).flatten().tolist()
            before = math.fsum(map(abs, each))
            tau[k] = each = [value if stays else 0.0 for value, stays in zip(each, mask, strict=True)]
            after = math.fsum(map(abs, each))
            factor = {"density": 1 / told.density[k], "l1": before / after, "none": 1.0}[told.rescale]
            tau[k] = [value * factor for value in each]
    found = []
    for i in range(count):
        if name == "wise-ft":
            found.append((1 - told.alpha) * start[i] + told.alpha * theta[0][i])
        elif name in ("mean", "fisher", "mas"):
            w = [weight * (1.0 if name == "mean" else omega[k][i]) for k, weight in enumerate(told.weights)]
            w = w if any(w) else list(told.weights)
            over = math.fsum(w) if name != "mean" or told.normalize else 1.0
            found.append(math.fsum(each * theta[k][i] for k, each in enumerate(w)) / over)
        else:
            parts = [weight * tau[k][i] for k, weight in enumerate(told.weights)]
            took = list(told.weights)
            if name.endswith("ties"):
                votes = [math.copysign(1, part) if part else 0 for part in parts]
                elected = 1 if math.fsum(votes if told.majority == "count" else parts) >= 0 else -1
                agree = [bool(part) and math.copysign(1, part) == elected for part in parts]
                parts = [part for part, yes in zip(parts, agree, strict=True) if yes]
                took = [weight for weight, yes in zip(took, agree, strict=True) if yes]
            over = math.fsum(took) if told.normalize else 1.0
            found.append(start[i] + told.scale * math.fsum(parts) / (over or 1.0))
    return torch.tensor(found, dtype=torch.float64).view(shape)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("mean", {}),
    ("mean", {"normalize": False}),
    ("task-arithmetic", {}),
    ("task-arithmetic", {"scale": 1.5, "normalize": True}),
    ("wise-ft", {}),
    ("wise-ft", {"alpha": 0.3}),
    ("ties", {}),
    ("ties", {"density": (0.3, 0.7, 1.0), "scale": 0.5, "normalize": False}),
    ("ties", {"density": 0.01, "majority": "count"}),
    ("dare-linear", {}),
    ("dare-linear", {"density": 0.3, "rescale": "l1", "seed": 3, "normalize": True}),
    ("dare-linear", {"density": 1.0, "rescale": "none"}),
    ("dare-ties", {"rescale": "none"}),
    ("dare-ties", {"density": (0.3, 0.7, 1.0), "normalize": True, "majority": "count", "scale": 1.0}),
    ("fisher", {}),
    ("mas", {}),
]


def told(name: str, models: int = 3, weights: tuple[float, ...] | None = WEIGHTS, **given: Any) -> Settings:
    method = METHODS[name]
    return method.told(method.models or models, None if method.models else weights, **given)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_it_is_its_formula(name: str, given: dict[str, Any]) -> None:
    found = problem(models=METHODS[name].models or 3)
    settings_ = told(name, **given)
    torch.testing.assert_close(merged(name, found, settings_), reference(name, found, settings_), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "given"), CASES)
@pytest.mark.parametrize("size", [1, 4, 17])
def test_block_by_block_it_is_the_same(
    size: int, name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thresholds, masks and norms are those of the whole tensor; of equal elements the first ones are kept."""
    versions, base, omegas = problem(models=METHODS[name].models or 3)
    found = [(each * 8).round() / 8 for each in versions], (base * 8).round() / 8, omegas  # many of one size
    settings_ = told(name, **given)
    whole = merged(name, found, settings_)
    monkeypatch.setattr(parts_method, "_BLOCK", size)
    torch.testing.assert_close(merged(name, found, settings_), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(whole, reference(name, found, settings_), rtol=0, atol=1e-13)


def test_every_method_is_compared_with_its_formula() -> None:
    assert {name for name, _ in CASES} == METHODS.keys()


def _fewer(settings_: Settings, vectors: TaskVectors) -> Thin:
    whole = deltas.trimmed(settings_, vectors)

    def thin(k: int, delta: Tensor) -> Tensor:
        found = whole(k, delta)
        found[found.abs() == found.abs().max()] = 0.0
        return found

    return thin


@pytest.mark.parametrize(
    ("name", "module", "part", "fault"),
    [
        ("ties", deltas, "_elected", lambda found, _: torch.ones_like(found[0], dtype=torch.bool)),
        ("ties", METHODS["ties"], "thin", _fewer),
        ("dare-linear", deltas, "kept", lambda shape, density, *_: torch.ones(shape, dtype=torch.bool)),
        (
            "mas",
            METHODS["mas"],
            "block",
            lambda versions, base, omegas, told: METHODS["mean"].block(versions, base, None, told),
        ),
        ("mean", mean, "averaged", lambda versions, told: sum(versions) / 3),
    ],
    ids=["no election", "trims one more", "drops nothing", "no importance", "no weights"],
)
def test_the_reference_sees_a_fault(
    name: str, module: object, part: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, settings_ = problem(), told(name)
    expected = reference(name, found, settings_)
    torch.testing.assert_close(merged(name, found, settings_), expected, rtol=0, atol=1e-13)
    if isinstance(module, Method):
        monkeypatch.setitem(METHODS, name, dataclasses.replace(module, **{part: fault}))
    else:
        monkeypatch.setattr(module, part, fault)
    assert not torch.allclose(merged(name, found, settings_), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.sampled_from([(), (1,), (6,), (3, 4), (0, 2), (2, 3, 2)]))
def test_what_holds_for_every_method(name: str, seed: int, shape: tuple[int, ...]) -> None:
    """The shape and dtype stay, nothing given is changed, and the same call gives the same bits."""
    found = problem(seed, shape, METHODS[name].models or 3)
    given_ = [each.clone() for each in (*found[0], found[1], *found[2])]
    first, again = (merged(name, found, told(name)) for _ in range(2))
    assert first.shape == found[1].shape
    assert first.dtype == torch.float64
    assert torch.equal(first, again)
    for each, before in zip((*found[0], found[1], *found[2]), given_, strict=True):
        assert torch.equal(each, before)


@pytest.mark.parametrize("name", ["mean", "fisher", "mas", "wise-ft"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_averages_lie_between_the_versions(name: str, seed: int) -> None:
    versions, base, omegas = problem(seed, models=METHODS[name].models or 3)
    omegas[0][0] = 0.0
    found = merged(name, (versions, base, omegas), told(name))
    stack = torch.stack([*versions, *([base] if METHODS[name].needs_base else [])])
    assert bool((found >= stack.min(0).values - 1e-12).all())
    assert bool((found <= stack.max(0).values + 1e-12).all())


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.models is None])
def test_the_order_of_the_models_does_not_matter(name: str) -> None:
    versions, base, omegas = problem()
    given_: dict[str, Any] = {"density": 1.0} if name.startswith("dare") else {}  # each model has a mask of its own
    first = merged(name, (versions, base, omegas), told(name, **given_))
    turned = merged(name, (versions[::-1], base, omegas[::-1]), told(name, weights=WEIGHTS[::-1], **given_))
    torch.testing.assert_close(first, turned, rtol=0, atol=1e-14)


def test_importance_of_tiny_scale_still_decides() -> None:
    """In float32 `Σ Ω θ / Σ Ω` would lose Ω near the smallest numbers there are."""
    versions = [torch.tensor([3.0]), torch.tensor([5.0])]
    omegas = [torch.tensor([3e-38]), torch.tensor([1e-38])]
    found = METHODS["mas"].merge(versions, None, omegas, told("mas", 2, (1.0, 1.0)))
    assert float(found) == pytest.approx(3.5, rel=1e-6)


def test_where_no_model_has_importance_it_is_the_mean() -> None:
    versions, _, omegas = problem()
    for omega in omegas:
        omega[2] = 0.0
    omegas[1][3] = 0.0
    found = METHODS["fisher"].merge(versions, None, omegas, told("fisher"))
    plain = METHODS["mean"].merge(versions, None, None, told("mean"))
    torch.testing.assert_close(found[2], plain[2], rtol=0, atol=1e-15)
    w = [weight * omega[3] for weight, omega in zip(WEIGHTS, omegas, strict=True)]
    torch.testing.assert_close(found[3], (w[0] * versions[0][3] + w[2] * versions[2][3]) / (w[0] + w[2]))


def test_trimming_keeps_exactly_so_many_and_of_equal_ones_the_first() -> None:
    base = torch.zeros(10)
    tau = torch.tensor([1.0, -2, 1, 1, 0, 3, 1, 1, -1, 0])
    found = METHODS["ties"].merge([tau], base, None, METHODS["ties"].told(1, density=0.5))
    assert found.tolist() == [1, -2, 1, 1, 0, 3, 0, 0, 0, 0]


def test_what_dare_drops_depends_on_the_seed_the_tensor_and_the_model_alone() -> None:
    shape = torch.Size([40, 50])
    mask = kept(shape, 0.3, draw(1, "a.weight", 0))
    torch.manual_seed(7)
    assert torch.equal(mask, kept(shape, 0.3, draw(1, "a.weight", 0)))
    assert abs(float(mask.float().mean()) - 0.3) < 0.05
    for other in ((2, "a.weight", 0), (1, "b.weight", 0), (1, "a.weight", 1)):
        assert not torch.equal(mask, kept(shape, 0.3, draw(*other)))


def test_dare_is_task_arithmetic_on_average() -> None:
    versions, base, _ = problem(shape=(400,))
    plain = METHODS["task-arithmetic"].merge(versions, base, None, told("task-arithmetic"))
    drawn = torch.stack(
        [METHODS["dare-linear"].merge(versions, base, None, told("dare-linear", seed=seed)) for seed in range(40)]
    )
    z = (drawn.mean(0) - plain) / (drawn.std(0) / 40**0.5)
    assert float(z.abs().max()) < 6
    assert abs(float(z.mean())) < 5 / 400**0.5


@pytest.mark.parametrize(
    ("name", "models", "weights", "given", "sentence"),
    [
        ("mean", 1, None, {}, "merging by 'mean' needs at least two models, not 1."),
        ("ties", 0, None, {}, "merging by 'ties' needs at least two models, not 0."),
        ("wise-ft", 2, None, {}, "the method 'wise-ft' merges 1 model with its base, not 2."),
        ("wise-ft", 1, (2.0,), {}, "the method 'wise-ft' takes no weights; its setting is alpha."),
        ("mean", 2, (1.0,), {}, "weights has 1 values for 2 models; give one for each."),
        ("mean", 2, (1.0, -1.0), {}, "the weights add up to 0, by which nothing can be divided."),
        ("mean", 2, (1.0, math.nan), {}, "a weight must be finite for 'mean', not nan."),
        ("mas", 2, (1.0, -0.5), {}, "a weight must be a finite number of 0 or more for 'mas', not -0.5."),
        (
            "mean",
            2,
            None,
            {"density": 0.5},
            "the method 'mean' has no setting 'density'; beside weights it has normalize.",
        ),
        ("mas", 2, None, {"alpha": 0.5}, "the method 'mas' has no setting 'alpha'; beside weights it has none."),
        ("ties", 2, None, {"density": 0}, "a density must be above 0 and at most 1, not 0."),
        ("ties", 2, None, {"density": (0.5, 0.5, 0.5)}, "density has 3 values for 2 models; give one for each."),
        ("ties", 2, None, {"density": "0.5"}, "density has 3 values for 2 models; give one for each."),
        ("ties", 2, None, {"density": ["0", "5"]}, "density must be a number, not '0'."),
        ("ties", 2, None, {"scale": math.inf}, "λ must be finite, not inf."),
        ("wise-ft", 1, None, {"alpha": math.nan}, "α must be finite, not nan."),
        ("ties", 2, None, {"majority": "most"}, "majority is sum or count, not 'most'."),
        ("dare-ties", 2, None, {"rescale": "l2"}, "rescale is density or l1 or none, not 'l2'."),
    ],
)
def test_bad_settings(name: str, models: int, weights: Any, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        METHODS[name].told(models, weights, **given)
    assert str(caught.value) == sentence


def test_an_unknown_method() -> None:
    with pytest.raises(ForgetlessError, match="there is no way to merge called 'slerp'; there are mean, task-"):
        method_called("slerp")


def test_every_method_names_its_paper() -> None:
    for name, method in METHODS.items():
        assert method.name == name
        assert "arXiv " in method.paper
        assert method.formula.startswith("θ = ")

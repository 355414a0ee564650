"""Faults that are planted in the kernels: the tests of exactness must see every one of them.

Two nets are spread. The check of the first two samples finds a rule that is wrong and measures one sample at a time:
then the numbers are right and the path is not what was promised. With that check blinded the numbers are wrong.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import forgetless
from exactness import worst
from forgetless.measure import reference
from forgetless.measure.engine import derived, plan
from forgetless.measure.kernels import RULES
from forgetless.measure.kernels.convolution import Patches
from forgetless.measure.kernels.embedding import Lookups
from forgetless.measure.kernels.parts.rule import Samples
from forgetless.measure.kernels.parts.terms import Dense, Outer
from problems import PROBLEMS

Patch = pytest.MonkeyPatch
BY_NAME = {problem.name: problem for problem in PROBLEMS}


def wrong_sign(patch: Patch) -> None:
    """The gradient of a linear layer's input points the other way."""
    right = RULES[torch.nn.functional.linear]

    def rule(*args: Any, **kwargs: Any) -> Any:
        call = right(*args, **kwargs)
        if call is None:
            return None
        return dataclasses.replace(call, input_gradient=lambda *given: -call.input_gradient(*given))

    patch.setitem(RULES, torch.nn.functional.linear, rule)


def modulus_before_the_sum(patch: Patch) -> None:
    """The modulus is taken at every position of a sample."""

    def modulus_sum(self: Outer, power: int, into: Tensor | None = None) -> Tensor:
        return _total((self.d.flatten(0, 1).abs() ** power).T @ self.a.flatten(0, 1).abs() ** power, self.shape, into)

    patch.setattr(Outer, "modulus_sum", modulus_sum)


def modulus_per_batch(patch: Patch) -> None:
    """The modulus is taken of the batch's gradient, as others do."""

    def modulus_sum(self: Outer, power: int, into: Tensor | None = None) -> Tensor:
        return _total((self.d.flatten(0, 1).T @ self.a.flatten(0, 1)).abs() ** power, self.shape, into)

    patch.setattr(Outer, "modulus_sum", modulus_sum)


def dropped_tied_use(patch: Patch) -> None:
    """Of several uses of a parameter only the first is kept."""
    right = derived.root_term
    patch.setattr("forgetless.measure.engine.tape.root_term", lambda root, uses: right(root, uses[:1]))


def padding_off_by_one(patch: Patch) -> None:
    """The patches of a convolution begin one place further."""
    right = Patches.__post_init__ if hasattr(Patches, "__post_init__") else lambda self: None

    def shifted(self: Patches) -> None:
        right(self)
        object.__setattr__(self, "x", self.x.roll(1, -1))

    patch.setattr(Patches, "__init__", _then(Patches.__init__, shifted))


def repeated_ids_apart(patch: Patch) -> None:
    """An id that a sample looks up twice counts as two."""

    def modulus_sum(self: Lookups, power: int, into: Tensor | None = None) -> Tensor:
        rows = self.d.abs().reshape(-1, self.shape[1]) ** power
        total = torch.zeros(self.shape, dtype=rows.dtype).index_add_(0, self.ids.reshape(-1), rows)
        return _total(total, self.shape, into)

    patch.setattr(Lookups, "modulus_sum", modulus_sum)


def first_axis_always(patch: Patch) -> None:
    """The samples are taken to be the first axis."""
    right = Samples.rows
    patch.setattr(Samples, "rows", lambda self, values, kept: right(Samples(self.count), values, kept))


def bias_of_one_position(patch: Patch) -> None:
    """The gradients of biases and norms lose the last sample of a batch."""
    right = Dense.modulus_sum
    patch.setattr(Dense, "modulus_sum", lambda self, power, into=None: right(Dense(self.gradients[:-1]), power, into))


def _then(first: Callable[..., None], second: Callable[[Any], None]) -> Callable[..., None]:
    def both(self: Any, *args: Any, **kwargs: Any) -> None:
        first(self, *args, **kwargs)
        second(self)

    return both


def _total(found: Tensor, shape: Any, into: Tensor | None) -> Tensor:
    return found.reshape(shape) if into is None else into.add_(found.reshape(shape))


FAULTS: dict[Callable[[Patch], None], tuple[str, ...]] = {
    wrong_sign: ("a layer twice in a row", "a layer at two lengths"),
    modulus_before_the_sum: ("Linear, 3-D", "Conv2d, pointwise"),
    modulus_per_batch: ("Linear, 3-D", "RNN"),
    dropped_tied_use: ("a tied autoencoder", "three matrices in one"),
    padding_off_by_one: ("Conv2d, padding 1", "Conv1d, stride 2, dilation 2, padding 1", "ConvTranspose2d, plain"),
    repeated_ids_apart: ("Llama", "LSTM language model"),
    first_axis_always: ("samples in the second axis", "as many steps as samples, samples second"),
    bias_of_one_position: ("BatchNorm2d", "LayerNorm, 3-D", "a scale per feature"),
}
PAIRS = [(fault, name) for fault, names in FAULTS.items() for name in names]


def distance(name: str) -> tuple[float, bool]:
    """How far the problem's importance is from the reference, and whether the promised path was taken."""
    model, batch, options = BY_NAME[name].make(torch.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = forgetless.mas(model, batch, prove=False, progress=False, **options)
    kept = not any("one sample at a time" in str(warning.message) for warning in caught)
    return worst(found, reference.mas(model, batch, **options)), kept


@pytest.mark.parametrize(("fault", "name"), PAIRS, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_fault_is_seen(fault: Callable[[Patch], None], name: str, monkeypatch: Patch) -> None:
    error, kept = distance(name)
    assert error <= 1e-10  # without the fault all is well
    assert kept
    fault(monkeypatch)
    error, kept = distance(name)
    assert error <= 1e-10  # the check of the first two samples saves the numbers …
    assert not kept  # … at the price of the path
    monkeypatch.setattr(plan, "_differs", lambda *_: False)
    error, kept = distance(name)
    assert kept
    assert error > 1e-3, error

"""An anchor's state as tensors and numbers, and the safetensors file that holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.measure.importance import refuse_mismatch
from forgetless.model.parameters import fingerprints
from forgetless.model.sharding import whole
from forgetless.protect.anchored_parameter import AnchoredParameter
from forgetless.protect.coded import Coded, Values, levels

_NUMBERS = ("strength", "l2sp")
_KINDS = (*_NUMBERS, "weights", "importance", "top", "carry", "dial")
_SINGLE = ("top.", "dial.")  # keys that begin so are of one number
_DTYPES = files.FLOATS | {torch.uint8}


@dataclass(frozen=True)
class State:
    """λ, w, by name what is anchored of each parameter, and where the dial stands that chooses λ."""

    strength: float
    l2sp: float
    parameters: dict[str, AnchoredParameter]
    dial: dict[str, float] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """λ and w, the dial's numbers, and by name the weights, the importance and carry; views.

        An importance in 8 bits is its codes, with the largest value as `top.NAME`.
        """
        omegas = {name: each.importance for name, each in self.parameters.items()}
        coded = {name: omega for name, omega in omegas.items() if isinstance(omega, Coded)}
        return {
            "strength": torch.tensor(self.strength, dtype=torch.float64),
            "l2sp": torch.tensor(self.l2sp, dtype=torch.float64),
            **{f"dial.{name}": torch.tensor(number, dtype=torch.float64) for name, number in self.dial.items()},
            **{f"weights.{name}": each.weights for name, each in self.parameters.items()},
            **{f"importance.{name}": o.codes if isinstance(o, Coded) else o for name, o in omegas.items()},
            **{f"top.{name}": torch.tensor(omega.top, dtype=torch.float64) for name, omega in coded.items()},
            **{f"carry.{name}": each.carry for name, each in self.parameters.items() if each.carry is not None},
        }

    @classmethod
    def parsed(cls, tensors: Mapping[str, Tensor]) -> State:
        """The state that `tensors()` gave.

        Raises:
            ForgetlessError: a key is missing or unexpected, a value is not finite, or an importance is negative.
        """
        if "strength" not in tensors:
            raise ForgetlessError("the anchor's state lacks its 'strength'.")
        for name, tensor in tensors.items():
            coded = name.startswith("importance.") and isinstance(tensor, Tensor) and tensor.dtype == torch.uint8
            if not isinstance(tensor, Tensor) or not (coded or tensor.dtype in files.FLOATS):
                raise ForgetlessError(f"the anchor's state has no tensor of real numbers as {name!r}.")
            if (name in _NUMBERS or name.startswith(_SINGLE)) and tensor.numel() != 1:
                raise ForgetlessError(f"the anchor's state has {tensor.numel()} numbers as its {name!r}, not one.")
        parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in _KINDS}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            if kind not in parts or (key != kind) is (kind in _NUMBERS):
                raise ForgetlessError(f"unexpected key {key!r} in the anchor's state.")
            parts[kind][name] = tensor
        weights, importance, carry = parts["weights"], parts["importance"], parts["carry"]
        refuse_mismatch(importance, weights, "the importance in the anchor's state", "its weights")
        kept = {name: weights[name] for name in carry if name in weights}
        refuse_mismatch(carry, kept, "the carry in the anchor's state", "its weights")
        if bad := [name for name in carry if not bool(torch.isfinite(carry[name]).all())]:
            raise ForgetlessError(f"the anchor's state has NaN or Inf in the carry of {bad[0]!r}.")
        for name in weights:
            if not bool((torch.isfinite(weights[name]) & torch.isfinite(importance[name])).all()):
                raise ForgetlessError(f"the anchor's state has NaN or Inf for {name!r}.")
            if bool((importance[name] < 0).any()):
                raise ForgetlessError(f"the anchor's state has a negative importance for {name!r}.")
        return cls(
            checked(float(tensors["strength"])),
            checked(float(tensors.get("l2sp", 0.0)), "l2sp coefficient"),
            {name: AnchoredParameter(name, weights[name], _values(name, parts), carry.get(name)) for name in weights},
            {name: checked(float(number), f"dial's {name!r}") for name, number in parts["dial"].items()},
        )


def _values(name: str, parts: Mapping[str, Mapping[str, Tensor]]) -> Values:
    importance, top = parts["importance"][name], parts["top"].get(name)
    if (importance.dtype == torch.uint8) is (top is None):
        raise ForgetlessError(f"the anchor's state has codes of {name!r} without their 'top', or that without codes.")
    if top is None:
        return importance
    return Coded(importance, levels(checked(float(top), f"top of {name!r}")).to(importance.device))


def write(path: str | Path, state: State, parameters: Mapping[str, Tensor]) -> None:
    """Write a state to the file `path`, whole or not at all; of sharded tensors every process must call it.

    Args:
        path: the file.
        state: what is written.
        parameters: the model's own of those anchored: their shapes and fingerprints go into the header.
    """
    header = {
        "strength": state.strength,
        "shapes": {name: list(parameter.shape) for name, parameter in parameters.items()},
        "weights": fingerprints(parameters),
    }
    files.write_tensors(path, {name: whole(tensor) for name, tensor in state.tensors().items()}, "anchor", header)


def read(path: str | Path, *, mmap: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    """What `write` wrote.

    Returns:
        The state's tensors, the parameters' shapes as meta tensors, and their fingerprints.

    Raises:
        ForgetlessError: the file is missing, cut, damaged or not an anchor's.
    """
    tensors, header = files.read_tensors(path, "anchor", dtypes=_DTYPES, mmap=mmap)
    noted: _Header = files.decoded(header, _Header, path)
    return tensors, {name: torch.empty(shape, device="meta") for name, shape in noted.shapes.items()}, noted.weights


@dataclass(frozen=True)
class _Header:
    """What an anchor's file says of itself: λ, the parameters' shapes and their fingerprints."""

    strength: float
    shapes: dict[str, files.Shape]
    weights: dict[str, str]


def checked(number: object, what: str = "strength") -> float:
    """`number` as a float.

    Raises:
        ForgetlessError: it is negative, not finite or no number.
    """
    try:
        value = float(number)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ForgetlessError(f"the {what} must be a finite number of 0 or more, not {number!r}.")
    return value

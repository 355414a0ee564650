"""The versions of every tensor in models of one architecture: checked against each other, then read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from forgetless import files
from forgetless.edit.blocks import Parts
from forgetless.edit.checkpoint import differing, finite
from forgetless.errors import ForgetlessError, quoted
from forgetless.model.parameters import listing
from forgetless.model.sharding import is_sharded


@runtime_checkable
class Weights(Protocol):
    """A model's tensors by name: a checkpoint on disk, or a state dict (`StateDict`)."""

    @property
    def layout(self) -> Mapping[str, files.Layout]:
        """What there is, by name."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its configuration; empty where nothing is known."""

    def tensor(self, name: str) -> Tensor:
        """Read one, without NaN and Inf."""

    def parts(self, name: str) -> Parts:
        """One that is read in parts, without NaN and Inf."""


class StateDict:
    """A state dict as `Weights`.

    Args:
        tensors: by name.
        title: what to call it in a sentence.

    Raises:
        ForgetlessError: it is no state dict.
    """

    def __init__(self, tensors: Mapping[str, Tensor], title: str) -> None:
        refuse_no_state(tensors, title)
        self.layout = {name: files.Layout(each.dtype, tuple(each.shape)) for name, each in tensors.items()}
        self.config: dict[str, Any] = {}
        self._tensors, self._title = tensors, title

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            ForgetlessError: it holds NaN or Inf.
        """
        found = self._tensors[name].detach()
        if found.is_floating_point() and not finite(found):
            raise ForgetlessError(
                f"{quoted(name)} of {self._title} holds NaN or Inf; a model that holds them cannot be merged."
            )
        return found

    def parts(self, name: str) -> Parts:
        """The tensor of that name, which is looked at as a whole for NaN and Inf."""
        flat = self.tensor(name).reshape(-1)
        return lambda at: flat[at]


def refuse_no_state(tensors: object, title: str) -> None:
    """Refuse what is no state dict, or holds what is no whole tensor with numbers in their places.

    Args:
        tensors: what was given.
        title: what to call it in a sentence.

    Raises:
        ForgetlessError: as said.
    """
    if not isinstance(tensors, Mapping):
        raise ForgetlessError(f"{title} is a {type(tensors).__name__}, not a state dict; give model.state_dict().")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ForgetlessError(f"{quoted(name)} of {title} is a {type(tensor).__name__}, not a tensor.")
        if is_sharded(tensor):
            raise ForgetlessError(f"{quoted(name)} of {title} is sharded; gather the model's state dict first.")
        if tensor.is_meta or tensor.layout != torch.strided:
            what = "on the meta device, without numbers" if tensor.is_meta else "sparse; convert it with to_dense()"
            raise ForgetlessError(f"{quoted(name)} of {title} is {what}.")


def refuse_differences(models: Mapping[str, Weights]) -> None:
    """Refuse models that do not hold tensors of the same names and shapes, or hold none.

    Args:
        models: what to call each in a sentence → its weights; the first one is what the others are compared with.

    Raises:
        ForgetlessError: naming the tensors that differ.
    """
    (first, expected), *others = models.items()
    if not expected.layout:
        raise ForgetlessError(f"{first} holds no tensors.")
    for title, found in others:
        kinds = [quoted(each.config.get("model_type")) for each in (found, expected)]
        if found.config and expected.config and kinds[0] != kinds[1]:
            raise ForgetlessError(f"{title} is of another architecture ({kinds[0]}) than {first} ({kinds[1]}).")
        if (what := differing(found.config, expected.config)) is not None:
            raise ForgetlessError(f"{title} is of another architecture than {first}: {what}.")
        missing = [name for name in expected.layout if name not in found.layout]
        extra = [name for name in found.layout if name not in expected.layout]
        shapes = [
            f"{name} {tuple(found.layout[name].shape)} instead of {tuple(each.shape)}"
            for name, each in expected.layout.items()
            if name in found.layout and tuple(found.layout[name].shape) != tuple(each.shape)
        ]
        parts = [
            f"lacks {listing(missing)}" if missing else "",
            f"has {listing(extra)} besides" if extra else "",
            f"differs in shape: {'; '.join(shapes[:4])}{'; …' if len(shapes) > 4 else ''}" if shapes else "",
        ]
        if any(parts):
            raise ForgetlessError(
                f"{title} is of another architecture than {first}: it {', '.join(filter(None, parts))}."
            )
    for title, found in models.items():
        for name, each in found.layout.items():
            refuse_type(name, title, each.dtype, "merged")


def refuse_type(name: str, title: str, dtype: torch.dtype, how: str) -> None:
    """Refuse a type whose numbers cannot be computed with.

    Args:
        name: the tensor's.
        title: whose it is.
        dtype: its type.
        how: what cannot be done then.

    Raises:
        ForgetlessError: it is complex, or floating point of less than 16 bits.
    """
    if dtype.is_complex or (dtype.is_floating_point and dtype not in files.FLOATS):
        raise ForgetlessError(
            f"{quoted(name)} of {title} is {_called(dtype)}, which cannot be {how}; convert it to float32, bfloat16 or "
            "float16 first."
        )


def mixed_types(models: Mapping[str, Mapping[str, files.Layout]]) -> str | None:
    """A clause on the tensors that the models hold in other floating-point types than the first; None without any.

    Args:
        models: what to call each in a sentence → its tensors.
    """
    (first, expected), *others = models.items()
    for title, found in others:
        common = [name for name in expected if name in found and expected[name].dtype.is_floating_point]
        differ = [
            name for name in common if found[name].dtype.is_floating_point and found[name].dtype != expected[name].dtype
        ]
        if differ:
            types = [_called(each[differ[0]].dtype) for each in (found, expected)]
            return (
                f"{title} and {first} hold {len(differ)} of {len(common)} tensors in different types, such as "
                f"{quoted(differ[0])} as {types[0]} and {types[1]}"
            )
    return None


def equal_in_all(models: Mapping[str, Weights], name: str) -> Tensor:
    """An integer tensor, which is not merged.

    Raises:
        ForgetlessError: it is not the same in all models.
    """
    (first, weights), *others = models.items()
    expected = weights.tensor(name)
    for title, found in others:
        other = found.tensor(name)
        if other.dtype != expected.dtype or not torch.equal(other, expected):
            raise ForgetlessError(
                f"{quoted(name)} is {_called(expected.dtype)} and differs between {first} and {title}; only "
                "floating-point tensors are merged, others must be equal in all models."
            )
    return expected


def tied(tensors: Sequence[Mapping[str, Tensor]], first: Collection[str] = ()) -> Callable[[str], str]:
    """A name → the name that stands for the same tensor, where all state dicts hold one tensor under both names.

    Args:
        tensors: the state dicts.
        first: names that stand for the others, such as those that have Ω.
    """

    def place(each: Tensor) -> tuple[object, ...]:
        return (each.data_ptr() if each.numel() else id(each), each.dtype, tuple(each.shape), tuple(each.stride()))

    chosen: dict[tuple[object, ...], str] = {}
    same = {
        name: chosen.setdefault(tuple(place(each[name]) for each in tensors if name in each), name)
        for name in sorted(tensors[0] if tensors else (), key=lambda name: name not in first)
    }
    return lambda name: same.get(name, name)


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

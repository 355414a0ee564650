"""JSON values with types and ranges: a reader says what it expects as a type, and gets that or one sentence."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from forgetless.errors import ForgetlessError, quoted

T = TypeVar("T")


@dataclass(frozen=True)
class Between:
    """A range for a number, or for the length of a text, list or object: `Annotated[int, Between(0, 9)]`."""

    least: float = -math.inf
    most: float = math.inf

    def complaint(self, value: Any) -> str | None:
        """What is wrong with a value of the right type."""
        size = value if isinstance(value, (int, float)) else len(value)
        if self.least <= size <= self.most:  # also refuses NaN
            return None
        what = "" if isinstance(value, (int, float)) else "a length "
        return f"must be {what}from {self.least} to {self.most}"


@dataclass(frozen=True)
class _Addressable:
    def complaint(self, value: tuple[int, ...]) -> str | None:
        return None if math.prod(value) < 1 << 62 else "is the shape of a tensor that no memory holds"


#: A tensor's shape: up to 64 lengths, none negative, of a tensor that could be in memory.
Shape = Annotated[tuple[Annotated[int, Between(0, 2**62)], ...], Between(0, 64), _Addressable()]


def decoded(value: Any, kind: type[T] | Any, where: str | Path) -> T:
    """`value`, checked against the type `kind` and turned into it; nothing is converted silently.

    Args:
        value: what `read_json` gave.
        kind: bool, int (no bool), float (an int is taken too; finite), str, None, `Any`; `Literal[…]`; `list[X]`,
            `tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`, unions of these; a dataclass, whose fields are the keys of
            an object, those with a default optional and no others allowed; `Annotated[X, Between(…)]` and `Shape`.
        where: the file, for a sentence.

    Raises:
        ForgetlessError: naming the first place that does not fit, such as `shapes.weight[1]`.
    """
    return typing.cast(T, _decoded(value, kind, _Place(str(where), "")))


@dataclass(frozen=True)
class _Place:
    where: str
    path: str

    def key(self, name: str) -> _Place:
        shown = name if name.isidentifier() else quoted(name, 40)
        return _Place(self.where, f"{self.path}.{shown}" if self.path else shown)

    def item(self, number: int) -> _Place:
        return _Place(self.where, f"{self.path}[{number}]")

    def wrong(self, must: str, *found: Any) -> ForgetlessError:
        instead = "".join(f", not {quoted(value)}" for value in found)
        return ForgetlessError(f"{self.where} is damaged: {self.path or 'its content'} {must}{instead}.")


_SCALARS: Mapping[Any, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "must be true or false"),
    int: (int, "must be an integer"),
    float: ((int, float), "must be a number"),
    str: (str, "must be text"),
    types.NoneType: (types.NoneType, "must be null"),
}


def _decoded(value: Any, kind: Any, place: _Place) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if kind is None or kind in _SCALARS:
        return _scalar(value, types.NoneType if kind is None else kind, place)
    if origin is Annotated:
        found = _decoded(value, arguments[0], place)
        for rule in arguments[1:]:
            if wrong := rule.complaint(found):
                raise place.wrong(wrong, value)
        return found
    if origin is typing.Literal:
        if any(type(value) is type(each) and value == each for each in arguments):
            return value
        raise place.wrong(f"must be {' or '.join(map(quoted, arguments))}", value)
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, arguments, place)
    if origin in (list, tuple):
        return _items(value, origin, arguments, place)
    if origin is dict:
        if not isinstance(value, dict):
            raise place.wrong("must be an object", value)
        return {_scalar(key, str, place): _decoded(each, arguments[1], place.key(key)) for key, each in value.items()}
    if dataclasses.is_dataclass(kind):
        return _record(value, kind, place)
    raise TypeError(f"no JSON value has the type {kind}")


def _scalar(value: Any, kind: Any, place: _Place) -> Any:
    accepted, must = _SCALARS[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise place.wrong(must, value)
    if kind is float and isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise place.wrong("must be a finite number", value)
        return number
    return value


def _one_of(value: Any, kinds: tuple[Any, ...], place: _Place) -> Any:
    complaints = []
    for kind in kinds:
        try:
            return _decoded(value, kind, place)
        except ForgetlessError as error:
            complaints.append(error)
    raise next(
        (each for each, kind in zip(complaints, kinds, strict=True) if kind is not types.NoneType), complaints[0]
    )


def _items(value: Any, origin: Any, kinds: tuple[Any, ...], place: _Place) -> Any:
    if not isinstance(value, list):
        raise place.wrong("must be a list", value)
    if origin is tuple and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise place.wrong(f"must have {len(kinds)} items", value)
        return tuple(
            _decoded(each, kind, place.item(n)) for n, (each, kind) in enumerate(zip(value, kinds, strict=True))
        )
    return origin(_decoded(each, kinds[0], place.item(number)) for number, each in enumerate(value))


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _record(value: Any, kind: Any, place: _Place) -> Any:
    if not isinstance(value, dict):
        raise place.wrong("must be an object", value)
    fields = {each.name: each for each in dataclasses.fields(kind) if each.init}
    for name in value:
        if name not in fields:
            raise place.wrong(f"has the field {quoted(name)} and may only have {', '.join(fields)}")
    for name, each in fields.items():
        optional = each.default is not dataclasses.MISSING or each.default_factory is not dataclasses.MISSING
        if name not in value and not optional:
            raise place.wrong(f"lacks the field {quoted(name)}")
    return kind(**{name: _decoded(each, _hints(kind)[name], place.key(name)) for name, each in value.items()})

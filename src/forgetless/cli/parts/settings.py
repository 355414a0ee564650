"""An experiment's settings as options of its command."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from forgetless.lab.experiments.parts.settings import Settings


def options(kind: type[Settings]) -> Iterator[inspect.Parameter]:
    """An option for every setting, with its help and its default."""
    from forgetless.lab.experiments.parts.settings import option_name

    hints = typing.get_type_hints(kind)
    for each in dataclasses.fields(kind):
        required = each.default is dataclasses.MISSING
        annotation = list[Path] if hints[each.name] == tuple[Path, ...] else hints[each.name]
        option = typer.Option(option_name(each), help=_help(each), show_default=not required)
        yield inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else each.default,
            annotation=Annotated[annotation, option],
        )


def described(kind: type[Settings]) -> str:
    """The help of the command: what the class says of itself, with examples after the first sentence."""
    first, _, rest = (inspect.getdoc(kind) or "").partition("\n\n")
    command = " ".join(["forgetless run", kind.NAME, *_needed(kind), "--out", "OUT"])
    return f"{first}\n\n```\n{command}\n{command} --seeds 3 --resume\n```\n\n{rest}"


def _needed(kind: type[Settings]) -> Iterator[str]:
    """The options that must be given, each with what stands for its value."""
    from forgetless.lab.experiments.parts.settings import option_name

    for each in dataclasses.fields(kind):
        if each.default is dataclasses.MISSING:
            yield from (option_name(each), (each.metadata["option"] or each.name).upper())


def _help(each: dataclasses.Field[Any]) -> str:
    about = [each.metadata["help"]]
    if each.metadata["choices"]:
        about.append(f"One of: {', '.join(each.metadata['choices'])}.")
    if each.default is None:
        about.append(f"[default: {each.metadata['absent']}]")
    return " ".join(about)

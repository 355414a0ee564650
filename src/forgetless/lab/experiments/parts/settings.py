"""Settings of experiments, a frozen dataclass each: the command's options, the config and the words come from it."""

from __future__ import annotations

import dataclasses
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from forgetless.errors import ForgetlessError
from forgetless.lab.running.experiment import Comparison, Experiment, Suite
from forgetless.learn import methods


def setting(
    default: Any = MISSING,
    *,
    help: str,
    choices: Sequence[str] = (),
    least: int | None = None,
    positive: bool = False,
    absent: str = "",
    place: bool = False,
    shown: bool = True,
    option: str = "",
) -> Any:
    """A field of an experiment's settings.

    Args:
        default: its value where none is given; without one it must be given.
        help: what it is, in a sentence.
        choices: the values that there are.
        least: the least number allowed.
        positive: whether a number must be above 0.
        absent: what None means.
        place: whether it says where something is, or is computed, and not what: it is no part of the config, and of a
            path only the last name is shown.
        shown: whether the command that repeats a run has it.
        option: its name on the command line, where that is another.
    """
    about = {"help": help, "choices": tuple(choices), "least": least, "positive": positive, "absent": absent}
    return field(default=default, metadata={**about, "place": place, "shown": shown, "option": option})


@dataclass(frozen=True, kw_only=True)
class Settings(ABC):
    """The settings of an experiment.

    Attributes:
        NAME: what the experiment is called on the command line.

    Raises:
        ForgetlessError: a value that is not allowed.
    """

    NAME: ClassVar[str]

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            if (value := getattr(self, each.name)) is not None:
                _refuse(each, value)

    def refuse_methods(self, names: Sequence[str]) -> None:
        """Refuse methods that there are not, before data are read.

        Raises:
            ForgetlessError: naming the ones that there are.
        """
        for name in names:
            methods.create(name)

    @abstractmethod
    def build(self) -> Experiment | Suite | Comparison:
        """The experiment, with its data read.

        Raises:
            ForgetlessError: data, a network or a package is missing or damaged.
        """

    def described(self, **more: Any) -> dict[str, Any]:
        """The `config` and the `arguments` of an `Experiment` with these settings; `more` is added to the config."""
        return {"config": {"options": self.options(), **more}, "arguments": self.words(public=True)}

    def options(self) -> dict[str, Any]:
        """All that defines the experiment, JSON-able: every setting that is no place."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if not each.metadata["place"]}

    def words(self, *, public: bool = False) -> list[str]:
        """The words after `forgetless run NAME` that give these settings.

        Args:
            public: for others to read: without settings that change no result, and with the last name of a path only.
        """
        found: list[str] = []
        for each in dataclasses.fields(self):
            value, option = getattr(self, each.name), option_name(each)
            if value is None or value is False or (public and not each.metadata["shown"]):
                continue
            for one in value if isinstance(value, tuple) else (value,):
                shown = one.resolve().name if public and isinstance(one, Path) else str(one)
                found += [option] if one is True else [option, shown]
        return found


def option_name(each: dataclasses.Field[Any]) -> str:
    """A field's option on the command line."""
    return "--" + (each.metadata["option"] or each.name).replace("_", "-")


def with_paths(kind: type[Settings], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with a path wherever the settings have one; it may be given as text, and several in any sequence."""
    hints = typing.get_type_hints(kind)

    def converted(value: Any, hint: Any) -> Any:
        if value is not None and hint in (Path, Path | None):
            return Path(value)
        return tuple(map(Path, value)) if hint == tuple[Path, ...] else value

    return {name: converted(value, hints[name]) for name, value in options.items()}


def _refuse(each: dataclasses.Field[Any], value: Any) -> None:
    choices, least = each.metadata["choices"], each.metadata["least"]
    if choices and value not in choices:
        shown = [repr(choice) for choice in choices]
        raise ForgetlessError(f"{each.name} must be {', '.join(shown[:-1])} or {shown[-1]}, not {value!r}.")
    if least is not None and not value >= least:
        raise ForgetlessError(f"{each.name} must be at least {least}, not {value}.")
    if each.metadata["positive"] and not value > 0:
        raise ForgetlessError(f"{each.name} must be above 0, not {value}.")

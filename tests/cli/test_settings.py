"""Every experiment's settings: to words and back by the command line, with help for each."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command
from forgetless.cli.run import _command
from forgetless.errors import ForgetlessError
from forgetless.lab.experiments import EXPERIMENTS, create
from forgetless.lab.experiments.parts.settings import Settings, option_name


def parsed(kind: type[Settings], words: list[str]) -> Settings:
    """What the command line makes of the words."""
    command = _command(kind.NAME, kind)
    given = command.make_context(kind.NAME, [*words, "--out", "runs/x"]).params
    return create(kind.NAME, **{each.name: given[each.name] for each in dataclasses.fields(kind)})


def another(each: dataclasses.Field[Any], hint: Any) -> Any:
    """A value of a setting that is not its default."""
    if hint == tuple[Path, ...]:
        return (Path("a b/one"), Path("two"))
    if hint in (Path, Path | None):
        return Path("some where/else")
    if hint is bool:
        return True
    if each.metadata["choices"]:
        return next(choice for choice in each.metadata["choices"] if choice != each.default)
    return {str: "cuda:1", int: 17, int | None: 17, float: 0.0123, float | None: 0.0123}[hint]


def required(kind: type[Settings]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return {each.name: another(each, hints[each.name]) for each in fields if each.default is dataclasses.MISSING}


@pytest.mark.parametrize("kind", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_settings_become_words_and_the_command_line_makes_the_same_of_them(kind: type[Settings]) -> None:
    hints = typing.get_type_hints(kind)
    assert parsed(kind, kind(**required(kind)).words()) == kind(**required(kind))
    every = kind(**{each.name: another(each, hints[each.name]) for each in dataclasses.fields(kind)})
    assert parsed(kind, every.words()) == every
    for each in dataclasses.fields(kind):
        one = kind(**{**required(kind), each.name: another(each, hints[each.name])})
        assert parsed(kind, one.words()) == one


@pytest.mark.parametrize("kind", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_setting_has_help_and_shows_its_default(
    kind: type[Settings], forgetless: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    text = forgetless("run", kind.NAME, "--help").stdout
    shown = " ".join(text.replace("│", " ").split())
    for each in dataclasses.fields(kind):
        assert each.metadata["help"].endswith("."), each.name
        line = shown.partition(f" {option_name(each)} <")[2].partition(" --")[0]
        assert each.metadata["help"].replace("`", "")[:40] in line
        if each.default is None:
            assert f"[default: {each.metadata['absent']}]" in line
        elif each.default not in (dataclasses.MISSING, False, ()):
            assert f"[default: {each.default}]" in line
    assert kind.__doc__
    assert kind.__doc__.splitlines()[0] in text


@pytest.mark.parametrize("kind", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_the_public_words_and_the_config_tell_no_place(kind: type[Settings]) -> None:
    hints = typing.get_type_hints(kind)
    every = kind(**{each.name: another(each, hints[each.name]) for each in dataclasses.fields(kind)})
    assert not any("/" in word for word in every.words(public=True))
    assert "--cache" not in every.words(public=True)
    text = json.dumps(every.options())
    assert "else" not in text
    assert "one" not in text


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("split-mnist", {"scenario": "tasks"}, "scenario must be 'task', 'domain', 'class' or 'all', not 'tasks'."),
        ("eight-tasks", {"data": "x", "epochs": 0}, "epochs must be at least 1, not 0."),
        ("eight-tasks", {"data": "x", "lr": float("nan")}, "lr must be above 0, not nan."),
        ("eight-tasks", {}, "the experiment 'eight-tasks' needs 'data'."),
        ("demo", {"size": 3}, "the experiment 'demo' has no option 'size'; it has none."),
    ],
)
def test_values_that_are_not_allowed(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        create(name, **options)
    assert str(caught.value) == sentence

"""What holds for every command: help with examples that parse, `--json`, errors on stderr, and the exit codes."""

from __future__ import annotations

import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.conftest import Command
from forgetless.cli import app
from forgetless.cli.data import app as data
from forgetless.cli.parts.output import EXIT_CODES
from forgetless.lab.experiments import EXPERIMENTS

Path = tuple[str, ...]
ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def walk(command: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every command by the words that name it, groups too."""
    yield path, command
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from walk(command.get_command(None, name), (*path, name))


COMMANDS = dict(walk(typer.main.get_command(app)))
LEAVES = {path: command for path, command in COMMANDS.items() if not hasattr(command, "list_commands")}
#: What each command refuses with a sentence, however little is there; None for one that refuses nothing.
REFUSED: dict[Path, str | None] = {
    ("ask",): "nowhere --image x.png",
    ("doctor",): None,
    ("learn",): "nothing --new x --out o",
    ("measure",): "nothing --data x --out o.safetensors",
    ("merge",): "nowhere --out o",
    ("merge-importances",): "nowhere --out o.safetensors",
    ("repair",): "nowhere nowhere --out o",
    ("report",): "nowhere",
    ("verify",): "nothing",
    ("watch",): "nowhere",
    ("write",): "nowhere --prompt x",
    ("data", "list"): None,
    ("data", "where"): "nothing",
    ("data", "check"): "nothing",
    ("data", "fetch"): "nothing",
}


def examples(command: Any) -> list[str]:
    """The examples in a command's help, which come after its first sentence."""
    found = re.match(r"[^\n]+(?:\n[^\n]+)*\n\n```\n(.*?)\n```(\n|$)", command.help or "", re.DOTALL)
    return found[1].splitlines() if found else []


def named(path: Path) -> str:
    return " ".join(path) or "forgetless"


every = pytest.mark.parametrize("path", COMMANDS, ids=named)
leaf = pytest.mark.parametrize("path", LEAVES, ids=named)


@every
def test_help_begins_with_examples(path: Path, forgetless: Command) -> None:
    done = forgetless(*path, "--help")
    assert (done.exit_code, done.stderr) == (0, "")
    shown, _, options = done.stdout.partition("Options")
    assert "--help" in options
    assert shown.count(" ".join(["forgetless", *path])) >= 1


@every
def test_examples_are_commands_that_there_are(path: Path) -> None:
    found = examples(COMMANDS[path])
    assert found
    assert [line for line in found if len(line) > 76] == []  # on a terminal of 80 columns they are not broken
    for line in found:
        first, *words = shlex.split(line.partition(" > ")[0])
        assert first == "forgetless"
        longest = max((each for each in COMMANDS if tuple(words[: len(each)]) == each), key=len)
        assert longest[: len(path)] == path
        if "--help" not in words:
            COMMANDS[longest].make_context(named(longest), words[len(longest) :])  # refuses what it does not know


@leaf
def test_results_can_be_had_as_json(path: Path) -> None:
    assert any("--json" in option.opts for option in LEAVES[path].params)


@leaf
def test_an_unknown_option(path: Path, forgetless: Command) -> None:
    done = forgetless(*path, "--no-such-option")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--no-such-option" in done.stderr


def test_every_command_says_what_it_refuses() -> None:
    assert {path for path in LEAVES if path[0] != "run"} == REFUSED.keys()
    assert {path[1] for path in LEAVES if path[0] == "run"} == EXPERIMENTS.keys()


def test_the_exit_codes_are_documented(forgetless: Command) -> None:
    shown = " ".join(forgetless("--help").stdout.split())
    assert EXIT_CODES in shown
    assert all(code in EXIT_CODES for code in ("0 done", "1 what", "2 what", "130 stopped", "141 the reader"))


@leaf
def test_what_cannot_be_done_is_a_sentence_and_exit_code_2(path: Path, forgetless: Command, tmp_path: Any) -> None:
    words = REFUSED.get(path, "")
    if path[0] == "run":
        needed = [option.opts[0] for option in LEAVES[path].params if option.required and "--out" not in option.opts]
        words = " ".join([*(f"{option} nowhere" for option in needed), "--out o --method magic"])
    if words is None:
        pytest.skip("it refuses nothing")
    done = forgetless(*path, *shlex.split(words))
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert re.fullmatch(r"forgetless: [^\n]+\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", [app, data], ids=["forgetless", "data"])
def test_ctrl_c_is_exit_code_130(host: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert host.registered_commands
    before = ["data"] if host is data else []
    for each in host.registered_commands:
        name = each.name or each.callback.__name__  # type: ignore[union-attr]
        with monkeypatch.context() as patch:
            patch.setattr(each, "callback", stopped)
            patch.setattr(each, "name", name)
            done = CliRunner().invoke(app, [*before, name])
        assert (done.exit_code, done.stdout) == (130, ""), name


def test_a_command_without_examples_is_seen() -> None:
    made = typer.Typer()

    @made.command()
    def bare() -> None:
        """Do something.

        And nothing else.
        """

    assert examples(typer.main.get_command(made)) == []


@pytest.mark.filterwarnings("default")
def test_a_warning_is_told_in_the_name_of_who_gives_it(forgetless: Command, tmp_path: Any) -> None:
    (tmp_path / "loud_of_the_test.py").write_text(
        "import warnings\n\ndef made():\n    warnings.warn('is old', FutureWarning, stacklevel=2)\n    return 1\n"
    )
    done = forgetless("verify", "loud_of_the_test:made")
    assert done.stderr.splitlines()[0] == "loud_of_the_test: is old"


def commands_in(page: pathlib.Path) -> Iterator[str]:
    """The commands in a page's blocks of code, each on one line and without its comment."""
    text = re.sub(r" *\\\n\s*", " ", page.read_text(encoding="utf-8"))
    for line in re.findall(r"^(?: {4,}|\$ |    \$ )?(forgetless .*)$", text, re.MULTILINE):
        yield re.split(r"\s#\s|\s[>|&]", line)[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_pages_are_those_of_the_commands(page: pathlib.Path) -> None:
    unknown = []
    for line in commands_in(page):
        words = line.split()[1:]
        longest = max((each for each in COMMANDS if tuple(words[: len(each)]) == each), key=len)
        known = {name for option in COMMANDS[longest].params for name in option.opts + option.secondary_opts}
        known |= {"--help", "--version", "--install-completion", "--show-completion"}
        unknown += [f"{line}: {word}" for word in words if re.match(r"--\w", word) and word.split("=")[0] not in known]
    assert unknown == []

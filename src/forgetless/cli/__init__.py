"""The command line: `forgetless run`, `ask`, `learn`, `measure`, `merge`, `repair`, `verify`, `report`, `data`,
`doctor`, `watch` and `write`, a file each.

`forgetless.cli.parts.output` says what the exit codes mean. Modules that cost time to load are imported inside the
commands, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from itertools import dropwhile
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forgetless import __version__
from forgetless.cli.ask import ask
from forgetless.cli.data import app as data
from forgetless.cli.doctor import doctor
from forgetless.cli.learn import learn
from forgetless.cli.measure import measure
from forgetless.cli.merge import merge
from forgetless.cli.merge_importances import merge_importances
from forgetless.cli.parts.output import EXIT_CODES
from forgetless.cli.repair import repair
from forgetless.cli.report import report
from forgetless.cli.run import app as run
from forgetless.cli.verify import verify
from forgetless.cli.watch import watch
from forgetless.cli.write import write
from forgetless.errors import ForgetlessError

_WARNINGS = ("warnings", "_py_warnings")  # the modules that hand a warning on


class _Guarded(TyperGroup):
    """Turns what a command raises into a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        warnings.showwarning = _warn
        try:
            return super().invoke(ctx)
        except ForgetlessError as error:
            typer.echo(f"forgetless: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error
        except (BrokenPipeError, SystemExit) as error:
            if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
                raise  # else it is rich's answer to a closed pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left has no reader
            raise typer.Exit(141) from error


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """Print a warning after the name of the package that gives it."""
    names: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names.append(str(frame.f_globals.get("__name__")).partition(".")[0])
        frame = frame.f_back
    outside = dropwhile(lambda name: name not in _WARNINGS, names)  # what called this, and then what called them
    package = next((name for name in outside if name not in _WARNINGS), "forgetless")
    typer.echo(f"{package}: {message}", err=True)


app = typer.Typer(
    cls=_Guarded,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(run, name="run")
app.add_typer(data, name="data")
app.command("ask")(ask)
app.command("doctor")(doctor)
app.command("learn")(learn)
app.command("measure")(measure)
app.command("merge")(merge)
app.command("merge-importances")(merge_importances)
app.command("repair")(repair)
app.command("report")(report)
app.command("verify")(verify)
app.command("watch")(watch)
app.command("write")(write)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Teach a trained PyTorch network something new without losing what it has learned.

    ```
    forgetless doctor
    forgetless run demo --out runs/demo
    forgetless learn hf:MODEL --new new.csv --like-old old.csv --out taught
    forgetless measure --help
    ```
    """


def main() -> None:
    """Run the command line on `sys.argv`."""
    sys.exit(app())

"""What every command shares: results as JSON on the standard output, and what the exit codes mean."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

#: The option that every command has.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

#: The option of what can log its figures.
Log = Annotated[
    list[str] | None,
    typer.Option(help="Also log its figures to csv, tensorboard, wandb or trackio; repeat it for several."),
]

#: What a script may rely on; at the foot of `forgetless --help`.
EXIT_CODES = (
    "Exit codes: 0 done; 1 what was checked does not hold (verify, doctor); 2 what was asked cannot be done, and one "
    "sentence on stderr says why; 130 stopped with Ctrl-C; 141 the reader of stdout has closed it. Results go to "
    "stdout, progress and messages to stderr."
)


def print_json(found: Any) -> None:
    """Print what was found as JSON on the standard output."""
    typer.echo(json.dumps(found, indent=2))

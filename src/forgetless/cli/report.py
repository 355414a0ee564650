"""`forgetless report RUN`: the table and the page of a run again, from its results alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A run directory, or a results.json.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of the table.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the command and the table as Markdown instead.")
    ] = False,
) -> None:
    """Show the results of a run as a table and write its page, report.html, anew; Markdown is only printed.

    Runs of `forgetless run long-text` have no page: their table is Markdown.
    """
    from rich.console import Console

    from forgetless.lab import results
    from forgetless.lab.long_text import results as of_texts
    from forgetless.lab.report import markdown, page, table

    if of_texts.held_in(run):
        told = of_texts.read(run)
        typer.echo(json.dumps(told, indent=2) if as_json else of_texts.table(told))
        return
    found = results.read(run)
    shown = table(found)
    if as_markdown:
        typer.echo(markdown(found), nl=False)
        return
    target = (run if run.is_dir() else run.parent) / "report.html"
    page(found, target)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    Console().print(shown)
    typer.echo(f"\npage: {target}")

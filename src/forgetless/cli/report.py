"""`forgetless report RUN…`: the table and the page of runs again, from their results alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from forgetless.cli.parts.output import AsJson, print_json
from forgetless.errors import ForgetlessError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="A run directory or a results.json; several are shown as one.", show_default=False
        ),
    ],
    page: Annotated[
        Path | None, typer.Option("--page", help="Where to write the page. [default: report.html beside one RUN]")
    ] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the command and the table as Markdown instead.")
    ] = False,
) -> None:
    """Show the results of runs as a table and write their page anew; Markdown is only printed.

    ```
    forgetless report runs/demo
    forgetless report runs/weak runs/middle runs/strong --page frontier.html
    ```

    Several runs of one experiment over the same tasks are shown as one: name those of one method with several strengths
    to see what a strength trades. A run of `forgetless run long-text` is shown alone.
    """
    from rich.console import Console

    from forgetless.lab import results, traces
    from forgetless.lab.long_text import results as of_texts
    from forgetless.lab.report import markdown, table
    from forgetless.lab.report import page as written

    if of_texts.held_in(runs[0]):
        if len(runs) > 1:
            raise ForgetlessError(f"{runs[0]} is a run of long-text, which is shown alone: name one RUN.")
        _show_texts(runs[0], page, as_json, as_markdown)
        return
    every: dict[str, dict[str, Any]] = {str(run): results.read(run) for run in runs}
    found = results.joined(every) if len(every) > 1 else every[str(runs[0])]
    shown = table(found)
    if as_markdown:
        typer.echo(markdown(found), nl=False)
        return
    folder = runs[0] if runs[0].is_dir() else runs[0].parent
    target = page or (folder / "report.html" if len(every) == 1 else None)
    if target is not None:
        written(found, target, traces.read(folder, found["runs"]) if len(every) == 1 else None)
    if as_json:
        print_json(found)
        return
    Console().print(shown)
    if target is not None:
        typer.echo(f"\npage: {target}")


def _show_texts(run: Path, page: Path | None, as_json: bool, as_markdown: bool) -> None:
    """The table of language models, and their page."""
    from forgetless.lab.long_text.page import page as written
    from forgetless.lab.long_text.results import read, table

    found = read(run)
    if not as_markdown:
        target = page or (run if run.is_dir() else run.parent) / "report.html"
        written(found, target)
    typer.echo(json.dumps(found, indent=2) if as_json else table(found))
    if not as_json and not as_markdown:
        typer.echo(f"\npage: {target}")

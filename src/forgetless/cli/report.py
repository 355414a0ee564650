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
            metavar="RUN...",
            help="A run directory or a results.json; several are shown as one.",
            show_default=False,
        ),
    ],
    page: Annotated[
        Path | None, typer.Option("--page", help="Where to write the page. [default: report.html beside one RUN]")
    ] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the command and the table as Markdown instead.")
    ] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print the table as LaTeX instead.")] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="The method whose differences from every other are shown. [default: mas, else the first]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the results of runs as a table and write their page anew; Markdown and LaTeX are only printed.

    ```
    forgetless report runs/demo
    forgetless report runs/demo --compare ewc
    forgetless report runs/demo --latex > table.tex
    forgetless report runs/weak runs/middle runs/strong --page frontier.html
    ```

    Several runs of one experiment over the same tasks are shown as one: name those of one method with several strengths
    to see what a strength trades. A run of `forgetless run long-text` is shown alone, and so is one of several parts
    (`split-mnist`): the directory gives the table that the run ended with, beside published figures where there are
    any; the folder of a part in it gives the tasks of that part, and its page.

    With two seeds or more, one method is also compared with every other on the same seeds: its mean difference and the
    95 % confidence interval of each (Student's, paired; not corrected for how many are compared; needs scipy).

    `--json` prints the results with what the table shows of each method, as shares: mean and standard deviation of
    `learning_accuracy`, `average_accuracy` and `forgetting_mas`, and the differences (`compared`).
    """
    from rich.console import Console

    from forgetless.lab import experiments, results, traces
    from forgetless.lab.long_text import results as of_texts
    from forgetless.lab.report import latex, markdown, table
    from forgetless.lab.report import page as written

    if as_json + as_markdown + as_latex > 1:
        raise ForgetlessError("--json, --markdown and --latex are three forms of the same; name one of them.")
    if len(runs) == 1 and (parts := results.parts(runs[0])):
        if as_latex or compare is not None:
            raise ForgetlessError(f"--latex and --compare are for one part of {runs[0]}: name its folder in there.")
        _show_parts(runs[0], parts, page, as_json)
        return
    if of_texts.held_in(runs[0]):
        if len(runs) > 1:
            raise ForgetlessError(f"{runs[0]} is a run of long-text, which is shown alone: name one RUN.")
        if as_latex or compare is not None:
            raise ForgetlessError(f"--latex and --compare do not take runs of long-text, such as {runs[0]}.")
        _show_texts(runs[0], page, as_json, as_markdown)
        return
    every: dict[str, dict[str, Any]] = {str(run): results.read(run) for run in runs}
    found = results.joined(every) if len(every) > 1 else every[str(runs[0])]
    if as_markdown or as_latex:
        typer.echo((latex if as_latex else markdown)(found, compare), nl=False)
        return
    shown = table(found, compare)
    folder = runs[0] if runs[0].is_dir() else runs[0].parent
    target = page or (folder / "report.html" if len(every) == 1 else None)
    if target is not None:
        written(found, target, traces.read(folder, found["runs"]) if len(every) == 1 else None, compare)
    if as_json:
        print_json(results.with_derived(found, compare))
        return
    Console().print(shown)
    if target is not None:
        typer.echo(f"\npage: {target}")
    if len(runs) == 1 and found["experiment"] in experiments.TABLES and results.parts(folder.parent):
        typer.echo(f"all parts, with published figures where there are any: forgetless report {folder.parent}")


def _show_parts(run: Path, parts: dict[str, dict[str, Any]], page: Path | None, as_json: bool) -> None:
    """The table of an experiment that has several parts, as its run showed it."""
    from forgetless.lab import experiments, results
    from forgetless.model.parameters import listing

    names = {content["experiment"] for content in parts.values()}
    table = experiments.TABLES.get(names.pop()) if len(names) == 1 else None
    folders = listing((str(run / folder) for folder in parts), most=99)
    if table is None:
        raise ForgetlessError(f"{run} holds several runs; name one or more of {folders}.")
    if page is not None:
        raise ForgetlessError(f"a page is of one part of {run}; name one of {folders}.")
    if as_json:
        print_json({folder: results.with_derived(found) for folder, found in parts.items()})
        return
    typer.echo(table(parts))


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

"""The tables of docs/merging.md, from the committed runs.

    python -m studies.merging

`studies.merging_vision` and `studies.merging_language` run what they hold.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from forgetless import files
from forgetless.edit.merging import METHODS
from forgetless.errors import ForgetlessError
from studies import blocks, merging_language, merging_vision

ROOT, PAGE = Path("results/merging"), Path("docs/merging.md")


def methods() -> str:
    """Markdown: every method with its formula, settings and paper."""
    signs = {"scale": "λ", "alpha": "α"}
    lines = ["| method | formula | settings, with defaults | paper |", "|---|---|---|---|"]
    for each in METHODS.values():
        own = ["weights 1"] if each.models is None else []
        own += [f"{signs.get(name, name)} {_plain(value)}" for name, value in each.defaults.items()]
        own += ["importances scaled by their mean"] if each.estimators else []
        lines.append(f"| `{each.name}` | {each.formula} | {', '.join(own)} | {each.paper} |")
    return "\n".join(lines)


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def write(root: Path, page: Path) -> None:
    """Put the tables into the page.

    Args:
        root: the folder of results on merging.
        page: the page.

    Raises:
        ForgetlessError: results are missing or damaged, or the page lacks a place for a table.
    """
    blocks.inserted(page, "merging methods", methods())
    for count in merging_vision.COUNTS:
        found = files.read_sealed(root / merging_vision.named(count))
        blocks.inserted(page, f"merging {count}", merging_vision.table(found))
    found = files.read_sealed(root / merging_language.OUT.name)
    blocks.inserted(page, "merging language", merging_language.table(found))


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.merging", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT, help="the folder of results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that takes the tables")
    options = parser.parse_args(words)
    try:
        write(options.results, options.page)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

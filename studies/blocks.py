"""Generated blocks of Markdown pages: what stands between `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

import re
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.report import markdown

_REPORT = re.compile(r"(<!-- forgetless report (\S+) --markdown -->\n).*?(<!-- end of report -->)", re.DOTALL)


def inserted(page: Path, name: str, text: str) -> None:
    """Replace the block of that name in a page.

    Raises:
        ForgetlessError: there is no such page, or no such block in it.
    """
    if not page.is_file():
        raise ForgetlessError(f"{page} is no file; name the page that takes {name!r}.")
    before, mark, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not mark or not end:
        raise ForgetlessError(f"{page} has no place for {name!r}.")
    files.write_text(page, f"{before}{mark}{text}\n{end}{after}")


def reported(page: Path, root: Path) -> None:
    """Replace every block that a command `forgetless report PATH --markdown` makes; paths are below `root`.

    Raises:
        ForgetlessError: results that a block names are missing or damaged.
    """

    def made(found: re.Match[str]) -> str:
        return found[1] + markdown(results.read(root / found[2])) + found[3]

    files.write_text(page, _REPORT.sub(made, page.read_text(encoding="utf-8")))

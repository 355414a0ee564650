"""Generated blocks of Markdown pages: what stands between `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.report import markdown

_WIDTH = 120
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


def wrapped(text: str) -> str:
    """Markdown with its long paragraphs and bullets wrapped; tables, headings, figures and code stay as they are."""
    lines, code = list[str](), False
    for line in text.split("\n"):
        code ^= line.startswith("```")
        if code or len(line) <= _WIDTH or line.startswith(("|", "#", "!", "Not run yet")):
            lines.append(line)
            continue
        whole = re.sub("`[^`]*`", lambda span: span[0].replace(" ", "\0"), line)  # no break inside inline code
        indent = "  " if line.startswith("- ") else ""
        lines += [part.replace("\0", " ") for part in _parts(whole, indent)]
    return "\n".join(lines)


def console(*commands: str) -> Iterator[str]:
    """A block of commands, with a backslash where one goes on in the next line."""
    yield "```console"
    for command in commands:
        joined = re.sub(r"(--\S+) (?!--)", "\\1\0", command)  # an option and its value stay together
        yield " \\\n".join(_parts(f"$ {joined}", "    ", _WIDTH - 2)).replace("\0", " ")
    yield from ("```", "")


def _parts(line: str, indent: str, width: int = _WIDTH) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)

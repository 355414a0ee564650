"""Tutorials are scripts with cells (`# %%`): run, with what they print and draw, they become pages of the site.

    python scripts/tutorials.py tutorials/which_strength.py build/tutorials/which_strength

writes `page.md` and its pictures. A cell is Python, `# %% [markdown]` is text, code of a `# %% [draw]` is folded away
below its picture, and a `# %% [check]` is run but not shown: it holds what the text says against what came out. A
picture's `num=` is what is read out to those who cannot see it.
Links lead to files of the repository, so that they work there and on the site.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import io
import os
import re
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 180  # of processor time
_HEAD = re.compile(r"^# %%(?: \[(markdown|draw|check)\])?$", re.MULTILINE)
_LINK = re.compile(r"\]\((?:\.\./docs/([^)]+\.md[^)]*)|(\w+)\.py)\)")


class Cell(NamedTuple):
    """A part of a tutorial: "code", "markdown", "draw" or "check"; its text; the number of its first line, from 0."""

    kind: str
    text: str
    line: int


def cells(source: str) -> Iterator[Cell]:
    """The cells of a script; what stands before the first is its docstring."""
    heads = list(_HEAD.finditer(source))
    for head, end in zip(heads, [*(each.start() for each in heads[1:]), len(source)], strict=True):
        text = source[head.end() : end].strip("\n")
        if head[1] == "markdown":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
            text = _LINK.sub(lambda link: f"](../{link[1]})" if link[1] else f"]({link[2]}.md)", text)
        yield Cell(head[1] or "code", text, source.count("\n", 0, head.end()) + 1)


def page(script: Path, folder: Path) -> str:
    """Run a tutorial and write its pictures; gives its page.

    Raises:
        Exception: what a cell raises; a check that does not hold; a picture without a text in its place.
    """
    parts, variables = [], {"__name__": "__main__"}
    for cell in cells(script.read_text(encoding="utf-8")):
        if cell.kind == "markdown":
            parts.append(cell.text)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * cell.line + cell.text, str(script), "exec"), variables)
        if cell.kind == "check":
            continue
        code = f"```python\n{cell.text.strip()}\n```"
        if cell.kind == "draw":
            folded = '??? note "The code of this picture"\n' + textwrap.indent(code, "    ")
            parts += [*_pictures(folder, script.stem), folded]
            continue
        parts.append(code)
        if printed.getvalue():
            parts.append(f'```text title="Output"\n{printed.getvalue().rstrip()}\n```')
        parts += _pictures(folder, script.stem)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    if seconds > MOST_SECONDS:
        raise SystemExit(f"{script} took {seconds:.0f} s of processor time; a tutorial may take {MOST_SECONDS}.")
    parts.append(
        f"---\n\nEverything on this page was computed when the site was built, in {seconds:.0f} seconds of processor "
        f"time, by `python tutorials/{script.name}`."
    )
    return "\n\n".join(parts) + "\n"


def _pictures(folder: Path, stem: str) -> Iterator[str]:
    """Write what was drawn since the last cell."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    from matplotlib import pyplot

    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        if not figure.get_label():
            raise ValueError("a picture says what it shows: pyplot.subplots(…, num='Accuracy of …').")
        name = f"{stem}-{len(list(folder.glob('*.svg'))) + 1}.svg"
        figure.savefig(folder / name, bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
        yield f"![{figure.get_label()}]({name})"


def built(folder: Path) -> Mapping[str, Path]:
    """Run every tutorial that has changed, or whose library has; two at a time, a thread each.

    Args:
        folder: where pages and pictures are kept.

    Returns:
        Tutorial → its folder.

    Raises:
        RuntimeError: one failed; with what it said.
    """
    scripts = sorted((ROOT / "tutorials").glob("*.py"))
    library = sorted([*(ROOT / "src" / "forgetless").rglob("*.py"), Path(__file__)])
    known = hashlib.sha256(b"".join(path.read_bytes() for path in library))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(pool.map(lambda script: (script.stem, _built(script, folder / script.stem, known.copy())), scripts))


def _built(script: Path, folder: Path, known: hashlib._Hash) -> Path:
    known.update(script.read_bytes())
    mark = folder / "made-of"
    if mark.exists() and mark.read_text() == known.hexdigest():
        return folder
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, __file__, str(script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the tutorial {script.name} failed:\n{done.stderr}")
    mark.write_text(known.hexdigest())
    return folder


def main(script: Path, folder: Path) -> None:
    """Run one tutorial and write its page and pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    with contextlib.suppress(ImportError):
        import matplotlib

        looks = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9.0, "svg.hashsalt": script.stem}
        matplotlib.rcParams.update(looks)
    (folder / "page.md").write_text(page(script, folder), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

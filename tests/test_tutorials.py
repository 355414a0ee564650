"""Tutorials as pages: how they are cut, run and shown. They themselves are run by `make docs`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNNER = ROOT / "scripts" / "tutorials.py"
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))

SMALL = '''"""A tutorial."""

# %% [markdown]
# # Title
#
# See [the other](other.py) and [the guide](../docs/strength.md#limits).

# %%
x = 2
print(x + 1)

# %% [check]
assert x == 2
'''


def made(tmp_path: Path, source: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "small.py").write_text(source)
    words = [sys.executable, RUNNER, tmp_path / "small.py", tmp_path / "out"]
    return subprocess.run(words, capture_output=True, text=True)


def test_a_tutorial_becomes_a_page(tmp_path: Path) -> None:
    done = made(tmp_path, SMALL)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "page.md").read_text()
    links = "See [the other](other.md) and [the guide](../strength.md#limits)."
    cell = '```python\nx = 2\nprint(x + 1)\n```\n\n```text title="Output"\n3\n```'
    assert page.startswith(f"# Title\n\n{links}\n\n{cell}\n\n---\n")
    assert "assert" not in page


def test_a_picture_is_drawn_and_says_what_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = SMALL.replace("print(x + 1)", "import matplotlib.pyplot as plt\nplt.subplots(num='A frame')")
    assert made(tmp_path, drawn).returncode == 0
    assert "![A frame](small-1.svg)" in (tmp_path / "out" / "page.md").read_text()
    assert "<svg" in (tmp_path / "out" / "small-1.svg").read_text()
    silent = made(tmp_path, drawn.replace("num='A frame'", ""))
    assert silent.returncode != 0
    assert "a picture says what it shows" in silent.stderr


def test_a_check_that_does_not_hold_names_its_line(tmp_path: Path) -> None:
    done = made(tmp_path, SMALL.replace("assert x == 2", "assert x == 3"))
    assert done.returncode != 0
    assert 'small.py", line 13' in done.stderr
    assert not (tmp_path / "out" / "page.md").exists()


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_a_tutorial_has_a_title_a_check_and_says_where_it_does_not_help(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    assert f"python tutorials/{script.name}" in str(ast.get_docstring(ast.parse(source)))
    assert source.split("# %% [markdown]\n")[1].startswith("# # ")
    assert "# %% [check]\n" in source
    assert "not help" in source
    assert "shared" not in source


def test_there_are_some() -> None:
    assert len(TUTORIALS) >= 6

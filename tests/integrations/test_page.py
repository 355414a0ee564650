"""Every claim of docs/trainers.md leads to a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^(\d+)\. `(tests/[\w/.]+::\w+)`$", page, re.MULTILINE))
    asked = {number for each in re.findall(r"\((\d+(?:, \d+)*)\)", page) for number in each.split(", ")}
    assert asked == named.keys()
    for place in named.values():
        path, _, name = place.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}, place

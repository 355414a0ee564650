"""Pages say what their commands print, and lead to pages that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from forgetless.lab.report import markdown

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_SECTION = re.compile(r"<!-- forgetless report (\S+) --markdown -->\n(.*?)<!-- end -->\n", re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")

SECTIONS = [(page, path, text) for page in PAGES for path, text in _SECTION.findall(page.read_text(encoding="utf-8"))]


def test_there_are_sections_to_check() -> None:
    assert {path for _, path, _ in SECTIONS} >= {"docs/results/demo.json", "docs/results/sequence.json"}


@pytest.mark.parametrize(("page", "path", "text"), SECTIONS, ids=[f"{page.name}: {path}" for page, path, _ in SECTIONS])
def test_a_table_is_what_its_command_prints(page: Path, path: str, text: str) -> None:
    assert text == markdown(json.loads((ROOT / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert lost == []

"""Pages lead to pages that are there. What is generated in them is compared in tests/studies/test_pages.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import forgetless
from optimizers import ENDING, OTHERS
from problems import PROBLEMS
from refused import REFUSED_DATA, REFUSED_MODELS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "tutorials").glob("*.py")),
]
_LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


def anchors(page: Path) -> set[str]:
    """The anchors that headings of a page have, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":  # a tutorial: its text stands in comments
        text = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for link, anchor in _LINK.findall(text):
        if "://" in link:
            continue
        target = page.parent / link if link else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}#{anchor}"


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    named = set(re.findall(r"^::: forgetless\.(?:measure\.|learn\.)?(\w+)$", text, re.MULTILINE))
    assert set(forgetless.__all__) <= named


def test_every_page_has_its_place_on_the_site() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    tutorials = {f"tutorials/{script.stem}.md" for script in (ROOT / "tutorials").glob("*.py")}
    assert pages | tutorials | {"changelog.md", "contributing.md", "security.md"} == listed


def test_the_page_of_exactness_has_a_line_for_every_problem_optimizer_and_refusal() -> None:
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs" / "exactness.md").read_text(encoding="utf-8"), re.MULTILINE)
    refused = [f"{what}: {name}" for what, each in (("model", REFUSED_MODELS), ("data", REFUSED_DATA)) for name in each]
    expected = [*(problem.name for problem in PROBLEMS), *map(str, ENDING), *OTHERS, *refused]
    heads = {"problem", "optimizer", "other optimizers", "what is given"}
    assert sorted(row for row in rows if row not in heads) == sorted(expected)

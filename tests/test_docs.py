"""Pages lead to pages that are there, and their code names what there is.

What is generated in them is compared in tests/studies/test_pages.py.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

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
    assert pages | tutorials | {"changelog.md", "contributing.md", "examples.md", "security.md"} == listed


def blocks(page: Path) -> Iterator[str]:
    """The Python of a page; an ellipsis stands for what the reader fills in."""
    for block in re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield textwrap.dedent(block).replace("…", "...")


def wrong(code: str) -> Iterator[str]:
    """What of the library is named in `code` and is not there, or takes no such arguments."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "forgetless":
            yield from (
                f"{node.module}.{each.name}" for each in node.names if not _is_there(str(node.module), each.name)
            )
        elif isinstance(node, ast.Call) and re.fullmatch(r"forgetless(\.\w+)+", name := ast.unparse(node.func)):
            try:
                called = _named(name)
                given = {word.arg: None for word in node.keywords if word.arg}
                some = any(ast.unparse(each) == "..." or isinstance(each, ast.Starred) for each in node.args)
                signature = inspect.signature(called)
                if some or len(given) < len(node.keywords):
                    signature.bind_partial(**given)
                else:
                    signature.bind(*node.args, **given)
            except (AttributeError, TypeError) as error:
                yield f"{ast.unparse(node)}: {error}"


def _is_there(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name) or bool(importlib.import_module(f"{module}.{name}"))
    except ModuleNotFoundError as error:
        return not str(error.name).startswith("forgetless")  # a trainer that is not installed here


def _named(name: str) -> Any:
    found: Any = forgetless
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=lambda page: page.name)
def test_code_names_what_there_is(page: Path) -> None:
    assert [each for code in blocks(page) for each in wrong(code)] == []


def test_wrong_code_is_seen() -> None:
    assert len(list(wrong("forgetless.nothing(model)"))) == 1
    assert len(list(wrong("forgetless.mas(model)\nforgetless.mas(model, data, no=1)"))) == 2
    assert len(list(wrong("from forgetless.integrations.lightning import Nothing\nfrom forgetless import mas"))) == 1


def test_the_code_for_a_vision_backbone_runs() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model, pictures = timm.create_model("test_efficientnet", num_classes=3), torch.rand(8, 3, 32, 32)

    def train(model: torch.nn.Module, pictures: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model.train()(pictures).square().mean().backward()
        optimizer.step()

    names = {"forgetless": forgetless, "torch": torch, "copy": copy, "model": model, "train": train, "new_classes": 5}
    names |= {"old_pictures": pictures, "new_pictures": pictures, "other_old_pictures": pictures}
    kept = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    for code in blocks(ROOT / "docs" / "vision.md"):
        exec(code, names)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
    assert (names["old_head"].out_features, model.classifier.out_features) == (3, 5)
    assert "classifier.weight" not in names["importance"].weights
    assert 0 <= names["meter"].read().agreement <= 1


def test_the_page_of_exactness_has_a_line_for_every_problem_optimizer_and_refusal() -> None:
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs" / "exactness.md").read_text(encoding="utf-8"), re.MULTILINE)
    refused = [f"{what}: {name}" for what, each in (("model", REFUSED_MODELS), ("data", REFUSED_DATA)) for name in each]
    expected = [*(problem.name for problem in PROBLEMS), *map(str, ENDING), *OTHERS, *refused]
    heads = {"problem", "optimizer", "other optimizers", "what is given"}
    assert sorted(row for row in rows if row not in heads) == sorted(expected)

"""The page of pictures with their most similar facts, from files as runs keep them."""

from __future__ import annotations

import base64
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from fact_sets import Image, trained
from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.facts.retrieval import retrieval
from forgetless.lab.kept import KEPT

FACTS = ["man,run,", "<script>alert(1)</script>,\"a\" & 'b',", "dog,,", "cat,sit,mat"]
#: Two tasks, [0, 1] and [2, 3]; of each a picture is shown, of the facts 1 and 2.
SHOWN = [1, 2]


def keep(folder: Path, stem: str, first: int = 0, **more: Any) -> None:
    """What a run of two tasks keeps; `first` is the fact that is most similar to all after the first task."""
    top = [[[first, 1], [first, 3]], [[1, 3], [2, 0]]]  # [task, picture, place]
    similar = [[[0.75, 0.5], [0.25, -0.125]], [[0.875, 0.5], [0.625, 0.0]]]
    tensors = {
        "facts": torch.zeros(4, 6),
        "pictures": torch.zeros(4, 6),
        "labels": torch.tensor([0, 1, 2, 3]),
        "shown": torch.tensor(SHOWN),
        "thumbnails": torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4).to(torch.uint8),
        "top_facts": torch.tensor(top),
        "top_similarities": torch.tensor(similar),
    }
    method, seed, order = re.fullmatch(r"(.*?)-(\d+)(?:-(\d+))?", stem).groups("0")  # type: ignore[union-attr]
    header = {
        "run": {"method": method, "seed": int(seed), "order": int(order)},
        "network": "squeezenet",
        "size": 4,
        "facts": FACTS,
        "pictures": [],
        "tasks": [{"name": "a", "facts": [0, 1]}, {"name": "b", "facts": [2, 3]}],
    }
    files.write_tensors(folder / "kept" / f"{stem}.safetensors", {**tensors, **more}, KEPT, header)


class Page(HTMLParser):
    """What a browser makes of a page: its tags with their attributes, and the text of each section's items."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.held: list[tuple[tuple[str, dict[str, str | None]], str]] = []
        self.feed((folder / "retrieval.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.held.append((self.tags[-1] if self.tags else ("", {}), data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for (inside, _), text in self.held if inside == tag]

    def names(self) -> list[str]:
        """The facts below the pictures."""
        return [text for (tag, at), text in self.held if (tag, at.get("class")) == ("span", "name")]

    def with_class(self) -> list[str | None]:
        """The class of every item of a list."""
        return [attributes.get("class") for tag, attributes in self.tags if tag == "li"]


def test_pictures_with_their_facts_when_learned_and_now(tmp_path: Path) -> None:
    keep(tmp_path, "mas-0")
    retrieval(tmp_path)
    page = Page(tmp_path)
    script = "<script>alert(1)</script> \"a\" & 'b'"
    assert page.of("h2") == ["mas"]
    assert page.names() == [script, "dog"]
    assert page.of("small") == ["task 1", "task 2"]
    # the first picture is of task 1: when learned is after task 1; the second of task 2, which is the last
    hostile = f"✓ {script}"  # a fact that the picture was labeled with
    assert page.of("li") == ["man run", hostile, hostile, "cat sit mat", "✓ dog", "man run", "✓ dog", "man run"]
    assert [each for each in page.of("span") if each not in page.names()] == [
        "0.75",
        "0.50",
        "0.88",
        "0.50",
        "0.62",
        "0.00",
        "0.62",
        "0.00",
    ]
    assert page.with_class() == [None, "right", "right", None, "right", None, "right", None]


def test_the_pictures_are_inside(tmp_path: Path) -> None:
    keep(tmp_path, "mas-0")
    retrieval(tmp_path)
    sources = [attributes["src"] for tag, attributes in Page(tmp_path).tags if tag == "img"]
    for number, source in enumerate(sources):
        assert source is not None
        content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        pixels = list(Image.open(io.BytesIO(content)).getdata())
        first = 48 * number
        assert pixels == [(first + n, first + 16 + n, first + 32 + n) for n in range(16)]
    assert len(sources) == 2


def test_nothing_is_run_or_asked_for(tmp_path: Path) -> None:
    keep(tmp_path, "mas-0")
    keep(tmp_path, "<b>&-1")
    retrieval(tmp_path)
    page = Page(tmp_path)
    assert page.of("h2") == ["mas", "<b>&"]
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    assert not re.search(r"https?:|url\(|@import", (tmp_path / "retrieval.html").read_text())


def test_each_method_has_its_first_seed_and_the_tasks_in_their_own_order(tmp_path: Path) -> None:
    for stem, first in (
        ("local-mas-10", 3),
        ("local-mas-9", 0),
        ("finetune-3", 2),
        ("local-mas-9-1", 3),
        ("si-0-2", 3),
    ):
        keep(tmp_path, stem, first)
    retrieval(tmp_path)
    page = Page(tmp_path)
    assert page.of("h2") == ["finetune", "local-mas"]
    assert page.of("li")[::8] == ["dog", "man run"]


def test_without_pillow_there_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, "mas-0")
    monkeypatch.setitem(sys.modules, "PIL", None)
    retrieval(tmp_path)
    page = Page(tmp_path)
    assert "img" not in {tag for tag, _ in page.tags}
    assert "dog" in page.names()


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    keep(tmp_path, "mas-0")
    path = tmp_path / "kept" / "mas-0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ForgetlessError, match=re.escape(str(path))):
        retrieval(tmp_path)
    assert not (tmp_path / "retrieval.html").exists()


def test_the_page_of_a_run_escapes_its_names() -> None:
    page = Page(trained() / "run")
    assert page.of("h2") == ["finetune", "mas"]
    text = (trained() / "run" / "retrieval.html").read_text(encoding="utf-8")
    assert "rock &amp; roll" in text
    assert "rock & roll" not in text
    shown = page.names()
    assert any("rock & roll" in each for each in page.of("li"))
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == len(shown)

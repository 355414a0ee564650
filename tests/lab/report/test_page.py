from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab.report import page

Results = dict[str, Any]

HOSTILE = "</title></style><script>alert(1)</script><img src=http://example.org/x onerror='alert(2)'>\" $\\frac{x"
EMPTY = {"meta", "link", "img", "br", "input", "base", "source", "embed"}


class Page(HTMLParser):
    """A page as a browser reads it: tags that close in order, texts, attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.attributes.append((tag, "", ""))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def within(self, tag: str) -> list[str]:
        return [text for inside, text in self.texts if inside == tag]

    def tags(self) -> set[str]:
        return {tag for tag, _, _ in self.attributes}


@pytest.fixture
def show(tmp_path: Path) -> Callable[[Results], Page]:
    def written(results: Results) -> Page:
        page(results, tmp_path / "report.html")
        return Page(tmp_path / "report.html")

    return written


Show = Callable[[Results], Page]


def refuses_the_network(shown: Page) -> None:
    assert shown.tags().isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form", "image"})
    for tag, name, value in shown.attributes:
        assert not name.startswith("on")
        assert name not in {"href", "xlink:href", "action", "srcset", "data"}
        assert name != "src" or (
            tag == "img" and value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
        )
        assert "url(" not in value
    styles = "".join(shown.within("style"))
    assert "url(" not in styles
    assert "@import" not in styles
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in shown.attributes


def test_says_the_same_as_the_results(results: Callable[..., Results], show: Show) -> None:
    shown = show(results())
    refuses_the_network(shown)
    assert shown.within("h1") == ["demo"]
    text = " ".join(text for _, text in shown.texts)
    assert "Highest average accuracy after the last task: frozen , 90.0 %" in re.sub(r"\s+", " ", text)
    for word in ("finetune", "frozen", "mas, λ = 1", "zero or one", "two or three", "four or five"):
        assert word in text
    for number in ("70.0", "89.0", "30.0", "1.5", "2.14.1"):
        assert number in text
    assert "forgetless run demo --out runs/demo --method finetune" in re.sub(r"\s+", " ", text)


def test_heat_maps_hold_every_known_entry_and_no_other(results: Callable[..., Results], show: Show) -> None:
    shown = show(results())
    shares = [value for tag, name, value in shown.attributes if (tag, name) == ("td", "style")]
    assert len(shares) == 3 * 6
    assert all(0 <= float(share.removeprefix("--v: ")) <= 1 for share in shares)
    assert ("td", "title", "zero or one after four or five: 50.0 %") in shown.attributes
    assert sum(entry == ("td", "class", "unknown") for entry in shown.attributes) == 3 * 3


def test_curves_have_a_point_per_known_entry(results: Callable[..., Results], show: Show) -> None:
    shown = show(results())
    points = [entry for entry in shown.attributes if entry[:2] == ("g", "transform")]
    assert len(points) == 3 * (3 + 6)  # the average after each task, and R's lower triangle, by method
    assert any("finetune, after four or five: 50.0 %" in text for text in shown.within("title"))


def test_a_gap_breaks_the_line(results: Callable[..., Results], show: Show) -> None:
    found = results(methods=["mas"])
    found["runs"][0]["accuracy"][1][0] = None
    lines = [value for tag, name, value in show(found).attributes if (tag, name) == ("path", "d")]
    assert any(re.fullmatch(r"M[\d.]+ [\d.]+ M[\d.]+ [\d.]+", line) for line in lines)


def test_several_orders_have_places_and_their_tasks_a_table(results: Callable[..., Results], show: Show) -> None:
    found = results(seeds=2)
    found["runs"][1].update(learned=found["tasks"][::-1], order=1)
    shown = show(found)
    assert "task 2" in shown.within("figcaption")
    assert not any("zero or one" in words for words in shown.within("figcaption"))
    assert any("zero or one" in words for words in shown.within("th"))
    assert any("in several orders" in words for words in shown.within("p"))


def test_several_seeds_have_bands(results: Callable[..., Results], show: Show) -> None:
    assert ("path", "class", "band") in show(results(seeds=3)).attributes
    assert ("path", "class", "band") not in show(results(seeds=1)).attributes


def test_the_recorded_command_is_shown(results: Callable[..., Results], show: Show) -> None:
    found = results()
    found["environment"]["command"] = "forgetless run demo --seeds 3"
    shown = show(found)
    assert " ".join(shown.within("span")).count("forgetless run demo --seeds 3") == 1
    assert "command" not in shown.within("dt")


def test_hostile_names_do_nothing(results: Callable[..., Results], show: Show) -> None:
    found = results(tasks=(HOSTILE, "\x00\x1b[31m\u2028"), methods=(HOSTILE,), experiment=HOSTILE)
    found["environment"] = {HOSTILE: HOSTILE, "nested": {"<b>": [1, None]}}
    shown = show(found)
    refuses_the_network(shown)
    assert shown.within("h1") == [HOSTILE]
    assert "\x00" not in shown.source
    assert "\x1b" not in shown.source


@pytest.mark.parametrize(("tasks", "methods", "seeds"), [(1, 1, 1), (1, 3, 2), (30, 2, 1), (2, 12, 2)])
def test_any_size(results: Callable[..., Results], show: Show, tasks: int, methods: int, seeds: int) -> None:
    found = results([f"task {n}" for n in range(tasks)], [f"method {n}" for n in range(methods)], seeds)
    for run in found["runs"]:
        run["accuracy"] = [[None if e is None else max(0.0, e) for e in row] for row in run["accuracy"]]
    shown = show(found)
    refuses_the_network(shown)
    assert len(shown.within("figcaption")) >= tasks + 1


entries = st.none() | st.floats(0, 1)
names = st.text(st.characters(exclude_categories=()), max_size=12)  # JSON can hold lone surrogates, too


@st.composite
def any_results(draw: st.DrawFn) -> Results:
    tasks = draw(st.lists(names, min_size=1, max_size=4))
    matrix = st.lists(
        st.lists(entries, min_size=len(tasks), max_size=len(tasks)), min_size=len(tasks), max_size=len(tasks)
    )
    run = st.fixed_dictionaries(
        {
            "method": names,
            "seed": st.integers(-5, 5),
            "strength": st.none() | st.floats(0, 1e6),
            "accuracy": matrix,
            "seconds": st.dictionaries(names, st.floats(0, 1e4), max_size=2),
        }
    )
    runs = draw(st.lists(run, min_size=1, max_size=4))
    environment = draw(st.dictionaries(names, names | st.integers() | st.none(), max_size=3))
    return {"experiment": draw(names), "tasks": tasks, "runs": runs, "environment": environment}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=any_results())
def test_whatever_results_hold_makes_a_page(show: Show, found: Results) -> None:
    shown = show(found)
    refuses_the_network(shown)
    assert "nan" not in " ".join(value for _, name, value in shown.attributes if name in {"d", "style", "transform"})


def test_written_whole_or_not_at_all(results: Callable[..., Results], tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")
    found = results()
    found["runs"] = []
    with pytest.raises(ForgetlessError, match="no finished run"):
        page(found, target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]

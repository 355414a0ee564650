"""Every kind of page, opened in the Chromium that is installed: see `chromium.complaints` for what is asked of each.

The documentation site is there where `pip install '.[docs]'` was.
"""

from __future__ import annotations

import copy
import functools
import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import chromium
from chromium import HOSTILE, complaints, complaints_of_a_site
from forgetless.lab.facts import retrieval
from forgetless.lab.long_text.page import page as long_text_page
from forgetless.lab.report import page, repair_page
from forgetless.lab.report.picture import data_url
from forgetless.lab.report.template import rendered
from forgetless.lab.results import joined
from pages import traces

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium is installed")

Results = dict[str, Any]
ONLINE = {
    "looks": [[2, [0.5]], [4, [0.5, 1.0]]],
    "groups": ["stem", HOSTILE],
    "lambdas": [[2.0, 1e-3, 2e-3], [4.0, 3e-3, 4e-3]],
    "gates": [[[0, 4], [1, 1]], [[1, 3], [2, 2]]],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One process for all pages."""
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium.PROGRAM)
        yield opened
        opened.close()


def run_report(results: Callable[..., Results], path: Path) -> None:
    """All sections, three seeds, several methods, and names that want to be code."""
    tasks, methods = ["zero or one", HOSTILE, "four or five", "x" * 90], ["finetune", "frozen", "mas", HOSTILE]
    found = results(tasks, methods, 3)
    for run in found["runs"]:
        run["figures"] = {HOSTILE: [0.5] * 4}
    found["environment"] = {HOSTILE: HOSTILE, "command": f"forgetless run demo --data '{HOSTILE}' {'y' * 200}"}
    held = traces(tasks, ["finetune", "frozen", "mas", HOSTILE], ("backbone.0", HOSTILE), (HOSTILE, "one"))
    page(found, path, held)


def old_report(results: Callable[..., Results], path: Path) -> None:
    page(results(), path)


def large_report(results: Callable[..., Results], path: Path) -> None:
    tasks, methods = [f"task {n}" for n in range(8)], [f"method {n}" for n in range(9)]
    found = results(tasks, methods)
    for run in found["runs"]:
        run["accuracy"] = [[None if e is None else max(0.0, e) for e in row] for row in run["accuracy"]]
    page(found, path, traces(tasks, methods, [f"layer{n}" for n in range(8)], each=1))


def online_report(results: Callable[..., Results], path: Path) -> None:
    found = results(["a", "b"], ["er", "mango"])
    for run in found["runs"]:
        run["online"] = ONLINE if run["method"] == "mango" else {"looks": ONLINE["looks"]}
    page(found, path)


def texts_report(results: Callable[..., Results], path: Path) -> None:
    """Texts before and after that want to be code, that have no place to break, and none at all."""
    found = results(["reviews", "mails"], ["finetune", "mas"])
    asked = (f"{HOSTILE} </blockquote>", "w" * 280, "", "It was good. " * 20)
    page(found, path, traces(["reviews", "mails"], ["finetune", "mas"], classes=("good", HOSTILE), each=4, texts=asked))


def frontier_report(results: Callable[..., Results], path: Path) -> None:
    made = {}
    for value in (0.1, 1.0, 10.0):
        found = copy.deepcopy(results(methods=["finetune", "mas"]))
        found["runs"][1]["strength"] = value
        found["runs"][1]["accuracy"][-1][0] = 0.6 + value / 40
        made[f"{value}"] = found
    page(joined(made), path)


def repaired(results: Callable[..., Results], path: Path) -> None:
    each = {"shape": [64, 32], "sigma": 1e-3, "rounding": 1e-4, "threshold": 0.1, "kept": 3, "total": 32, "energy": 0.7}
    weights = {f"model.layers.{n}.self_attn.q_proj.weight": each for n in range(3)} | {HOSTILE: each}
    repair_page(weights, 9, HOSTILE, f"forgetless repair base '{HOSTILE}' --out {'z' * 200}", path)


def retrieved(results: Callable[..., Results], path: Path) -> None:
    source = data_url(torch.zeros(3, 2, 2, dtype=torch.uint8))
    facts = [("person, rides, horse", 0.91, True), (HOSTILE, 0.5, False), ("w" * 60, 0.1, False)]
    shown = [retrieval.Shown("person, rides, horse", 1, facts, facts[::-1]), retrieval.Shown(HOSTILE, 2, facts, facts)]
    template = Path(retrieval.__file__).with_name("retrieval.html")
    path.write_text(rendered(template, pictures=[source, ""], methods={"mas": shown, HOSTILE: shown}), encoding="utf-8")


def language_models(results: Callable[..., Results], path: Path) -> None:
    """Nine networks of two seeds each, one with a name and words that want to be code."""
    names = [HOSTILE, "transformer-xl", *(f"conv+{n}" for n in range(7))]
    made = [language_model(name, seed) for name in names for seed in range(2)]
    environment = {HOSTILE: HOSTILE, "command": f"forgetless run long-text --text '{HOSTILE}' {'y' * 200}"}
    long_text_page({"experiment": "long-text", "corpus": HOSTILE, "environment": environment, "runs": made}, path)


def language_model(name: str, seed: int) -> Results:
    return {
        "method": name,
        "seed": seed,
        "bits": {"validation": 2.0, "test": 2.1 + seed, "test, longer memory": 2.0},
        "word perplexity": {"test": 33.3},
        "curve": [8.0 - 0.1 * number for number in range(40)],
        "by place": [2.0, 1.9, 1.8, 1.85],
        "by rarity": {"never seen": {"bits": None, "characters": 0}, HOSTILE: {"bits": 2.0, "characters": 9}},
        "attention": [[0.1, 0.2, 0.7], [0.0, 0.0, 1.0]],
        "seconds": {"train": 60.0},
    }


KINDS = (
    run_report,
    old_report,
    large_report,
    online_report,
    texts_report,
    frontier_report,
    language_models,
    repaired,
    retrieved,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_page(browser: Any, results: Callable[..., Results], tmp_path: Path, kind: Callable[..., None]) -> None:
    kind(results, tmp_path / "page.html")
    assert complaints(browser, tmp_path / "page.html") == []


def typical(results: Callable[..., Results], folder: Path) -> Iterator[Path]:
    """Every page of runs as people make them: pictures are noise, which takes the most room."""
    tasks, methods = [f"task {n}" for n in range(8)], ["finetune", "lwf", "ewc", "si", "mas", "joint"]
    layers = [f"backbone.layer{n}.conv" for n in range(20)]
    found = results(tasks, methods, 5)
    for run in found["runs"]:
        run["accuracy"] = [[None if e is None else max(0.0, e) for e in row] for row in run["accuracy"]]
    yield folder / "report.html"
    page(found, folder / "report.html", traces(tasks, methods, layers, side=64))
    pictures = torch.randint(256, (16, 3, 224, 224), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    facts = [("person, rides, horse", 0.9, True)] * 5
    shown = [retrieval.Shown("person, rides, horse", 1, facts, facts)] * 16
    template = Path(retrieval.__file__).with_name("retrieval.html")
    values = {"pictures": list(map(data_url, pictures)), "methods": dict.fromkeys(methods, shown)}
    (folder / "retrieval.html").write_text(rendered(template, **values), encoding="utf-8")
    yield folder / "retrieval.html"
    language_models(results, folder / "texts.html")
    yield folder / "texts.html"
    each = {"shape": [4096, 4096], "sigma": 1e-3, "rounding": 1e-4, "threshold": 0.1, "kept": 3, "total": 4096}
    names = [f"model.layers.{n}.self_attn.{part}_proj.weight" for n in range(80) for part in "qkvo"]
    repair_page({name: {**each, "energy": 0.7} for name in names}, 400, "dg-hard", "…", folder / "repair.html")
    yield folder / "repair.html"


def test_pages_are_small(results: Callable[..., Results], tmp_path: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in list(typical(results, tmp_path))}
    assert {name: size for name, size in sizes.items() if size > 1_000_000} == {}


GOOD = "<!doctype html><html lang=en><title>t</title><body style='color:#111;background:#fff'>{}</body>"
FAULTS = {
    "<script>1</script>": "it holds a script",
    "<b onclick='1'>x</b>": "it holds an event handler",
    "<img src=x alt=x onerror='window.hacked=1'>": "a name has run as code",
    "<script>console.log('hello')</script>": "the console says: hello",
    "<script>alert(1);</script>": "it opens a dialog",
    "<script>nothing()</script>": "a script failed",
    "<img alt=x src='picture.png'>": "it asks for ",
    "<div style='width:500px'>x</div>": "pixels wide on a screen of 360",
    "<div class=scroll aria-label=wide style='overflow:auto'><table style='width:900px'><tr>"
    "<th style='position:sticky;left:0;min-width:300px'>a<td>b</table></div>": "covers the others at 360: wide",
    "<script>requestAnimationFrame(() => requestAnimationFrame(() => "
    "document.body.style.paddingTop = '400px'))</script>": "while it loads, at 1280",
    "<style>@media (prefers-color-scheme: dark) { p { padding-top: 9px } }</style>": "it moves where the scheme turns",
    "<p style='width:4em;overflow:hidden;white-space:nowrap'>a name that is too long</p>": "cut at 360: a name",
    "<svg aria-label=empty><path class=line d='M1 1'/></svg>": "an empty figure at 360: empty",
    "<img src='data:,'>": "1 pictures without a description",
    "<p style='color:#999'>pale</p>": 'contrast, screen, light: 2.85 for "pale"',
    "<p style='background:color-mix(in srgb, #111 60%, white)'>dark</p>": 'for "dark"',
    "<style>@media print { p { color: #ccc } }</style><p>faint</p>": "contrast, print, dark",
    "<table><tfoot><tr><td>sum</table>": "a table's totals are printed on each of its pages",
    "<div tabindex=-1>x</div>": "the keyboard reaches 1 of 2 controls",
    "<button style='outline:none'>x</button>": "a control does not show that it has the focus",
}


def test_every_fault_is_seen(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(GOOD.format("<p>fine</p><button>press</button>"))
    assert complaints(browser, path) == []
    path.write_text(GOOD.format("".join(FAULTS)))
    found = complaints(browser, path)
    assert [sentence for sentence in FAULTS.values() if not any(sentence in each for each in found)] == []


def test_a_fault_in_a_site_is_told_with_its_page(browser: Any, tmp_path: Path) -> None:
    seen = ["a script failed", "while it loads", 'contrast, light: 2.85 for "pale"', "no picture or no description"]
    faults = "".join(fault for fault, said in FAULTS.items() if any(each.split(": ")[-1] in said for each in seen))
    for name in ("index.html", "good.html"):
        (tmp_path / name).write_text(GOOD.format("<p>good</p>"))
    (tmp_path / "bad.html").write_text(GOOD.format(f"{faults}<img src=missing.png alt=x>"))
    site = f"{tmp_path.as_uri()}/"
    found = complaints_of_a_site(browser, site, ["good.html", "bad.html", "good.html"], 390, "light")
    told = {sentence: {each.partition(" ")[0] for each in found if sentence in each} for sentence in seen}
    assert told == {sentence: {"bad.html"} for sentence in seen}


ROOT = Path(__file__).parents[3]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site, built anew; its tutorials have their texts and code, but are not run."""
    builder = pytest.importorskip("mkdocs.commands.build", reason="mkdocs builds the site")
    pytest.importorskip("mkdocstrings")
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NO_MKDOCS_2_WARNING", "1")
        patched.setattr(sys, "path", [*sys.path, str(ROOT / "scripts")])
        import tutorials

        patched.setattr(tutorials, "built", lambda _: unrun(tutorials.cells, folder / "tutorials"))
        builder.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder / "site")))
    handler = functools.partial(Quiet, directory=str(folder / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def unrun(cells: Callable[[str], Any], folder: Path) -> dict[str, Path]:
    """A page for each tutorial, of what it says and does."""
    for script in (ROOT / "tutorials").glob("*.py"):
        parts = [
            cell.text if cell.kind == "markdown" else f"```python\n{cell.text}\n```"
            for cell in cells(script.read_text(encoding="utf-8"))
        ]
        (folder / script.stem).mkdir(parents=True)
        (folder / script.stem / "page.md").write_text("\n\n".join(parts), encoding="utf-8")
    return {path.name: path for path in folder.iterdir()}


def pages_of(site: str, browser: Any) -> list[str]:
    """Every page that the first page's menus and links lead to."""
    page = browser.new_page()
    page.goto(site)
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map(link => link.href.split('#')[0])")
    page.close()
    return sorted({link.removeprefix(site) for link in links if link.startswith(site) and link != site})


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (820, "light"), (1280, "dark")])
def test_the_site(browser: Any, site: str, width: int, scheme: str) -> None:
    pages = pages_of(site, browser)
    assert len(pages) > 40
    assert complaints_of_a_site(browser, site, pages, width, scheme) == []


@pytest.mark.parametrize(
    ("words", "page"),
    [("lora", "lora.html"), ("which strength", "tutorials/which_strength.html"), ("latex", "results.html")],
)
def test_search_leads_to_the_page(browser: Any, site: str, words: str, page: str) -> None:
    opened = browser.new_page()
    opened.goto(site)
    opened.keyboard.press("/")
    opened.keyboard.type(words)
    first = opened.locator(".md-search-result__link").first
    first.click()
    opened.wait_for_url(lambda address: "?h=" in address)
    assert opened.url.removeprefix(site).partition("?")[0] == page
    assert words.split()[-1].lower() in opened.locator("article").inner_text().lower()
    opened.close()


def test_the_dark_scheme_stays_and_moves_nothing(browser: Any, site: str) -> None:
    opened = browser.new_page(color_scheme="light")
    opened.goto(f"{site}trainers.html")
    where = "() => [...document.querySelectorAll('article > *')].map(each => each.getBoundingClientRect().top)"
    scheme, ground = "document.body.dataset.mdColorScheme", "getComputedStyle(document.body).backgroundColor"
    places, light = opened.evaluate(where), opened.evaluate(ground)
    opened.locator("label[title=Dark]").click()
    assert (opened.evaluate(scheme), opened.evaluate(where)) == ("slate", places)
    assert opened.evaluate(ground) != light
    opened.goto(f"{site}lora.html")
    assert opened.evaluate(scheme) == "slate"
    opened.close()

"""A page in a real browser: what is wrong with it for a person with a small screen, a keyboard or weak eyes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

#: The browser that is installed, if one is.
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 1280)
SCHEMES = ("light", "dark")
#: The most that a page may move while it loads: https://web.dev/articles/cls calls up to 0.1 good.
MOST_SHIFT = 0.05
#: What a hostile name tries; it must stay text.
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'><b onmouseover=window.hacked=1>\"'>"

_MARKS = """() => [...document.querySelectorAll("svg:not([aria-hidden])")].flatMap(svg => {
  const marks = [...svg.querySelectorAll(".line, .point, .band, rect, circle")];
  const seen = marks.map(mark => mark.getBoundingClientRect()).some(box => box.width > 0 || box.height > 0);
  return seen ? [] : [svg.getAttribute("aria-label") || "a figure without a name"];
})"""

# A page has loaded when its fonts and pictures are there and it was painted; two more frames show what still moves.
_SETTLED = """async () => {
  await document.fonts.ready;
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
  const frame = () => new Promise(requestAnimationFrame);
  while (!performance.getEntriesByType("paint").length) await frame();
  for (let number = 0; number < 3; number++) await frame();
}"""

_SHIFT = """() => {
  const observer = new PerformanceObserver(() => null);
  observer.observe({type: "layout-shift", buffered: true});
  return observer.takeRecords().reduce((sum, entry) => sum + entry.value, 0);
}"""

# Cells that stay in place while a table is scrolled must leave room for those that move.
_COVERED = """() => [...document.querySelectorAll(".scroll")].flatMap(box => {
  const stays = [...box.querySelectorAll("th, td")].filter(cell => getComputedStyle(cell).position === "sticky");
  const widest = Math.max(0, ...stays.map(cell => cell.getBoundingClientRect().width));
  const covered = box.scrollWidth > box.clientWidth && widest > 0.6 * box.clientWidth;
  return covered ? [box.getAttribute("aria-label")] : [];
})"""

# What is cut short is there in full for those who point at it.
_CUT = """within => [...document.querySelectorAll(within + " *")].flatMap(each => {
  const cut = getComputedStyle(each).overflowX === "hidden" && each.scrollWidth > each.clientWidth + 1;
  return cut && !each.title && !each.classList.contains("hidden") ? [each.textContent.trim().slice(0, 30)] : [];
})"""

# Backgrounds are laid over one another on a canvas, from the root to the text: whatever a color's notation is.
_CONTRAST = """() => {
  const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", {willReadFrequently: true}), known = new Map();
  const mixed = colors => {
    const key = colors.join("|");
    if (!known.has(key)) {
      context.fillStyle = "#fff"; context.fillRect(0, 0, 1, 1);
      for (const color of colors) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
      known.set(key, [...context.getImageData(0, 0, 1, 1).data].slice(0, 3));
    }
    return known.get(key);
  };
  const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = rgb => {
    const [r, g, b] = rgb.map(each => linear(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const stacks = new Map([[null, []]]);
  const under = element => {
    if (!stacks.has(element))
      stacks.set(element, [...under(element.parentElement), getComputedStyle(element).backgroundColor]);
    return stacks.get(element);
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
    if (!text || element.closest(".hidden, title, style, script")) continue;
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    if (style.visibility !== "visible" || style.display === "none" || !(box.width * box.height)) continue;
    const stack = under(element), color = element.closest("svg") ? style.fill : style.color;
    const below = mixed(stack), above = mixed([...stack, color]);
    const [low, high] = [light(below), light(above)].sort((a, b) => a - b), ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} for ${JSON.stringify(text.slice(0, 30))}`);
  }
  return found;
}"""

_PLACES = """() => [...document.querySelectorAll("body *")].map(each => {
  const box = each.getBoundingClientRect();
  return [box.x, box.y + scrollY, box.width, box.height].map(Math.round).join(" ");
})"""

_REPEATED = """() => [...document.querySelectorAll("tfoot")].some(
  foot => getComputedStyle(foot).display === "table-footer-group")"""

_PICTURES = """() => [...document.images].flatMap(image => image.naturalWidth && image.alt ? [] : [image.src])"""

_CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex]"


def complaints(browser: Any, path: Path) -> list[str]:
    """What is wrong with the page in the file; an empty list for a good one."""
    found, address = list[str](), path.as_uri()
    for width in WIDTHS:
        for scheme in SCHEMES:
            with window(browser, address, width, scheme, found) as page:
                _go(page, address)
                found += _laid_out(page, width)
                found += [f"the first column covers the others at {width}: {name}" for name in page.evaluate(_COVERED)]
                found += [f"an empty figure at {width}: {name}" for name in page.evaluate(_MARKS)]
                found += [f"contrast, screen, {scheme}: {each}" for each in page.evaluate(_CONTRAST)]
    with window(browser, address, WIDTHS[0], SCHEMES[0], found) as page:
        _go(page, address)
        found += _hostile(page)
        found += _keyboard(page)
        count = page.locator("img:not([alt])").count()
        found += [f"{count} pictures without a description"] if count else []
        places = page.evaluate(_PLACES)
        page.emulate_media(color_scheme="dark")
        found += ["it moves where the scheme turns dark"] if page.evaluate(_PLACES) != places else []
        page.emulate_media(media="print", color_scheme="dark")
        found += [f"contrast, print, dark: {each}" for each in page.evaluate(_CONTRAST)]
        found += ["a table's totals are printed on each of its pages"] if page.evaluate(_REPEATED) else []
    return list(dict.fromkeys(found))


def complaints_of_a_site(browser: Any, site: str, pages: Iterable[str], width: int, scheme: str) -> list[str]:
    """What is wrong with the pages of a site that is served at the address `site`, one after the other in a window."""
    found, of_one = list[str](), list[str]()
    with window(browser, site, width, scheme, of_one) as page:
        for name in pages:
            _go(page, site + name)
            of_one += _laid_out(page, width, ".md-content")
            of_one += [f"contrast, {scheme}: {each}" for each in page.evaluate(_CONTRAST)]
            of_one += [f"no picture or no description: {each}" for each in page.evaluate(_PICTURES)]
            found += [f"{name} at {width}: {each}" for each in dict.fromkeys(of_one)]
            of_one.clear()
    return found


@contextlib.contextmanager
def window(browser: Any, own: str, width: int, scheme: str, found: list[str]) -> Iterator[Any]:
    """A new window; adds what its pages do besides, and ask outside of `own`."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.on("console", lambda message: found.append(f"the console says: {message.text}"))
        page.on("pageerror", lambda error: found.append(f"a script failed: {error}"))
        page.on("dialog", lambda dialog: (found.append("it opens a dialog"), dialog.dismiss()))
        page.on("request", lambda request: _asked(request.url, own, found))
        yield page
    finally:
        context.close()


def _go(page: Any, address: str) -> None:
    """Load and paint a page."""
    page.goto(address)
    page.evaluate(_SETTLED)


def _laid_out(page: Any, width: int, within: str = "body") -> list[str]:
    wide = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    found = [f"it is {wide} pixels wide on a screen of {width}"] if wide > width else []
    shift = page.evaluate(_SHIFT)
    found += [f"it moves by {shift:.3f} while it loads, at {width}"] if shift > MOST_SHIFT else []
    return found + [f"cut at {width}: {name}" for name in page.evaluate(_CUT, within)]


def _asked(url: str, own: str, found: list[str]) -> None:
    if not url.startswith((own, "data:")):
        found.append(f"it asks for {url}")


def _hostile(page: Any) -> list[str]:
    found = ["it holds a script"] if page.evaluate("document.scripts.length") else []
    found += ["a name has run as code"] if page.evaluate("window.hacked") else []
    handlers = "[...document.querySelectorAll('*')].some(e => [...e.attributes].some(a => a.name.startsWith('on')))"
    return [*found, *(["it holds an event handler"] if page.evaluate(handlers) else [])]


def _keyboard(page: Any) -> list[str]:
    """Press Tab through the page: every control is reached, and is seen to be."""
    count = page.locator(_CONTROLS).count()
    page.evaluate("document.activeElement.blur()")
    reached = "e => { const all = [...document.querySelectorAll(e)]; return all.indexOf(document.activeElement); }"
    shown = "() => getComputedStyle(document.activeElement).outlineStyle !== 'none'"
    seen, dull = set(), 0
    for _ in range(2 * count + 2):
        if len(seen) == count:
            break
        page.keyboard.press("Tab")
        page.evaluate("() => new Promise(requestAnimationFrame)")  # the focus has moved before the next frame
        if (number := page.evaluate(reached, _CONTROLS)) >= 0:
            seen.add(number)
            dull += not page.evaluate(shown)
    missed = [f"the keyboard reaches {len(seen)} of {count} controls"] if len(seen) < count else []
    return [*missed, *(["a control does not show that it has the focus"] if dull else [])]

"""A page in a real browser: what is wrong with it for a person with a small screen, a keyboard or weak eyes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

#: The browser that is installed, if one is.
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1280)
#: What a hostile name tries; it must stay text.
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'><b onmouseover=window.hacked=1>\"'>"

_MARKS = """() => [...document.querySelectorAll("svg:not([aria-hidden])")].flatMap(svg => {
  const marks = [...svg.querySelectorAll(".line, .point, .band, rect, circle")];
  const seen = marks.map(mark => mark.getBoundingClientRect()).some(box => box.width > 0 || box.height > 0);
  return seen ? [] : [svg.getAttribute("aria-label") || "a figure without a name"];
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

_CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex]"


def complaints(browser: Any, path: Path) -> list[str]:
    """What is wrong with the page in the file; an empty list for a good one."""
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 800})
    page, found = context.new_page(), list[str]()
    page.on("console", lambda message: found.append(f"the console says: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"a script failed: {error}"))
    page.on("dialog", lambda dialog: (found.append("it opens a dialog"), dialog.dismiss()))
    page.on("request", lambda request: _asked(request.url, path, found))
    page.goto(path.as_uri())
    found += _hostile(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        wide = page.evaluate("document.documentElement.scrollWidth")
        found += [f"it is {wide} pixels wide on a screen of {width}"] if wide > width else []
        found += [f"an empty figure at {width}: {name}" for name in page.evaluate(_MARKS)]
    found += _keyboard(page)
    found += [f"{count} pictures without a description" for count in [page.locator("img:not([alt])").count()] if count]
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        page.emulate_media(media=media, color_scheme=scheme)
        found += [f"contrast, {media}, {scheme}: {each}" for each in page.evaluate(_CONTRAST)]
    context.close()
    return found


def _asked(url: str, path: Path, found: list[str]) -> None:
    if url != path.as_uri() and not url.startswith("data:"):
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
        if (number := page.evaluate(reached, _CONTROLS)) >= 0:
            seen.add(number)
            dull += not page.evaluate(shown)
    missed = [f"the keyboard reaches {len(seen)} of {count} controls"] if len(seen) < count else []
    return [*missed, *(["a control does not show that it has the focus"] if dull else [])]

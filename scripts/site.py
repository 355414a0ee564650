"""What mkdocs is told beyond mkdocs.yml.

Pages from files at the root, tutorials, examples, links to what is no page, and the sizes of figures.
"""

from __future__ import annotations

import posixpath
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import tutorials  # noqa: E402

FROM_ROOT = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
_COMMANDS = re.compile(r"(?<=\n\n)(?: {4}(?:[A-Z_]+=\S+ )*(?:forgetless|make|pip|\S*python) .*\n)(?: {4}.*\n)*")
_IMAGE = re.compile(r'<img [^>]*src="([^"]+\.svg)"[^>]*>')
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie at the repository's root, the examples, and the tutorials, run if they have changed."""
    for page, source in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, folder in tutorials.built(ROOT / "build" / "tutorials").items():
        page = (folder / "page.md").read_text(encoding="utf-8")
        files.append(File.generated(config, f"tutorials/{name}.md", content=page))
        for picture in sorted(folder.glob("*.svg")):
            files.append(File.generated(config, f"tutorials/{picture.name}", abs_src_path=str(picture)))
    files.append(File.generated(config, "examples.md", content=_examples()))
    return files


def _examples() -> str:
    """A page with every example as it is."""
    parts = [
        "# Examples",
        "Each file of the folder `examples` is complete and runs as it is, on a CPU too.",
    ]
    for script in sorted((ROOT / "examples").glob("*.py")):
        code = script.read_text(encoding="utf-8").strip()
        parts.append(f"## {script.name} {{ #{script.stem} }}\n\n```python\n{code}\n```")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to other pages of the site there, and show those to the repository's files as their paths.

    Indented commands are highlighted as such. The first page has no list of its neighbors.
    """
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]
    if page.file.src_uri == "examples.md":  # code throughout
        return markdown
    here = ROOT / FROM_ROOT.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {source: name for name, source in FROM_ROOT.items()}

    def led(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        target = (here.parent / link).resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        path = target.relative_to(ROOT).as_posix()
        if path in pages:
            return f"[{text}]({pages[path]}{anchor})"
        if path == "README.md":
            return f"[{text}](index.md)"
        if path.startswith("examples/"):
            return f"[{text}](examples.md#{target.stem})"
        if path.startswith("tutorials/"):
            return f"[{text}]({path.removesuffix('.py')}.md)"
        if path.startswith("docs/"):
            return f"[{text}]({path.removeprefix('docs/')}{anchor})" if here.parent == ROOT else match[0]
        return f"{text} (`{path}`)" if text.strip("`") != path else f"`{path}`"

    markdown = _COMMANDS.sub(lambda block: f"```bash\n{textwrap.dedent(block[0])}```\n", markdown)
    return _LINK.sub(led, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Tell the browser how large every figure is, so that the text below it does not move when it arrives."""

    def sized(image: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), image[1]))
        figure = files.get_file_from_path(path)
        size = re.search(r'viewBox="0 0 (\S+) (\S+)"', figure.content_string if figure else "")
        if size is None:
            raise ValueError(f"{page.file.src_uri} shows {image[1]}, which has no size or is not there.")
        given = re.search(r' width="(\d+)"', image[0])
        width = float(given[1]) if given else float(size[1]) * 4 / 3  # its points in pixels
        rest = image[0].replace(given[0], "") if given else image[0]
        return rest.replace(
            "<img ", f'<img width="{width:.0f}" height="{width * float(size[2]) / float(size[1]):.0f}" '
        )

    return _IMAGE.sub(sized, html)

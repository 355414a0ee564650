"""What mkdocs is told beyond mkdocs.yml: pages from files at the root, tutorials, and links to what is no page."""

from __future__ import annotations

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
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie at the repository's root, and the tutorials, which are run if they have changed."""
    for page, source in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, folder in tutorials.built(ROOT / "build" / "tutorials").items():
        page = (folder / "page.md").read_text(encoding="utf-8")
        files.append(File.generated(config, f"tutorials/{name}.md", content=page))
        for picture in sorted(folder.glob("*.svg")):
            files.append(File.generated(config, f"tutorials/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to other pages of the site there, and show those to the repository's files as their paths.

    Indented commands are highlighted as such.
    """
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
        if path.startswith("tutorials/"):
            return f"[{text}]({path.removesuffix('.py')}.md)"
        if path.startswith("docs/"):
            return f"[{text}]({path.removeprefix('docs/')}{anchor})" if here.parent == ROOT else match[0]
        return f"{text} (`{path}`)" if text.strip("`") != path else f"`{path}`"

    markdown = _COMMANDS.sub(lambda block: f"```bash\n{textwrap.dedent(block[0])}```\n", markdown)
    return _LINK.sub(led, markdown)

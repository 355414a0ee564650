"""Pages from templates: escaped, and refused where a value is missing."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


_SHARED = Path(__file__).parent


def rendered(template: Path, **values: Any) -> str:
    """The page that a Jinja template makes of the values; everything in them is escaped as text.

    A template may use what is beside it, and what all pages share: `layout.html`, which a page extends, `page.css`
    and the macros of the sections.
    """
    return _templates(template.parent).get_template(template.name).render(**values)


@functools.cache
def _templates(folder: Path) -> Environment:
    """The templates of a folder, each compiled once."""
    # Imported here: `import forgetless` must not load a template engine.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([folder, _SHARED, _SHARED / "sections"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

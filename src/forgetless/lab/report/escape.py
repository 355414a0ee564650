"""Names in Markdown: they come from folders and files of any origin, and are shown as they are."""

from __future__ import annotations

import re

#: What has a meaning inside a line or a table cell; an underscore between letters or digits has none.
_SPECIAL = re.compile(r"[\\`*\[\]<>|#~&!@$]|:(?=//)|(?<=[wW]{3})\.|(?<![^\W_])_|_(?![^\W_])")


def escaped(text: str) -> str:
    """`text` for a line or a table cell of Markdown, shown as it is: it makes no cell, tag, link or code."""
    return _SPECIAL.sub(lambda found: "\\" + found.group(), text)

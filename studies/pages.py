"""All generated pages, tables and figures at once, from the committed runs in `results/`.

python -m studies.pages
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError
from studies import (
    blocks,
    eight_page,
    facts_page,
    freezing,
    frontier,
    idea_figure,
    long_text,
    long_text_continual,
    lora,
    mango,
    merging,
    norm_statistics,
    repair_page,
    repair_vision,
    reproduction,
    results_page,
    scale,
)
from studies.evidence import language_page, length, measured_page, share, vision_page


def write(root: Path, docs: Path, readme: Path) -> None:
    """Write everything anew.

    Args:
        root: the folder of all results.
        docs: the folder of pages.
        readme: the README.

    Raises:
        ForgetlessError: results are missing or damaged, a page lacks a block, or matplotlib is not installed.
    """
    results_page.write(root, docs)
    reproduction.write(root, docs, readme)
    eight_page.write(root, docs, readme)
    facts_page.write(root, docs)
    long_text.write(root / "long-text" / "english.json", docs / "long-text.md")
    long_text_continual.write(root / "long-text" / "continual.json", docs / "long-text.md")
    strength = docs / "strength.md"
    frontier.drawn(files.read_sealed(root / "frontier" / "three-pairs.json")["points"], strength)
    blocks.inserted(strength, "scale", scale.table(files.read_sealed(root / "scale" / "digits.json")))
    found = files.read_sealed(root / "norm-statistics" / "efficientnet-lite0.json")
    blocks.inserted(strength, "norm statistics", norm_statistics.table(found))
    idea_figure.write(docs / "figures" / "idea.svg")
    merging.write(root / "merging", docs / "merging.md")
    freezing.write(root / "freezing", docs / "freezing.md")
    blocks.inserted(docs / "online.md", "online", mango.tables(root / "online"))
    blocks.inserted(docs / "lora.md", "lora", lora.table(files.read_sealed(root / "lora" / "perplexity.json")))
    repair_page.write(root / "repair", docs / "repair.md")
    repair_vision.write(root / "repair", docs / "repair.md")
    language_page.write(root / "evidence", docs / "evidence.md")
    measured_page.write(root / "evidence", docs / "evidence.md", root / "freezing")
    vision_page.write(root / "evidence" / "vision-pairs.json", docs / "evidence.md")
    length.write(root / "evidence" / "length.json", docs / "evidence.md")
    share.write(root / "evidence" / "share.json", docs / "evidence.md")


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.pages", description=__doc__)
    parser.parse_args(words)
    try:
        write(Path("results"), Path("docs"), Path("README.md"))
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

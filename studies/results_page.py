"""The tables of `docs/results.md`: each block that `forgetless report PATH --markdown` makes, from `results/`.

python -m studies.results_page
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from forgetless.errors import ForgetlessError
from studies import blocks


def write(root: Path, docs: Path) -> list[Path]:
    """Write the tables anew; gives what was written.

    Args:
        root: the folder of all results, which blocks name as `results/…`.
        docs: has `results.md`.

    Raises:
        ForgetlessError: results that the page names are missing or damaged.
    """
    blocks.reported(docs / "results.md", root.parent)
    return [docs / "results.md"]


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.results_page", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the folder of committed runs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder of pages")
    options = parser.parse_args(words)
    try:
        for path in write(options.results, options.docs):
            print(path)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

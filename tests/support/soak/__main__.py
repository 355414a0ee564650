"""`make soak`: every part, or those that are named; each goes on from what it has left.

PYTHONPATH=tests/support OMP_NUM_THREADS=1 python -m soak networks stream online day kills altered-files
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from soak import altered_files, day, kills, networks, online, stream

#: A part → what runs it, and how much of it is done in two hours on one core.
PARTS: dict[str, tuple[Callable[[int], bool], int]] = {
    "networks": (networks.run, 2_000),
    "stream": (stream.run, 1_000_000),
    "online": (online.run, 1_000_000),
    "day": (day.run, 24),
    "kills": (kills.run, 200),
    "altered-files": (altered_files.run, 10_000_000),
}


def main() -> None:
    """See the top of this file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("parts", nargs="*", default=[*PARTS], help=f"of {', '.join(PARTS)}; all of them by default")
    words.add_argument("--count", type=int, help="how much of it, of a single part")
    given = words.parse_args()
    if unknown := [part for part in given.parts if part not in PARTS]:
        words.error(f"no part is called {unknown[0]!r}; there are {', '.join(PARTS)}.")
    well = [PARTS[part][0](given.count or PARTS[part][1]) for part in given.parts]
    raise SystemExit(not all(well))


if __name__ == "__main__":
    main()

"""What runs found: `results.json` read, checked, written, and summed up over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.results.compared import Compared, compared, points, with_derived
from forgetless.lab.results.content import check
from forgetless.lab.results.joined import joined
from forgetless.lab.results.summary import (
    MEANING,
    Estimate,
    MethodSummary,
    Summary,
    column,
    derived,
    given,
    percent,
    summarize,
)

__all__ = [
    "MEANING",
    "Compared",
    "Estimate",
    "MethodSummary",
    "Summary",
    "check",
    "column",
    "compared",
    "derived",
    "given",
    "joined",
    "parts",
    "percent",
    "points",
    "read",
    "summarize",
    "with_derived",
    "write",
]


def read(path: str | Path) -> dict[str, Any]:
    """Read and check results; `path` is the file, or the run directory that holds it as `results.json`.

    Raises:
        ForgetlessError: the file is missing, damaged, edited by hand, or does not hold the results of an experiment.
    """
    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    content = files.read_sealed(path)
    try:
        check(content)
    except ForgetlessError as error:
        raise ForgetlessError(f"{path} does not hold results: {error}") from error
    return content


def parts(path: str | Path) -> dict[str, dict[str, Any]]:
    """The results of each run in a folder that holds several, by its folder, with its `config`; none of other folders.

    Raises:
        ForgetlessError: a file is damaged.
    """
    found = {}
    for folder in _inside(Path(path)):
        config = folder / "config.json"
        found[folder.name] = {**read(folder), **({"config": files.read_json(config)} if config.exists() else {})}
    return found


def _inside(path: Path) -> list[Path]:
    """The run directories in a folder that is none itself."""
    if not path.is_dir() or (path / "results.json").exists():
        return []
    return sorted(each.parent for each in path.glob("*/results.json"))


def write(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write results with their checksum, whole or not at all.

    Raises:
        ForgetlessError: the content is not the results of an experiment.
    """
    check(content)
    files.write_sealed(path, content)

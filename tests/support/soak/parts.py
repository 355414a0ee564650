"""What the parts of a soak share: their file of results, and a line now and then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import forgetless

RESULTS = Path(__file__).parents[3] / "results" / "soak"


def begun(file: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run has left, or `fresh`."""
    return dict(json.loads(file.read_text())) if file.exists() else fresh


def save(file: Path, results: dict[str, Any]) -> None:
    """Write the results, with what they were made by."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = {"torch": torch.__version__, "forgetless": forgetless.__version__}
    file.write_text(json.dumps({**results, **made}, indent=1) + "\n")


def finish(results: dict[str, Any]) -> bool:
    """Print them; whether nothing was wrong."""
    print({key: value for key, value in results.items() if key != "wrong"}, len(results["wrong"]), "wrong", flush=True)
    return not results["wrong"]

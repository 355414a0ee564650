"""`make soak`: many random networks against the one-sample loop; resumable, its results in one JSON file.

PYTHONPATH=tests/support python -m soak --networks 2000
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import forgetless
from random_networks import measured

RESULTS = Path(__file__).parents[2] / "results" / "soak" / "random-networks.json"
EXACT = 1e-10


def begun(file: Path, first: int) -> dict[str, Any]:
    """What an earlier run has left, or nothing yet."""
    if file.exists():
        return dict(json.loads(file.read_text()))
    counts = {"networks": 0, "fast": 0, "slow": 0, "refused": 0, "raised": 0}
    return {"first_seed": first, "next_seed": first, **counts, "worst_error": 0.0, "worst_seed": first, "wrong": []}


def add(results: dict[str, Any], seed: int) -> None:
    """One more network."""
    try:
        found = measured(seed)
    except Exception as error:
        found = {"seed": seed, "path": "raised", "why": f"{type(error).__name__}: {error}"[:300]}
    results["networks"] += 1
    results[found["path"]] += 1
    if found.get("error", 0.0) > results["worst_error"]:
        results |= {"worst_error": found["error"], "worst_seed": seed}
    if found["path"] in ("refused", "raised") or found["error"] > EXACT or found["said"]:
        results["wrong"].append(found)
        print(found, flush=True)
    results["next_seed"] = seed + 1


def main() -> None:
    """See the top of this file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--networks", type=int, default=2000, help="until so many are done")
    words.add_argument("--first", type=int, default=1000, help="the first seed, of a new file")
    words.add_argument("--file", type=Path, default=RESULTS)
    given = words.parse_args()
    torch.set_num_threads(1)
    given.file.parent.mkdir(parents=True, exist_ok=True)
    results = begun(given.file, given.first)
    results |= {"exact": EXACT, "dtype": "float64", "torch": torch.__version__, "forgetless": forgetless.__version__}
    while results["networks"] < given.networks:
        add(results, results["next_seed"])
        if results["networks"] % 50 == 0 or results["networks"] == given.networks:
            given.file.write_text(json.dumps(results, indent=1) + "\n")
    print({key: value for key, value in results.items() if key != "wrong"}, len(results["wrong"]), "wrong")
    raise SystemExit(bool(results["wrong"]))


if __name__ == "__main__":
    main()

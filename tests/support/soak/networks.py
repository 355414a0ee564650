"""Many random networks against the one-sample loop, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from random_networks import measured
from soak.parts import RESULTS, begun, finish, save

EXACT = 1e-10


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


def run(networks: int, first: int = 1000, file: Path = RESULTS / "random-networks.json") -> bool:
    """Until so many are done. Whether all were measured rightly."""
    torch.set_num_threads(1)
    counts = {"networks": 0, "fast": 0, "slow": 0, "refused": 0, "raised": 0}
    fresh = {"first_seed": first, "next_seed": first, **counts, "worst_error": 0.0, "worst_seed": first, "wrong": []}
    results = begun(file, {**fresh, "exact": EXACT, "dtype": "float64"})
    while results["networks"] < networks:
        add(results, results["next_seed"])
        if results["networks"] % 50 == 0 or results["networks"] == networks:
            save(file, results)
    return finish(results)

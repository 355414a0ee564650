"""Millions of altered files for every reader: each is taken for what was written, or refused in one sentence."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from altered import altered
from readers import READERS
from soak.parts import RESULTS, begun, finish, save

FILE = RESULTS / "altered-files.json"
ROUND = 500  # inputs for each reader before the next


def run(inputs: int, file: Path = FILE) -> bool:
    """Until all readers together have met so many. Whether nothing else happened."""
    torch.set_num_threads(1)
    results = begun(file, {"inputs": 0, "readers": dict.fromkeys(READERS, 0), "wrong": []})
    good = {name: list(reader.good()) for name, reader in READERS.items()}
    place = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        while results["inputs"] < inputs:
            for name in READERS:
                _round(results, name, good[name], place)
            results["inputs"] = sum(results["readers"].values())
            save(file, results)
    finally:
        shutil.rmtree(place)
    return finish(results)


def _round(results: dict[str, Any], name: str, good: list[bytes], place: Path) -> None:
    done = results["readers"].setdefault(name, 0)
    for seed in range(done, done + ROUND):
        root = place / "each"
        root.mkdir()
        try:
            READERS[name].read(altered(good[seed % len(good)], seed), root)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            results["wrong"].append({"reader": name, "seed": seed, "what": f"{type(error).__name__}: {error}"[:300]})
            print(results["wrong"][-1], flush=True)
        finally:
            shutil.rmtree(root)
    results["readers"][name] = done + ROUND

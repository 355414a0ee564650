"""Millions of altered files for every reader: each is taken for what was written, or refused in one sentence."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from altered import altered
from readers import READERS
from soak.parts import RESULTS, begun, finish, save

FILE = RESULTS / "altered-files.json"
LEAST = 200_000  # inputs that each reader meets first; after that each gets the same time
SECONDS = 1.0  # for each reader before the next


def run(inputs: int, file: Path = FILE) -> bool:
    """Until all readers together have met so many. Whether nothing else happened."""
    torch.set_num_threads(1)
    results = begun(file, {"inputs": 0, "readers": {}, "wrong": []})
    good = {name: list(reader.good()) for name, reader in READERS.items()}
    done: dict[str, int] = results["readers"]
    results["readers"] = done = {name: done.get(name, 0) for name in READERS}
    while results["inputs"] < inputs:
        behind = [name for name in READERS if done[name] < min(LEAST, inputs // len(READERS))]
        for name in behind or READERS:
            _round(results, name, good[name])
        results["inputs"] = sum(done.values())
        save(file, results)
    return finish(results)


def _round(results: dict[str, Any], name: str, good: list[bytes]) -> None:
    """As many inputs as a reader takes in a second; their numbers go on where the last round ended."""
    seed, end = results["readers"][name], time.monotonic() + SECONDS
    place = _place()
    while time.monotonic() < end:
        try:
            READERS[name].read(altered(good[seed % len(good)], seed, good), place)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            results["wrong"].append({"reader": name, "seed": seed, "what": f"{type(error).__name__}: {error}"[:300]})
            print(results["wrong"][-1], flush=True)
            shutil.rmtree(place)
            place = _place()
        seed += 1
    shutil.rmtree(place)
    results["readers"][name] = seed


def _place() -> Path:
    """A folder in memory, where there is one."""
    return Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))

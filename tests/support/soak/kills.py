"""Runs that are killed at random moments and resumed until they end: the results are those of a run left alone."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from soak.parts import RESULTS, begun, finish, save

FILE = RESULTS / "kills.json"
#: What is run: words after `forgetless`, `OUT` for the folder; and the file whose numbers are compared.
COMMANDS = {
    "a run": (["run", "demo", "--method", "mas", "--method", "si", "--out", "OUT", "--resume"], "results.json"),
    "several processes": (
        ["run", "demo", "--seeds", "2", "--method", "mas", "--processes", "2", "--out", "OUT", "--resume"],
        "results.json",
    ),
}


def run(kills: int, file: Path = FILE) -> bool:
    """Until so many processes were killed. Whether every run ended with the same numbers, and left nothing behind."""
    results = begun(file, {"kills": 0, "runs": dict.fromkeys(COMMANDS, 0), "wrong": []})
    whole: dict[str, Any] = {}
    while results["kills"] < kills:
        for name in COMMANDS:
            chance = random.Random(results["kills"])
            with tempfile.TemporaryDirectory() as place:
                if name not in whole:
                    start = time.monotonic()
                    whole[name] = (_left_alone(name, Path(place) / "whole"), time.monotonic() - start)
                _killed(results, name, whole[name], Path(place) / "run", chance)
            save(file, results)
    return finish(results)


def _command(name: str, out: Path) -> list[str]:
    words = [str(out) if word == "OUT" else word for word in COMMANDS[name][0]]
    return [sys.executable, "-m", "forgetless", *words]


def _numbers(name: str, out: Path) -> Any:
    runs = json.loads((out / COMMANDS[name][1]).read_text())["runs"]
    return {(each["method"], each["seed"]): each["accuracy"] for each in runs}


def _left_alone(name: str, out: Path) -> tuple[Any, list[str]]:
    subprocess.run(_command(name, out), check=True, capture_output=True)
    return _numbers(name, out), _listing(out)


def _listing(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def _killed(results: dict[str, Any], name: str, whole: Any, out: Path, chance: random.Random) -> None:
    (expected, listing), seconds = whole
    while True:
        process = subprocess.Popen(
            _command(name, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            _, said = process.communicate(timeout=chance.uniform(0.2, 1.2) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)  # its own processes see it, and end
            process.communicate()
            results["kills"] += 1
            continue
        break
    found = "nothing" if process.returncode else _numbers(name, out)
    results["runs"][name] = results["runs"].get(name, 0) + 1
    if process.returncode or found != expected or _listing(out) != listing:
        what = {"run": name, "code": process.returncode, "said": said[-300:], "equal": found == expected}
        results["wrong"].append({**what, "besides": sorted(set(_listing(out)) ^ set(listing))})
        print(results["wrong"][-1], flush=True)
        shutil.rmtree(out, ignore_errors=True)

"""Checks of everything that runs on a GPU, on one CUDA device, in at most five minutes: `make test-gpu`.

    PYTHONPATH=src python scripts/test_gpu.py
    PYTHONPATH=src python scripts/test_gpu.py --only "CUDA graph" --only "FSDP2"
    PYTHONPATH=src python scripts/test_gpu.py --device cpu --quick          # that the script itself works

Needs torch, numpy and safetensors; no network, no data. Every check prints a line: "ok", "FAILED", "refused" (the
library says in a sentence that it does not do this) or "not run" (not possible on this machine). Outcomes and figures
are written to `results/gpu/CARD.json`, after every check anew. Exit code 1 if a check failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

try:
    import safetensors
    import torch

    import forgetless
    from scripts.on_gpu import cost, exactness, placement, pull
    from scripts.on_gpu.checking import Check, Outcome, Setting, run
except ImportError as error:
    sys.exit(f"scripts/test_gpu.py needs torch, numpy and safetensors: {error}")

ALL: list[Check] = [
    *exactness.CHECKS,
    *pull.CHECKS,
    *placement.CHECKS,
    *cost.CHECKS,
    *exactness.COMPILED,
    *pull.COMPILED,
    *pull.GRAPHS,
]
ORDER = ("FAILED", "refused", "not run", "ok")


def main() -> int:
    """See the top of this file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda")
    words.add_argument("--quick", action="store_true", help="small sizes and few repeats")
    words.add_argument("--only", action="append", default=[], metavar="WORDS", help="checks with these in their names")
    words.add_argument("--seconds", type=float, default=290.0, help="after which no further check is begun")
    words.add_argument("--out", type=Path, help="the JSON file; results/gpu/CARD.json on a GPU, else none")
    words.add_argument("--list", action="store_true", help="print the names of the checks and end")
    given = words.parse_args()
    checks = [check for check in ALL if not given.only or any(each in check.name for each in given.only)]
    if given.list or not checks:
        print("\n".join(check.name for check in (checks or ALL)))
        return 0 if checks else 2
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no CUDA device here; --device cpu --quick tries the script itself", file=sys.stderr)
        return 2
    setting = Setting(_device(given.device), given.quick)
    place = environment(setting)
    out = given.out or (ROOT / "results" / "gpu" / f"{slug(place['card'])}.json" if setting.cuda else None)
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        print(outcome.line(), *(f"    {line}" for line in outcome.traceback), sep="\n", flush=True)
        outcomes.append(outcome)
        if out is not None:
            write(out, {"environment": place, "checks": [each.as_dict() for each in outcomes]})

    run(checks, setting, given.seconds, done)
    print("\n" + table(outcomes, place))
    if out is not None:
        print(f"written to {out}")
    return int(any(outcome.outcome == "FAILED" for outcome in outcomes))


def environment(setting: Setting) -> dict[str, Any]:
    """What the figures depend on."""
    properties = torch.cuda.get_device_properties(setting.device) if setting.cuda else None
    return {
        "card": properties.name if properties else platform.processor() or "cpu",
        "memory MiB": properties.total_memory // 2**20 if properties else None,
        "capability": f"{properties.major}.{properties.minor}" if properties else None,
        "driver": _driver() if setting.cuda else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if setting.cuda else None,
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
        "torchvision": "torchvision" in sys.modules or _importable("torchvision"),
        "python": platform.python_version(),
        "forgetless": forgetless.__version__,
        "TF32": "torch's defaults for times, off for exactness",
        "quick": setting.quick,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def table(outcomes: list[Outcome], place: dict[str, Any]) -> str:
    """How many checks ended in which way, and what did not end well."""
    counts = {each: sum(outcome.outcome == each for outcome in outcomes) for each in ORDER}
    lines = [f"{place['card']}, driver {place['driver']}, torch {place['torch']}, CUDA {place['cuda']}"]
    lines += [f"{each:>8}  {count}" for each, count in counts.items()]
    for each in ORDER[:3]:
        lines += [
            f"{each}: {outcome.name}: {outcome.sentence}"[:240] for outcome in outcomes if outcome.outcome == each
        ]
    for outcome in outcomes:
        ratios = {key: value for key, value in outcome.figures.items() if "÷" in key or "MiB" in key}
        if outcome.name.startswith("cost") and ratios:
            lines.append(f"{outcome.name}: " + ", ".join(f"{key} {value:.4g}" for key, value in ratios.items()))
    return "\n".join(lines)


def slug(card: str) -> str:
    """The card's name in letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-") or "card"


def write(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all; what is not a number becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(_plain(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    return value


def _device(name: str) -> torch.device:
    device = torch.device(name)
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else device


def _driver() -> str | None:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        found = Path("/proc/driver/nvidia/version")
        said = re.search(r"\d+\.\d+(\.\d+)?", found.read_text()) if found.exists() else None
        return said.group() if said else None


def _importable(name: str) -> bool:
    try:
        __import__(name)
    except Exception:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

"""What repairing a weight costs: Donoho and Gavish's threshold by the Gram matrix, beside a thin SVD, in one process.

python benchmarks/repair.py [--rows 4096] [--columns 11008]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from forgetless import edit
from forgetless.edit.difference import Difference
from forgetless.edit.noise import threshold_by_median

RESULTS = Path(__file__).parent / "results" / "repair.json"


def weights(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """A weight, and it after 20 directions and noise were added; bfloat16."""
    draw = torch.Generator().manual_seed(0)
    base = 0.02 * torch.randn(rows, columns, generator=draw)
    left, right = (torch.randn(length, 20, generator=draw) / length**0.5 for length in (rows, columns))
    change = left @ right.T + 1e-4 * torch.randn(rows, columns, generator=draw)
    return base.bfloat16(), (base + change).bfloat16()


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, once."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def by_svd(base: Tensor, tuned: Tensor) -> tuple[int, Tensor]:
    """The same by a thin SVD in float32, as the authors' code has it."""
    delta = tuned.float() - base.float()
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    kept = values > threshold_by_median(Difference(base, tuned).beta) * values.median()
    return int(kept.sum()), (base.float() + (left[:, kept] * values[kept]) @ right[kept]).to(tuned.dtype)


CHILD = """
import sys
from pathlib import Path
from forgetless import edit
status = lambda key: int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: a new process has its parent's
before = status("VmRSS")
edit.repair(*sys.argv[1:4], method=sys.argv[4])
print(status("VmHWM") - before)
"""


def peak(base: Tensor, tuned: Tensor, method: str) -> int:
    """Megabytes that `edit.repair` adds to a new process that has imported it; checkpoints of this weight twice."""
    with tempfile.TemporaryDirectory() as place:
        for name, each in (("base", base), ("tuned", tuned)):
            os.mkdir(f"{place}/{name}")
            save_file({"a": each, "b": each + 0}, f"{place}/{name}/model.safetensors")
        words = [sys.executable, "-c", CHILD, *(f"{place}/{name}" for name in ("base", "tuned", "out")), method]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    return round(int(done.stdout) / 1024)


def main() -> None:
    """Measure, print, and keep the figures in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=11008)
    parser.add_argument("--no-svd", action="store_true", help="leave out the thin SVD")
    asked = parser.parse_args()
    base, tuned = weights(asked.rows, asked.columns)
    found: dict[str, object] = {"shape": [asked.rows, asked.columns], "threads": torch.get_num_threads()}
    states = {"w": base}, {"w": tuned}
    results: list[tuple[dict[str, Tensor], dict[str, dict[str, object]]]] = []
    found["seconds"] = round(seconds(lambda: results.append(edit.repaired(*states))), 1)
    found["kept"] = results[0][1]["w"]["kept"]
    if not asked.no_svd:
        other: list[tuple[int, Tensor]] = []
        found["seconds by a thin SVD"] = round(seconds(lambda: other.append(by_svd(base, tuned))), 1)
        found["kept by a thin SVD"] = other[0][0]
        found["weights that differ"] = int((other[0][1] != results[0][0]["w"]).sum())
    found["MB of a tensor"] = base.nbytes >> 20
    found["MB at the peak"] = {method: peak(base, tuned, method) for method in ("wise-ft", "dg-hard")}
    print(json.dumps(found, indent=2))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

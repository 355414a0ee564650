"""What repairing a weight costs: Donoho and Gavish's threshold by the Gram matrix, beside a thin SVD; and memory.

    python benchmarks/repair.py                 times and memory of a weight of 4096 × 11008
    OMP_NUM_THREADS=1 python benchmarks/repair.py --only memory   one of the two; the file keeps the other
    OMP_NUM_THREADS=1 python benchmarks/repair.py --only time --clock cpu --rows 2048 --columns 5504

Both are of a process of its own or of this one, once each; `--clock cpu` counts what one thread computes, on a machine
that others use as well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

from forgetless import edit
from forgetless.edit import spectrum
from forgetless.edit.difference import Difference
from forgetless.edit.noise import threshold_by_median
from importance import Clock

RESULTS = Path(__file__).parent / "results" / "repair.json"
METHODS = ("wise-ft", "dg-hard", "ties", "dare-ties", "task-arithmetic")  # whose memory is measured


def weights(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """A weight, and it after 20 directions and noise were added; bfloat16."""
    draw = torch.Generator().manual_seed(0)
    base = 0.02 * torch.randn(rows, columns, generator=draw)
    left, right = (torch.randn(length, 20, generator=draw) / length**0.5 for length in (rows, columns))
    change = left @ right.T + 1e-4 * torch.randn(rows, columns, generator=draw)
    return base.bfloat16(), (base + change).bfloat16()


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
place, method = sys.argv[1:]
if method in edit.REPAIRS:
    edit.repair(f"{place}/base", f"{place}/tuned", f"{place}/out", method=method)
else:
    edit.merge([f"{place}/tuned", f"{place}/other"], f"{place}/out", base=f"{place}/base", method=method)
print(status("VmHWM") - before)
"""


def times(rows: int, columns: int, clock: Clock) -> dict[str, object]:
    """Seconds of a repair, of one with all eigenvectors (as without SciPy), and of a thin SVD."""
    base, tuned = weights(rows, columns)
    found: dict[str, object] = {"shape": [rows, columns], "threads": torch.get_num_threads(), "clock": clock.kind}
    results: list[tuple[dict[str, Tensor], dict[str, dict[str, object]]]] = []
    found["seconds"] = round(clock.time(lambda: results.append(edit.repaired({"w": base}, {"w": tuned}))), 1)
    with mock.patch.object(spectrum, "_SMALL", math.inf):
        seconds = clock.time(lambda: results.append(edit.repaired({"w": base}, {"w": tuned})))
    found["seconds with all eigenvectors"] = round(seconds, 1)
    other: list[tuple[int, Tensor]] = []
    found["seconds by a thin SVD"] = round(clock.time(lambda: other.append(by_svd(base, tuned))), 1)
    (kept, by_values), repaired = other[0], results[0][0]["w"]
    found["kept"], found["kept by a thin SVD"] = results[0][1]["w"]["kept"], kept
    found["weights that differ"] = int((by_values != repaired).sum())
    return found


def memory(rows: int, columns: int, methods: Sequence[str] = METHODS) -> dict[str, object]:
    """Megabytes that each method adds to a new process that has imported it; checkpoints of this weight twice."""
    versions = dict(zip(("base", "tuned"), weights(rows, columns), strict=True))
    found: dict[str, object] = {"shape": [rows, columns], "MB of a tensor": versions["base"].nbytes >> 20}
    with tempfile.TemporaryDirectory() as place:
        for name in ("base", "tuned", "other"):
            each = versions.get(name, versions["base"])
            os.mkdir(f"{place}/{name}")
            save_file({"a": each, "b": each + 0}, f"{place}/{name}/model.safetensors")
        peaks = {}
        for method in methods:
            words = [sys.executable, "-c", CHILD, place, method]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            peaks[method] = round(int(done.stdout) / 1024)
            shutil.rmtree(f"{place}/out")
    return {**found, "MB at the peak": peaks}


def main() -> None:
    """Measure, print, and keep the figures in benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=11008)
    parser.add_argument("--only", choices=("time", "memory"))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    asked = parser.parse_args()
    measured: dict[str, object] = {}
    if asked.only != "memory":
        measured["time"] = times(asked.rows, asked.columns, Clock(asked.clock))
    if asked.only != "time":
        measured["memory"] = memory(asked.rows, asked.columns)
    found = {**json.loads(RESULTS.read_text()), **measured}
    print(json.dumps(found, indent=2))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

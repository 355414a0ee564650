"""What measuring importance costs, as a ratio to one plain forward and backward pass over the same samples.

    python benchmarks/importance.py                                   every network, every row that is not there yet
    python benchmarks/importance.py --only resnet18-64 --rows ours,local-mas --again
    python benchmarks/importance.py --table                           rewrite the tables in docs/performance.md

Plain is ‖F‖² forward and backward for all parameters in eval mode, at the batch size and memory layout that are best
for it; ours is `forgetless.mas` itself, handed batches of any size, in that layout, in the steady state of a pass.
Every row is timed in turn with plain, round by round, and what is reported is the median over rounds of the ratio to
the plain of the same round. Peak memory beyond the model and its inputs is taken in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import forgetless
import peers
from forgetless.measure.kernels.parts import native
from networks import NETWORKS, Network

RESULTS = Path(__file__).parent / "results" / "importance.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- importance: begin -->\n", "<!-- importance: end -->"
FEW = 16  # the least samples at a time at which the price of one is to stay the same
OURS: dict[str, Callable[..., Any]] = {
    "ours": forgetless.mas,
    "ours-torch": forgetless.mas,
    "ours-16": functools.partial(forgetless.mas, batch_size=FEW),
    "local-mas": forgetless.local_mas,
    "fisher-sampled": functools.partial(forgetless.fisher, labels="sampled"),
    "fisher-empirical": functools.partial(forgetless.fisher, labels="empirical"),
}
PEERS: dict[str, tuple[Callable[[nn.Module], peers.Pass], float]] = {  # and the seconds that a pass of it may take
    "plain-16": (peers.plain, 0),
    "per-batch": (peers.per_batch, 0),
    "one-by-one": (peers.one_by_one, 1),
    "vmap": (peers.vectorized, 1),
    "opacus": (peers.opacus, 1),
    "backpack": (peers.backpack, 1),
    "nngeometry": (peers.nngeometry, 1),
}
TITLES = {
    "ours": "`mas`, with the C kernel",
    "ours-torch": "`mas`, pure PyTorch",
    "ours-16": "`mas(batch_size=16)`",
    "plain-16": "plain in batches of 16",
    "local-mas": "`local_mas`",
    "fisher-sampled": '`fisher(labels="sampled")`',
    "fisher-empirical": '`fisher(labels="empirical")`',
    "per-batch": "modulus per batch (inexact)",
    "one-by-one": "batches of one",
    "vmap": "`torch.func.vmap(grad)`",
    "opacus": "Opacus",
    "backpack": "BackPACK",
    "nngeometry": "nngeometry",
}
ROUNDS_OF_A_PEER = 2
SAMPLES_OF_A_PEER = 8  # it holds a gradient of every parameter for each


class Clock:
    """Seconds, of the wall or of this process's own work where other programs use the machine."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.now = time.process_time if kind == "cpu" else time.perf_counter

    def time(self, work: Callable[[], Any]) -> float:
        """Seconds that `work` takes."""
        start = self.now()
        work()
        return self.now() - start


class Bench:
    """One network, its inputs, and the layout and batch size that are best for plain."""

    def __init__(self, network: Network, clock: Clock, best: dict[str, Any] | None = None) -> None:
        torch.manual_seed(0)
        self.network, self.clock = network, clock
        self.model = network.make().eval()
        self.best = best or self._search()
        self._lay()
        self.x = self.inputs(self.best["batch"])
        self.large = self.inputs(network.large)
        shape = (network.large, network.tokens) if network.tokens else (network.large,)
        self.labels = torch.randint(network.classes, shape)

    def inputs(self, count: int) -> Tensor:
        """Samples in the layout."""
        x = self.network.inputs(count)
        return x.to(memory_format=self.layout) if self.network.images else x

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout that is best for plain."""
        return torch.channels_last if self.best["channels_last"] else torch.contiguous_format

    def _lay(self) -> None:
        if self.network.images:
            self.model = self.model.to(memory_format=self.layout)

    def _search(self) -> dict[str, Any]:
        """The quickest of three passes of plain at every layout and batch size."""
        found: list[dict[str, Any]] = []
        for channels_last in (False, True) if self.network.images else (False,):
            for batch in self.network.batches:
                self.best = {"channels_last": channels_last, "batch": batch}
                self._lay()
                x = self.inputs(batch)
                run = peers.plain(self.model)
                run(x)
                seconds = min(self.clock.time(lambda: run(x)) for _ in range(3)) / batch  # noqa: B023
                found.append({**self.best, "seconds": seconds})
        return {**min(found, key=lambda each: each["seconds"]), "tried": found}

    def plain(self) -> float:
        """Seconds a sample of plain, over about as many samples as ours are timed on."""
        run = peers.plain(self.model)
        times = max(1, self.network.large // len(self.x))
        seconds = self.clock.time(lambda: [run(self.x) for _ in range(times)])
        self._forget()
        return seconds / (times * len(self.x))

    def ours(self, row: str) -> tuple[float, float]:
        """Seconds a sample in the steady state, and seconds that the start of the pass takes beyond that."""
        batch: Any = (self.large, self.labels) if row == "fisher-empirical" else self.large
        stamps: list[float] = []

        def batches() -> Iterator[Any]:
            for _ in range(2):
                stamps.append(self.clock.now())
                yield batch
            stamps.append(self.clock.now())

        with native.switched_off() if row == "ours-torch" else contextlib.nullcontext():
            begin = self.clock.now()
            OURS[row](self.model, batches(), progress=False)
        steady = stamps[2] - stamps[1]
        return steady / len(self.large), stamps[1] - begin - steady

    def peer(self, row: str) -> Callable[[], float]:
        """A function that times a peer: seconds a sample."""
        make, limit = PEERS[row]
        run = make(self.model)
        if row == "plain-16":
            pieces = self.large.split(FEW)

            def in_pieces() -> float:
                seconds = self.clock.time(lambda: [run(piece) for piece in pieces])
                self._forget()
                return seconds / len(self.large)

            return in_pieces
        x = self.x if row == "per-batch" else self.large[:SAMPLES_OF_A_PEER]
        if row != "per-batch":  # few samples where they are slow
            run(self.large[:2])
            each = self.clock.time(lambda: run(self.large[:2])) / 2
            x = x[: max(2, int(limit / each))] if each * len(x) > limit else x
        run(x)
        self._forget()
        times = max(1, self.network.large // len(x)) if row == "per-batch" else 1

        def timed() -> float:
            seconds = self.clock.time(lambda: [run(x) for _ in range(times)])
            self._forget()
            return seconds / (times * len(x))

        return timed

    def _forget(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None


def measure(bench: Bench, rows: list[str], rounds: int) -> dict[str, Any]:
    """All rows in turn, round by round."""
    found: dict[str, Any] = {}
    timers: dict[str, Callable[[], float]] = {}
    for row in rows:
        if row in PEERS:
            try:
                timers[row] = bench.peer(row)
            except Exception as error:
                said = str(error) if isinstance(error, peers.Unserved) else f"{type(error).__name__}: {error}"
                found[row] = {"unserved": said.splitlines()[0][:200]}
    ours = [row for row in rows if row in OURS]
    seconds: dict[str, list[float]] = {row: [] for row in [*ours, *timers]}
    plains: dict[str, list[float]] = {row: [] for row in seconds}
    starts: dict[str, list[float]] = {row: [] for row in ours}
    for each in range(rounds):
        plain = bench.plain()
        for row in seconds:
            if row in timers and row not in ("per-batch", "plain-16") and each >= ROUNDS_OF_A_PEER:
                continue
            if row in OURS:
                steady, start = bench.ours(row)
                starts[row].append(start)
            else:
                steady = timers[row]()
            seconds[row].append(steady)
            plains[row].append(plain)
    for row, times in seconds.items():
        ratios = [mine / plain for mine, plain in zip(times, plains[row], strict=True)]
        found[row] = {
            "ratio": statistics.median(ratios),
            "ratios": ratios,
            "seconds": times,
            "plain_seconds": plains[row],
        }
        if row in starts:
            found[row]["start_in_plain_samples"] = statistics.median(
                start / plain for start, plain in zip(starts[row], plains[row], strict=True)
            )
    return found


def peak(name: str, row: str, best: dict[str, Any]) -> float:
    """MiB that one pass adds to the model and its inputs, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", json.dumps([name, row, best])]
    # What is freed goes back to the system at once, so that the peak is of memory in use.
    place = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=place)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def memory_of(name: str, row: str, best: dict[str, Any]) -> None:
    """Print the peak of this process beyond what it holds before the pass."""
    bench = Bench(NETWORKS[name], Clock("wall"), best)
    if row in OURS:
        batch: Any = (bench.large, bench.labels) if row == "fisher-empirical" else bench.large
        warm = (batch[0][:2], batch[1][:2]) if isinstance(batch, tuple) else batch[:2]

        def work(batch: Any) -> None:
            with native.switched_off() if row == "ours-torch" else contextlib.nullcontext():
                OURS[row](bench.model, [batch], progress=False)

    else:
        run = peers.plain(bench.model) if row == "plain" else PEERS[row][0](bench.model)
        few = bench.x if row in ("plain", "per-batch") else bench.large[:SAMPLES_OF_A_PEER]
        batch, warm, work = few, bench.x[:2], run
    work(warm)  # what is loaded at first use is not this pass's
    bench._forget()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work(batch)
    print((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)


def environment(clock: str) -> dict[str, Any]:
    """What the numbers depend on."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in flags.splitlines() if line.startswith("model name")), "")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": model or platform.processor(),
        "vectors": next((word for word in ("avx512f", "avx2", "neon") if word in flags), ""),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": clock,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "forgetless": forgetless.__version__,
        "kernel": native.available(),
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    columns = [name for name in NETWORKS if name in results["networks"]]
    lines = [
        "| ÷ plain | " + " | ".join(NETWORKS[name].title for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row, title in TITLES.items():
        cells = [_cell(results["networks"][name]["rows"].get(row)) for name in columns]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| | " + " | ".join(NETWORKS[name].title for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    facts: dict[str, Callable[[dict[str, Any]], str]] = {
        "plain, ms a sample": lambda found: f"{1000 * found['best']['seconds']:.3g}",
        "its batch size": lambda found: str(found["best"]["batch"]),
        "its layout": lambda found: "channels last" if found["best"]["channels_last"] else "contiguous",
        "start of `mas`, in samples of plain": lambda found: _number(
            found["rows"].get("ours", {}).get("start_in_plain_samples")
        ),
        "peak MiB, plain": lambda found: _number(found.get("peak", {}).get("plain")),
        "peak MiB, `mas`": lambda found: _number(found.get("peak", {}).get("ours")),
        "peak MiB, `mas`, pure PyTorch": lambda found: _number(found.get("peak", {}).get("ours-torch")),
        "peak MiB, `vmap`, 8 samples": lambda found: _number(found.get("peak", {}).get("vmap")),
    }
    for title, fact in facts.items():
        lines.append(f"| {title} | " + " | ".join(fact(results["networks"][name]) for name in columns) + " |")
    places = {
        json.dumps({key: each["environment"][key] for key in ("cpu", "vectors", "cores", "threads", "clock", "torch")})
        for name in columns
        for each in results["networks"][name]["rows"].values()
    }
    for each in sorted(places):
        place = json.loads(each)
        lines += [
            "",
            f"{place['cpu']} ({place['vectors']}), {place['cores']} cores, {place['threads']} thread(s), clock: "
            f"{place['clock']}, torch {place['torch']}.",
        ]
    return "\n".join(lines)


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if "unserved" in found:
        return found["unserved"] if len(found["unserved"]) < 30 else "fails"
    return f"{found['ratio']:.2f}" if found["ratio"] < 9.95 else f"{found['ratio']:.0f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def main() -> None:
    """See the top of this file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--only", default=",".join(NETWORKS), help="networks")
    words.add_argument("--rows", default=",".join(TITLES), help="rows; plain is always measured beside them")
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--again", action="store_true", help="measure also what is in the file")
    words.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread, on a busy machine")
    words.add_argument("--no-memory", action="store_true")
    words.add_argument("--file", type=Path, default=RESULTS)
    words.add_argument("--table", action="store_true")
    words.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.memory_of:
        return memory_of(*json.loads(given.memory_of))
    results = json.loads(given.file.read_text()) if given.file.exists() else {"networks": {}}
    if given.table:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + table(results) + "\n" + END + rest.partition(END)[2])
        return None
    if given.clock == "cpu":
        torch.set_num_threads(1)
    for name in given.only.split(","):
        kept = results["networks"].setdefault(name, {"rows": {}, "peak": {}})
        rows = [row for row in given.rows.split(",") if given.again or row not in kept["rows"]]
        rows = [row for row in rows if row in OURS or row in PEERS]
        rows = [row for row in rows if not row.endswith("-16") or NETWORKS[name].large > FEW]
        if rows:
            bench = Bench(NETWORKS[name], Clock(given.clock), None if given.again else kept.get("best"))
            kept["best"] = bench.best
            place = environment(given.clock)
            for row, found in measure(bench, rows, given.rounds).items():
                kept["rows"][row] = {**found, "environment": place}
        for row in () if given.no_memory else ("plain", "ours", "ours-torch", "vmap"):
            if row != "plain" and (row not in given.rows.split(",") or "unserved" in kept["rows"].get(row, {})):
                continue
            if given.again or row not in kept["peak"]:
                kept["peak"][row] = peak(name, row, {**kept["best"], "tried": []})
        results["environment"] = environment(given.clock)
        given.file.parent.mkdir(parents=True, exist_ok=True)
        given.file.write_text(json.dumps(results, indent=1) + "\n")
        print(name, {row: _cell(found) for row, found in kept["rows"].items()}, kept["peak"], flush=True)
    return None


if __name__ == "__main__":
    main()

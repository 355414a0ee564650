"""The page of the eight tasks: every table and figure of the paper's object recognition, from the committed runs.

    python -m studies.eight_page

It writes `docs/eight-tasks.md`, its figures and the block "eight tasks" of README.md from `results/eight-tasks/*.json`,
which `python -m studies.collect` makes of runs of `forgetless run eight-tasks` (with `--pairs`, `--omega`, `--network`,
`--strength`, `--rise`, `--orders`): what each is, its config says. What has not been run is named as missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.experiments.parts import pairs
from forgetless.lab.published.mas_2018 import EIGHT_TASKS, TITLES
from forgetless.lab.report import markdown
from forgetless.lab.results import MethodSummary, percent, summarize
from studies import blocks, eight_figures, eight_sections, figures
from studies.eight_runs import MAIN, Found, collect, other_orders, plain, strengths

_RUN = "forgetless run eight-tasks --data DATA"
#: The λ of table 3 at one λ: the geometric mean of the four that the searches of table 2 found for MAS.
ONE = 0.375
#: All methods in the tasks' own order; then four of them in another order.
_SEQUENCE = (
    f"{_RUN} --seeds 3 --out runs/squeezenet",
    f"{_RUN} --method finetune --method ewc --method si --method mas --orders 2 --resume --seeds 3 "
    "--out runs/squeezenet",
)
#: Above: all the old data. Below: nothing learned in the backbone.
_CEILING, _FLOOR = "joint", "frozen"


def page(
    found: Sequence[Found], memory: Mapping[str, Any] | None = None, study: Mapping[str, Any] | None = None
) -> str:
    """The page as Markdown; `memory` and `study` are what `eight_memory` and `plasticity` measured."""
    lines = [line for part in _PARTS for line in part(found)]
    return blocks.wrapped("\n".join([*lines, *eight_sections.keeping(study), *eight_sections.memory(memory)])) + "\n"


def _top(found: Sequence[Found]) -> Iterator[str]:
    config = found[0].config
    limit, size, epochs = (config["options"][name] for name in ("limit", "size", "epochs"))
    yield f"""# Eight object recognition tasks

The paper's figure 5 and tables 2 and 3, on a machine without a GPU. `python -m studies.eight_page` makes this page, its
figures and the table in the README from the runs in [`results/eight-tasks`](../results/eight-tasks). Numbers called
*paper* are printed in Aljundi et al., ECCV 2018.

In the commands below, DATA holds selections of public datasets, which are not distributed with the package
([what it must hold](object-recognition.md#without-a-gpu)).

**What differs from the paper.** The paper uses AlexNet and pictures of 224 pixels; here SqueezeNet 1.1 (or
EfficientNet-Lite0) learns from pictures of {size} pixels, at most {limit} of a task, for {epochs} epochs. Scenes,
birds, actions and digits are other, smaller datasets; groceries replace aircraft. The paper's MAS has λ = 1; here
strengths are found by stability decay on the second task, for every method alike. The penalty acts as a proximal step
after the optimizer's (the pull), and Ω is exact per sample. Levels of accuracy therefore cannot be compared with the
paper's; how much each method forgets, and what that costs in accuracy on new tasks, can.
"""


def _main(found: Sequence[Found]) -> Iterator[str]:
    yield "## All methods"
    yield ""
    main = plain(found, MAIN)
    if main is None or not main.results["runs"]:
        yield from _missing(_SEQUENCE[0])
        return
    summary = summarize(main.results)
    yield "Two commands make the runs; the second adds [another order of the tasks](#other-orders-of-the-tasks):"
    yield ""
    yield from blocks.console(*_SEQUENCE)
    yield "`python -m studies.eight_page` draws:"
    yield ""
    yield "![Mean accuracy over the sequence, and each task's accuracy after the last](figures/eight-tasks.svg)"
    yield ""
    yield from comparison(summary.methods)
    yield ""
    yield from beside_mas(summary.methods)
    yield from _hindsight(found, summary.methods)
    yield ""
    environment = {key: value for key, value in main.results["environment"].items() if key != "command"}
    yield markdown({**main.results, "environment": environment})
    missing = [name for name in TITLES if name not in {m.method for m in summary.methods}]
    if missing:
        yield f"Not run yet: {', '.join(missing)}."
        yield ""


def comparison(methods: Sequence[MethodSummary]) -> Iterator[str]:
    """Figure 5 as a table: averages of every method, best first, and the paper's."""
    yield "| method | average | forgetting | when learned | seeds | paper: average | forgetting |"
    yield "|---|---|---|---|---|---|---|"
    for method in _best_first(methods):
        theirs = EIGHT_TASKS.get(method.method)
        paper = "– | –" if theirs is None else f"{theirs[0]:.2f} | {-theirs[1]:.2f}"
        cells = (percent(each) for each in (method.average, method.forgetting, method.average_learned))
        yield f"| {_title(method)} | {' | '.join(cells)} | {len(method.seeds)} | {paper} |"


def _title(method: MethodSummary) -> str:
    return method.label.replace(method.method, TITLES.get(method.method, method.method), 1)


def beside_mas(methods: Sequence[MethodSummary]) -> Iterator[str]:
    """MAS beside the best other method that keeps no samples, and beside joint training."""
    known = {method.method: method for method in methods if method.average is not None}
    if "mas" not in known:
        yield "MAS has not been run yet."
        return
    mas = known["mas"]
    others = {
        name: 100 * _average(method)
        for name, method in known.items()
        if name in TITLES and name not in ("mas", _CEILING)
    }
    average, lost = 100 * _average(mas), 100 * (mas.forgetting.mean if mas.forgetting else 0.0)
    if others:
        best = max(others, key=others.__getitem__)
        gap = round(average - others[best], 1)
        side = "above" if gap >= 0 else "below"
        yield f"- MAS is {abs(gap):.1f} points {side} the best other method that keeps no samples ({best})."
    yield f"- MAS has a forgetting of {lost:.1f} points."
    if _CEILING in known:
        gap = round(100 * _average(known[_CEILING]) - average, 1)
        yield f"- Joint training is {abs(gap):.1f} points {'above' if gap >= 0 else 'below'} MAS."
    if _FLOOR in known:
        under = [name for name, value in others.items() if name != _FLOOR and value < others[_FLOOR]]
        under += ["mas"] if average < others[_FLOOR] else []
        if under:
            yield f"- Below the frozen backbone, which forgets nothing: {', '.join(under)}."


def _hindsight(found: Sequence[Found], methods: Sequence[MethodSummary]) -> Iterator[str]:
    better = _in_hindsight(found, methods)
    if better:
        yield (
            f"- With a λ chosen by test accuracy ([below](#how-much-λ-matters)): {', '.join(better)}. MAS leads them "
            "here because of the search: its first strength suits MAS; for them it is too weak, and is accepted all "
            "the same. [A search that may rise](#the-same-search-allowed-to-rise) looks further."
        )


def _in_hindsight(found: Sequence[Found], methods: Sequence[MethodSummary]) -> list[str]:
    """Methods that reach MAS with the best strength that was run, and do not with the one found."""
    averages = {method.method: _average(method) for method in methods}
    better = []
    for name, curve in strengths(found).items():
        strength, best = max(curve.items(), key=lambda each: _average(each[1]))
        if averages.get(name, 1.0) < averages.get("mas", 0.0) <= _average(best):
            better.append(f"{TITLES[name]} {percent(best.average)} at λ = {strength:g}")
    return better


def _rising(found: Sequence[Found]) -> Iterator[str]:
    yield "## The same search, allowed to rise"
    yield ""
    runs = [each for each in found if each.eight and each.rising and each.network == MAIN]
    main = plain(found, MAIN)
    if not runs or not runs[0].results["runs"]:
        yield from _missing(f"{_RUN} --rise --method mas --method ewc --method si --seeds 3 --out runs/rising")
        return
    config, searched = runs[0].config, summarize(runs[0].results).methods
    yield (
        "A search that only goes down accepts a first strength that is too weak. With `--rise` it looks above a first "
        f"strength that is accepted, too: in {config['tuning']['search']['most']} trials, for every method alike."
    )
    yield ""
    yield from _made(runs[0].results, "--rise", "rising")
    unsearched = () if main is None else (each for each in summarize(main.results).methods if not each.strengths)
    methods = [*searched, *unsearched]
    yield from comparison(methods)
    yield ""
    yield from beside_mas(methods)
    yield from _easily_learned(methods)
    yield ""


def _easily_learned(methods: Sequence[MethodSummary]) -> Iterator[str]:
    """How well a frozen backbone learns the task that strengths are found on."""
    known = {method.method: method.learned[1] for method in methods}
    floor, free = known.get(_FLOOR), known.get("finetune")
    if floor and free:
        yield (
            f"- The search uses the second task alone, on which a frozen backbone reaches {floor.percent()} % and "
            f"fine-tuning {free.percent()} %. The better a frozen backbone learns that task, the fewer strengths the "
            "search refuses, and the less it says about tasks that need the backbone to change."
        )


def _orders(found: Sequence[Found]) -> Iterator[str]:
    yield "## Other orders of the tasks"
    yield ""
    others = other_orders(found)
    if not others:
        yield from _missing(_SEQUENCE[1])
        return
    yield "The second of the two commands [above](#all-methods) makes these runs."
    yield ""
    for order, summary in others.items():
        yield f"Order {order}: {' → '.join(summary.tasks)}."
        yield ""
        yield from comparison(summary.methods)
        yield ""
        yield from beside_mas(summary.methods)
        yield ""


def _networks(found: Sequence[Found]) -> Iterator[str]:
    others = [each for each in found if each.plain and each.network != MAIN and each.results["runs"]]
    yield "## Other networks"
    yield ""
    if not others:
        methods = " ".join(f"--method {name}" for name in ("finetune", "frozen", "ewc", "si", "mas"))
        yield from _missing(f"{_RUN} --network efficientnet-lite0 {methods} --out runs/efficientnet-lite0")
    for each in others:
        yield from _made(each.results, f"--network {each.network}", each.network)
        yield f"{each.network}, batch-norm statistics frozen:"
        yield ""
        learned = summarize(each.results).methods
        yield from comparison(learned)
        yield ""
        yield from beside_mas(learned)
        yield ""


def _pairs(found: Sequence[Found]) -> Iterator[str]:
    by_source, fixed = _by_source(found, None), _by_source(found, ONE)
    yield "## Two tasks (table 2)"
    yield ""
    yield "The first task at the end (what it lost since it was learned) / the second task, in percent."
    yield ""
    if not by_source.get("train"):
        yield from _missing(f"{_RUN} --pairs --out runs/pairs")
    else:
        yield from _made(next(iter(by_source["train"].values())), "--pairs", "pairs")
    yield pairs.two_tasks(by_source.get("train", {}))
    yield "## What Ω is measured on, and global against local (table 3)"
    yield ""
    command = (
        f"{_RUN} --pairs --omega {{0}} --method mas --method local-mas --strength {ONE:g} --out runs/pairs-one-{{0}}"
    )
    yield (f"With one λ for all, {ONE:g}: the geometric mean of those that the searches of table 2 found for MAS.")
    yield ""
    yield from _tables(fixed, ("train", "test", "both"), command)
    yield (
        "With a λ from a search for every cell, as in table 2. Where two sources of Ω differ, λ may differ as well, so "
        "a difference may come from either."
    )
    yield ""
    yield from _tables(by_source, ("test", "both"), f"{_RUN} --pairs --omega {{0}} --out runs/pairs-{{0}}")


def _by_source(found: Sequence[Found], strength: float | None) -> dict[str, dict[str, Mapping[str, Any]]]:
    """What Ω was measured on → pair → results, of the runs with that strength."""
    by_source: dict[str, dict[str, Mapping[str, Any]]] = {}
    for each in found:
        if each.pair is not None and each.network == MAIN and each.strength == strength and each.results["runs"]:
            by_source.setdefault(each.omega, {})[each.pair] = each.results
    return by_source


def _tables(
    by_source: Mapping[str, Mapping[str, Mapping[str, Any]]], sources: Sequence[str], command: str
) -> Iterator[str]:
    """Table 3, under the commands of the sources that there are."""
    for source in sources:
        if not by_source.get(source):
            yield from _missing(command.format(source))
    if made := [source for source in sources if by_source.get(source)]:
        yield from blocks.console(*map(command.format, made))
        yield pairs.measured_on(by_source)


def _sensitivity(found: Sequence[Found]) -> Iterator[str]:
    yield "## How much λ matters"
    yield ""
    curves = strengths(found)
    if "mas" not in curves:
        yield from _missing(f"{_RUN} --method mas --strength 0.1 --out runs/mas-0.1")
    if not curves:
        return
    yield (
        "The search starts at the strength of De Lange et al. 2021 and only goes down, so it may accept one that "
        "protects hardly anything. These are the results of other strengths too; the best of them is chosen by test "
        "accuracy. A command makes the runs of one λ, such as:"
    )
    yield ""
    yield from blocks.console(f"{_RUN} --method ewc --strength 25600 --seeds 3 --out runs/ewc-25600")
    yield "`python -m studies.eight_page` draws:"
    yield ""
    yield "![Accuracy over λ](figures/eight-tasks-strength.svg)"
    yield ""
    yield "| method | λ | average | forgetting | when learned | seeds |"
    yield "|---|---|---|---|---|---|"
    for method, curve in curves.items():
        for strength, each in curve.items():
            cells = (percent(figure) for figure in (each.average, each.forgetting, each.average_learned))
            yield f"| {TITLES[method]} | {strength:g} | {' | '.join(cells)} | {len(each.seeds)} |"
    yield ""


def claims(found: Sequence[Found]) -> str:
    """The table for the README: the averages of every method, best first."""
    main = plain(found, MAIN)
    if main is None or not main.results["runs"]:
        raise ForgetlessError(
            f"none of the runs is of all eight tasks by {MAIN}; `{_RUN} --out runs/{MAIN}` makes one."
        )
    lines = [
        "| on eight image datasets | average accuracy after the last task, % | forgetting, points | seeds |",
        "|---|---|---|---|",
    ]
    methods = summarize(main.results).methods
    for method in _best_first(methods):
        title = "joint training, with all old data" if method.method == _CEILING else _title(method).partition(" (")[0]
        lines.append(f"| {title} | {percent(method.average)} | {percent(method.forgetting)} | {len(method.seeds)} |")
    if better := _in_hindsight(found, methods):
        lines += ["", f"With λ chosen by test accuracy, these match or exceed MAS: {', '.join(better)}."]
    for run in (each for each in found if each.eight and each.rising and each.network == MAIN):
        ranked = _best_first(summarize(run.results).methods)
        upto = next((place for place, each in enumerate(ranked) if each.method == "mas"), len(ranked) - 1) + 1
        averages = (f"{eight_figures.short(each.method)} {percent(each.average)}" for each in ranked[:upto])
        lines += ["", f"With a search that also looks above, without test data (`--rise`): {', '.join(averages)}."]
    for summary in other_orders(found).values():
        averages = (
            f"{eight_figures.short(method.method)} {percent(method.average)}" for method in _best_first(summary.methods)
        )
        lines += ["", f"In another order of the tasks, {summary.runs}: {', '.join(averages)}."]
    return "\n".join(lines)


_PARTS: tuple[Callable[[Sequence[Found]], Iterator[str]], ...] = (
    _top,
    _main,
    _rising,
    _orders,
    _networks,
    _pairs,
    _sensitivity,
)


def write(root: Path, docs: Path, readme: Path) -> list[Path]:
    """Write the page, the block of the README, and the figures that the runs suffice for; gives what was written.

    Args:
        root: the folder of all results.
        docs: takes `eight-tasks.md` and `figures/`.
        readme: a page with a block "eight tasks".

    Raises:
        ForgetlessError: as `collect`, matplotlib is not installed, or the README has no such block.
    """
    found = collect(root / "eight-tasks")
    memory_path, study_path = root / "memory" / "eight-tasks.json", root / "plasticity" / "eight-tasks.json"
    memory = files.read_sealed(memory_path) if memory_path.is_file() else None
    study = results.read(study_path) if study_path.is_file() else None
    text = page(found, memory, study)
    figures.pyplot_module()
    blocks.inserted(readme, "eight tasks", claims(found))  # refused first, so that nothing is half-written
    written, drawn = [readme, docs / "eight-tasks.md"], docs / "figures"
    files.write_text(written[1], text)
    main = plain(found, MAIN)
    if main is not None and main.results["runs"]:
        written.append(drawn / "eight-tasks.svg")
        eight_figures.sequence(summarize(main.results), written[-1])
    curves = strengths(found)
    if curves:
        written.append(drawn / "eight-tasks-strength.svg")
        eight_figures.sensitivity(curves, written[-1])
    if memory is not None:
        written.append(drawn / "eight-tasks-memory.svg")
        eight_figures.memory(memory, written[-1])
    return written


def _made(content: Mapping[str, Any], options: str, out: str) -> Iterator[str]:
    """The command that makes such runs."""
    methods = " ".join(f"--method {name}" for name in dict.fromkeys(run["method"] for run in content["runs"]))
    seeds = len({run["seed"] for run in content["runs"]})
    yield from blocks.console(f"{_RUN} {options} {methods} --seeds {seeds} --out runs/{out}")


def _missing(command: str) -> Iterator[str]:
    yield f"Not run yet: `{command}`."
    yield ""


def _best_first(methods: Sequence[MethodSummary]) -> list[MethodSummary]:
    return sorted(methods, key=_average, reverse=True)


def _average(method: MethodSummary) -> float:
    return 0.0 if method.average is None else method.average.mean


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.eight_page", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the folder of committed runs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder of pages")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="takes the table of averages")
    options = parser.parse_args(words)
    try:
        for path in write(options.results, options.docs, options.readme):
            print(path)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

"""The page of the eight tasks: every table and figure of the paper's object recognition, from the runs that there are.

    python -m studies.eight_page RUNS --out docs/results --readme README.md

With `--readme`, the table in that file between the marks "eight tasks" is made anew from the same runs. RUNS holds run
directories of `forgetless run eight-tasks` (with `--pairs`, `--omega`, `--network`, `--strength`, `--rise`, `--orders`)
at any depth and under any names: what each is, its config.json says. What has not been run is named as missing, never
made up.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.experiments.parts import pairs
from forgetless.lab.published.mas_2018 import EIGHT_TASKS, TITLES
from forgetless.lab.report import markdown
from forgetless.lab.results import MethodSummary, Summary, percent, summarize
from studies import eight_figures, eight_sections, figures

MAIN = "squeezenet"
_RUN = "forgetless run eight-tasks --data DATA"
#: Above: all the old data. Below: nothing learned in the backbone.
_CEILING, _FLOOR = "joint", "frozen"


@dataclass(frozen=True)
class Found:
    """A run directory of the experiment.

    Attributes:
        config: the content of its `config.json`.
        results: that of its `results.json`, runs of the tasks' own order only.
        others: the runs of other orders.
    """

    config: Mapping[str, Any]
    results: Mapping[str, Any]
    others: Sequence[Mapping[str, Any]]

    @property
    def plain(self) -> bool:
        """Whether nothing but the network was chosen: all eight tasks, Ω from training data, a falling search."""
        return self.eight and self.strength is None and not self.rising

    @property
    def eight(self) -> bool:
        """Whether it is of all eight tasks, with Ω from training data."""
        return "pair" not in self.config and self.config.get("omega", "train") == "train"

    @property
    def rising(self) -> bool:
        """Whether the search for strengths could also go up."""
        return self.strength is None and bool(self.config.get("tuning", {}).get("rise"))

    @property
    def strength(self) -> float | str | None:
        """The strength that was given; None where each method's was found, "auto" where each task's was."""
        return self.config.get("strength")


def collect(runs: Path, experiment: str = "eight-tasks") -> list[Found]:
    """The run directories of `experiment` below `runs` that hold a finished run.

    Raises:
        ForgetlessError: `runs` is no folder, a file in it is damaged, or nothing has been run.
    """
    if not runs.is_dir():
        raise ForgetlessError(f"{runs} is no folder; name the one that holds the run directories.")
    found = []
    for path in sorted(runs.rglob("config.json")):
        config = files.read_json(path)
        if not isinstance(config, dict) or config.get("experiment") != experiment:
            continue
        content = results.read(path.parent)
        own = [run for run in content["runs"] if not run.get("order")]
        others = [run for run in content["runs"] if run.get("order")]
        if own or others:
            found.append(Found(config, {**content, "runs": own}, others))
    if not found:
        raise ForgetlessError(f"{runs} holds no run of {experiment}; `forgetless run {experiment}` makes them.")
    return found


def page(
    found: Sequence[Found], memory: Mapping[str, Any] | None = None, study: Mapping[str, Any] | None = None
) -> str:
    """The page as Markdown; `memory` and `study` are what `eight_memory` and `plasticity` measured."""
    lines = [line for part in _PARTS for line in part(found)]
    return "\n".join([*lines, *eight_sections.keeping(study), *eight_sections.memory(memory)]) + "\n"


def _top(found: Sequence[Found]) -> Iterator[str]:
    config = found[0].config
    limit, size, epochs = config["limit"], config["size"], config["recipe"]["epochs"]
    yield f"""# Eight object recognition tasks

The paper's figure 5 and tables 2 and 3, on a machine without a GPU. This page is made by
`python -m studies.eight_page RUNS --out docs/results` from the `results.json` of the runs; no number of ours
on it was typed. Numbers called *paper* are printed in Aljundi et al., ECCV 2018.

**What differs from the paper.** AlexNet and pictures of 224 pixels there; SqueezeNet 1.1 (or EfficientNet-Lite0) and
{size} pixels here, at most {limit} training pictures a task, {epochs} epochs. Scenes, birds, actions and digits are
other, smaller sets; groceries stand in Aircraft's place. The paper's λ = 1 for MAS against strengths found by stability
decay on the second task for every method alike. The penalty acts as a pull after the step, and Ω is exact per sample.
So levels of accuracy cannot be compared; which method keeps how much at which price can.
"""


def _main(found: Sequence[Found]) -> Iterator[str]:
    yield "## All methods"
    yield ""
    main = _plain(found, MAIN)
    if main is None or not main.results["runs"]:
        yield from _missing(f"{_RUN} --seeds 3 --out RUNS/squeezenet")
        return
    summary = summarize(main.results)
    yield "![Accuracy over the sequence, and what is left of every task](eight-tasks.svg)"
    yield ""
    yield from comparison(summary.methods)
    yield ""
    yield "What MAS should be: the best of all methods that keep no samples, ≤ 1 point forgotten, ≤ 3 below joint."
    yield ""
    yield from verdict(summary.methods)
    yield from _hindsight(found, summary.methods)
    yield ""
    yield markdown(main.results)
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


def verdict(methods: Sequence[MethodSummary]) -> Iterator[str]:
    """Whether MAS is what it should be: the best of all that keep no samples, ≤ 1 point forgotten, ≤ 3 below joint."""
    known = {method.method: method for method in methods if method.average is not None}
    if "mas" not in known:
        yield "MAS has not been run yet."
        return
    mas = known["mas"]
    rivals = {
        name: 100 * _average(method)
        for name, method in known.items()
        if name in TITLES and name not in ("mas", _CEILING)
    }
    average, lost = 100 * _average(mas), 100 * (mas.forgetting.mean if mas.forgetting else 0.0)
    claims: list[tuple[bool, str]] = []
    if rivals:
        best = max(rivals, key=rivals.__getitem__)
        gap = round(average - rivals[best], 1)
        claims.append(
            (gap >= 0, f"MAS is {abs(gap):.1f} points {'above' if gap >= 0 else 'below'} the best other ({best})")
        )
    claims.append((round(lost, 1) <= 1, f"MAS forgets {lost:.1f} points"))
    if _CEILING in known:
        gap = round(100 * _average(known[_CEILING]) - average, 1)
        claims.append((gap <= 3, f"joint training is {gap:.1f} points above MAS"))
    yield from (f"- {'reached' if holds else '**not reached**'}: {claim}." for holds, claim in claims)
    if _FLOOR in known:
        under = [name for name, value in rivals.items() if name != _FLOOR and value < rivals[_FLOOR]]
        under += ["mas"] if average < rivals[_FLOOR] else []
        if under:
            yield f"- Below the frozen backbone, which learns nothing and forgets nothing: {', '.join(under)}."


def _hindsight(found: Sequence[Found], methods: Sequence[MethodSummary]) -> Iterator[str]:
    better = _in_hindsight(found, methods)
    if better:
        yield (
            f"- With a λ chosen in hindsight ([below](#how-much-λ-matters)): {', '.join(better)}. The lead of MAS over "
            "them is one of the search, then: its first strength suits MAS, and was accepted where it is too weak "
            "([a search that may rise](#the-same-search-allowed-to-rise))."
        )


def _in_hindsight(found: Sequence[Found], methods: Sequence[MethodSummary]) -> list[str]:
    """Rivals that reach MAS with the best of the strengths that were tried, and did not with the one found."""
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
    runs = [each for each in found if each.eight and each.rising and each.config["network"] == MAIN]
    main = _plain(found, MAIN)
    if not runs or not runs[0].results["runs"]:
        yield from _missing(f"{_RUN} --rise --method mas --method ewc --method si --seeds 3 --out RUNS/rising")
        return
    config, searched = runs[0].config, summarize(runs[0].results).methods
    yield (
        "A search that only goes down accepts a first strength that is too weak. With `--rise` it looks above a first "
        f"strength that is accepted, too: in the same {config['tuning']['most']} tries, for every method alike."
    )
    yield ""
    unsearched = () if main is None else (each for each in summarize(main.results).methods if not each.strengths)
    methods = [*searched, *unsearched]
    yield from comparison(methods)
    yield ""
    yield from verdict(methods)
    yield from _easily_learned(methods)
    yield ""


def _easily_learned(methods: Sequence[MethodSummary]) -> Iterator[str]:
    """How well a frozen backbone learns the task that strengths are found on; no strength should do worse."""
    known = {method.method: method.learned[1] for method in methods}
    floor, free = known.get(_FLOOR), known.get("finetune")
    if floor and free:
        yield (
            f"- What limits the search: on the task that it looks at, the second, a frozen backbone comes to "
            f"{floor.percent()} % and fine-tuning to {free.percent()} %. The better a task is learned without touching "
            "the backbone, the fewer strengths it refuses, and the less it says of how far the others need the backbone."
        )


def _orders(found: Sequence[Found]) -> Iterator[str]:
    yield "## Other orders of the tasks"
    yield ""
    others = _other_orders(found)
    if not others:
        methods = " ".join(f"--method {name}" for name in ("finetune", "ewc", "si", "mas"))
        yield from _missing(f"{_RUN} {methods} --orders 2 --resume --out RUNS/squeezenet")
        return
    for order, summary in others.items():
        yield f"Order {order}: {' → '.join(summary.tasks)}."
        yield ""
        yield from comparison(summary.methods)
        yield ""
        yield from verdict(summary.methods)
        yield ""


def _other_orders(found: Sequence[Found]) -> dict[int, Summary]:
    """Order → its runs by the main network, summed up."""
    runs = [run for each in found if each.plain and each.config["network"] == MAIN for run in each.others]
    summaries = {}
    for order in sorted({run["order"] for run in runs}):
        mine = [run for run in runs if run["order"] == order]
        held = {"experiment": "eight-tasks", "tasks": mine[0]["learned"], "runs": mine, "environment": {}}
        summaries[order] = summarize(held)
    return summaries


def _networks(found: Sequence[Found]) -> Iterator[str]:
    others = [each for each in found if each.plain and each.config["network"] != MAIN and each.results["runs"]]
    yield "## Other networks"
    yield ""
    if not others:
        methods = " ".join(f"--method {name}" for name in ("finetune", "frozen", "ewc", "si", "mas"))
        yield from _missing(f"{_RUN} --network efficientnet-lite0 {methods} --out RUNS/efficientnet-lite0")
    for each in others:
        yield f"{each.config['network']}, batch-norm statistics held:"
        yield ""
        learned = summarize(each.results).methods
        yield from comparison(learned)
        yield ""
        yield from verdict(learned)
        yield ""


def _pairs(found: Sequence[Found]) -> Iterator[str]:
    by_source: dict[str, dict[str, Mapping[str, Any]]] = {}
    for each in found:
        if "pair" in each.config and each.config["network"] == MAIN and each.strength is None and each.results["runs"]:
            by_source.setdefault(each.config.get("omega", "train"), {})[each.config["pair"]] = each.results
    yield "## Two tasks (table 2)"
    yield ""
    yield "The first task at the end (what it lost since it was learned) / the second task, in percent."
    yield ""
    if not by_source.get("train"):
        yield from _missing(f"{_RUN} --pairs --out RUNS/pairs")
    yield pairs.two_tasks(by_source.get("train", {}))
    yield "## What Ω is measured on, and global against local (table 3)"
    yield ""
    for source in ("test", "both"):
        if not by_source.get(source):
            yield from _missing(f"{_RUN} --pairs --omega {source} --out RUNS/pairs-{source}")
    yield (
        "Every cell's λ was found by a search of its own: where two sources of Ω differ, λ may differ as well, and the "
        "difference is of both."
    )
    yield ""
    yield pairs.measured_on(by_source)


def _sensitivity(found: Sequence[Found]) -> Iterator[str]:
    yield "## How much λ matters"
    yield ""
    curves = strengths(found)
    if "mas" not in curves:
        yield from _missing(f"{_RUN} --method mas --strength 0.1 --out RUNS/mas-0.1")
    if not curves:
        return
    yield (
        "The search begins at the survey's strength and only goes down, so it may accept one that holds hardly "
        "anything. Here is what other strengths give, found or not; the best of them is chosen in hindsight, by test "
        "data."
    )
    yield ""
    yield "![Accuracy over λ](eight-tasks-strength.svg)"
    yield ""
    yield "| method | λ | average | forgetting | when learned | seeds |"
    yield "|---|---|---|---|---|---|"
    for method, curve in curves.items():
        for strength, each in curve.items():
            cells = (percent(figure) for figure in (each.average, each.forgetting, each.average_learned))
            yield f"| {TITLES[method]} | {strength:g} | {' | '.join(cells)} | {len(each.seeds)} |"
    yield ""


def strengths(found: Sequence[Found]) -> dict[str, dict[float, MethodSummary]]:
    """Method → λ → what it comes to on all eight tasks; methods that were run with more than one strength.

    Runs with a strength that was given, and the ones where it was found.
    """
    curves: dict[str, dict[float, MethodSummary]] = {}
    for each in found:
        if not each.eight or each.config["network"] != MAIN or each.strength == "auto":
            continue  # a strength of its own for every task is no point of a curve
        for method in summarize(each.results).methods if each.results["runs"] else ():
            if method.strengths and method.method in TITLES:
                curve = curves.setdefault(method.method, {})
                strength = method.strengths[0]
                if strength not in curve or len(curve[strength].seeds) < len(method.seeds):
                    curve[strength] = method
    several = {name: dict(sorted(curve.items())) for name, curve in curves.items() if len(curve) > 1}
    return dict(sorted(several.items(), key=lambda each: each[0] != "mas"))


def claims(found: Sequence[Found]) -> str:
    """What the README says of the runs: the averages of every method, best first, and what they came from."""
    main = _plain(found, MAIN)
    if main is None or not main.results["runs"]:
        raise ForgetlessError(
            f"none of the runs is of all eight tasks by {MAIN}; `{_RUN} --out RUNS/{MAIN}` makes one."
        )
    lines = ["| on eight picture sets | knows in the end, % | has forgotten | seeds |", "|---|---|---|---|"]
    methods = summarize(main.results).methods
    for method in _best_first(methods):
        title = "joint training, with all old data" if method.method == _CEILING else _title(method).partition(" (")[0]
        lines.append(f"| {title} | {percent(method.average)} | {percent(method.forgetting)} | {len(method.seeds)} |")
    if better := _in_hindsight(found, methods):
        lines += ["", f"As good or better with a λ chosen in hindsight: {', '.join(better)}."]
    for summary in _other_orders(found).values():
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


def write(runs: Path, out: Path, readme: Path | None = None) -> list[Path]:
    """Write `eight-tasks.md` and the figures that the runs suffice for into `out`; gives what was written.

    Raises:
        ForgetlessError: as `collect`, matplotlib is not installed, or `readme` has no place for the table or the runs
            nothing to put there.
    """
    found = collect(runs)
    memory_path, study_path = runs / "memory.json", runs / "plasticity.json"
    memory = files.read_json(memory_path) if memory_path.is_file() else None
    study = results.read(study_path) if study_path.is_file() else None
    text = page(found, memory, study)
    figures.pyplot_module()
    written = [out / "eight-tasks.md"]
    if readme is not None:  # all else that may be refused has been tried, so that nothing is half-written
        figures.inserted(readme, "eight tasks", claims(found))
        written.append(readme)
    main = _plain(found, MAIN)
    if main is not None and main.results["runs"]:
        eight_figures.sequence(summarize(main.results), out / "eight-tasks.svg")
        written.append(out / "eight-tasks.svg")
    curves = strengths(found)
    if curves:
        eight_figures.sensitivity(curves, out / "eight-tasks-strength.svg")
        written.append(out / "eight-tasks-strength.svg")
    if memory is not None:
        eight_figures.memory(memory, out / "eight-tasks-memory.svg")
        written.append(out / "eight-tasks-memory.svg")
    files.write_text(written[0], text)
    return written


def _plain(found: Sequence[Found], network: str) -> Found | None:
    return next((each for each in found if each.plain and each.config["network"] == network), None)


def _missing(command: str) -> Iterator[str]:
    yield f"Not run yet: `{command}`."
    yield ""


def _best_first(methods: Sequence[MethodSummary]) -> list[MethodSummary]:
    return sorted(methods, key=_average, reverse=True)


def _average(method: MethodSummary) -> float:
    return 0.0 if method.average is None else method.average.mean


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.eight_page")
    parser.add_argument("runs", type=Path, help="the folder that holds the run directories")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--readme", type=Path, help="a Markdown file that takes the table of averages")
    options = parser.parse_args(words)
    try:
        for path in write(options.runs, options.out, options.readme):
            print(path)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

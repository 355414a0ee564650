"""The vision study's part of the page: tables in Markdown, and the figure of all frontiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from forgetless import files
from studies import blocks, figures
from studies.evidence.vision_methods import DEFAULTS, METHODS, SHARE
from studies.evidence.vision_reading import BESIDE, LEVEL, Cell, read
from studies.evidence.vision_scene import PROBES, TESTED, TRAINED

FIGURE = "evidence-vision.svg"
_STYLES = {
    "MAS": ("#0072b2", "o"),
    "local MAS": ("#56b4e9", "s"),
    "EWC": ("#009e73", "^"),
    "L2-SP": ("#cc79a7", "D"),
    "LwF": ("#d55e00", "v"),
    "KL on old pictures": ("#e69f00", "P"),
    "replay of 10": ("#999999", "X"),
    "WiSE-FT": ("#000000", "s"),
    "blend by Ω": ("#882255", "<"),
    "MAS, then WiSE-FT": ("#332288", ">"),
}
_POINTS = {
    "HoldShare(0.25)": "*",
    "auto": "8",
    "half": "X",
    "HoldShare(0.5)": "d",
    "KeepAgreement(0.98)": "p",
    "λ = 1": "h",
}


def write(out: Path, page: Path) -> None:
    """Put the tables into their block of the page and draw the figure beside it; nothing where there are no results."""
    if out.exists() and page.exists():
        found = files.read_sealed(out)
        blocks.inserted(page, "vision", rendered(found))
        drawn(found, page.parent / "figures" / FIGURE)


def rendered(found: Mapping[str, Any]) -> str:
    """The tables and what has to be known to read them, as Markdown."""
    cells = [Cell.of(each) for each in found["cells"]]
    parts = (_about(found, cells), [""], *_tables(found, cells))
    return blocks.wrapped("\n".join(line for part in parts for line in part))


_ABOUT = """SqueezeNet, pretrained on ImageNet, learns an old task from {trained} pictures (64 pixels) and then a new
one, with a head each; the old head stays as it is. {seeds} of each of three pairs, which were chosen by name before
anything was trained: {pairs}. A seed deals other training pictures, another order and other first weights. Every task
is tested on up to {tested} pictures that it was not trained on. Convolutions run in bfloat16, weights and Ω are
float32."""
_RULE = """The regime ({epochs} epochs, batches of 16, rate {rate:g} falling along a cosine) was chosen by a rule that
was written down first, on two other pairs (scenes → letters, textures → letters): the lowest rate of three at which
fine-tuning gains at least 8 points over a frozen backbone on the new task and forgets at least 15 on the old
one{met}. {first}: gain {gain:.1f}, forgetting {forgetting:.1f} (one seed). A fourth rate, 0.016, was struck off after
it had been seen: the old task itself was hardly learned. Ten epochs were part of the grid at first and were struck
off for their cost after the rows of five had been seen. No dataset of these pairs is reported."""
_READ = """**Kept** is the share of what fine-tuning forgets of the old task that a method keeps, at {level:.0f} % of
fine-tuning's accuracy on the new task: the most along the straight lines between any two of its points, fine-tuning (0)
and the frozen backbone (100) among them. **Area** is the mean of that over all levels between these two ends. Both are
ratios of sums over {runs} runs. In brackets: 95 % intervals of a bootstrap over {over}, paired by run, {replicates}
replicates. The settings between the two ends were fixed beforehand; the best of them is read off the test pictures, for
all methods alike. λ¼ is the λ at which the whole training holds a quarter of the weights."""


def _about(found: Mapping[str, Any], cells: Sequence[Cell]) -> Iterator[str]:
    regime = found["regime"]
    pairs = list(dict.fromkeys(cell.pair for cell in cells))
    count = len({cell.seed for cell in cells})
    seeds = "One seed" if count == 1 else f"{count} seeds"
    about = _ABOUT.format(seeds=seeds, pairs=", ".join(pairs), trained=TRAINED, tested=TESTED)
    yield _line(f"{about} {_rule(regime)}")
    yield ""
    yield from blocks.console(
        "python -m studies.evidence.vision_regime --data DATA   # the rule",
        "python -m studies.evidence.vision --data DATA",
    )
    over = "test pictures, as there is one seed" if count == 1 else "seeds and test pictures"
    yield _line(_READ.format(level=100 * LEVEL, runs=len(cells), over=over, replicates="1,000"))


def _rule(regime: Mapping[str, Any]) -> str:
    row = next(each for each in regime["rows"] if (each["epochs"], each["rate"]) == (regime["epochs"], regime["rate"]))
    return _RULE.format(
        epochs=regime["epochs"],
        rate=regime["rate"],
        met="" if regime["met"] else "; none did, and it is the one that comes closest",
        first=f"{row['old']} → {row['new']}",
        gain=100 * (row["fine-tuned new"] - row["frozen new"]),
        forgetting=100 * (row["before"] - row["fine-tuned old"]),
    )


def _line(text: str) -> str:
    return text.replace("\n", " ")


def _tables(found: Mapping[str, Any], cells: Sequence[Cell]) -> Iterator[Iterator[str]]:
    yield _frontiers(found, cells)
    yield iter(["", f"![accuracy on the old task against accuracy on the new one](figures/{FIGURE})", ""])
    yield _ends(cells)
    yield _defaults(cells)


def _frontiers(found: Mapping[str, Any], cells: Sequence[Cell]) -> Iterator[str]:
    pairs = list(dict.fromkeys(cell.pair for cell in cells))
    yield (
        f"| of what fine-tuning forgets, % | settings | old data | kept at {100 * LEVEL:.0f} % | minus {BESIDE} | area "
        f"| minus {BESIDE} | " + " | ".join(f"kept, {pair}" for pair in pairs) + " |"
    )
    yield "|---" * (7 + len(pairs)) + "|"
    for row in sorted(found["read"], key=lambda row: -float(row["kept"][0])):
        method = row["method"]
        figures_ = [_percent(row["kept"]), _percent(row["kept beside"], method), _percent(row["area"])]
        figures_.append(_percent(row["area beside"], method))
        own = [f"{100 * _kept([cell for cell in cells if cell.pair == pair], method):.0f}" for pair in pairs]
        data = METHODS[method].data if method in METHODS else "none"
        settings = sum(key[0] == method for key in cells[0].keys)
        yield f"| {method} | {settings} | {data} | {' | '.join((*figures_, *own))} |"
    present = {row["method"] for row in found["read"]}
    if absent := [method for method in METHODS if method not in present]:
        yield from ("", f"Not run yet: {', '.join(absent)}.")


def _percent(estimate: Sequence[float], method: str | None = None) -> str:
    if method == BESIDE:
        return "–"
    sign = "" if method is None else "+"
    value, low, high = (f"{round(100 * each) + 0:{sign}d}" for each in estimate)
    return f"{value} ({low} … {high})"


def _kept(cells: Sequence[Cell], method: str) -> float:
    every = [cell.accuracies() for cell in cells]
    forgotten = sum(each["base", 0][0] - each["fine-tuned", 0][0] for each in every)
    return sum(read(each, method).kept for each in every) / forgotten


def _means(cells: Sequence[Cell], method: str, setting: float = 0) -> tuple[float, float]:
    every = [cell.accuracies()[method, setting] for cell in cells]
    return fmean(each[0] for each in every), fmean(each[1] for each in every)


def _ends(cells: Sequence[Cell]) -> Iterator[str]:
    yield "| accuracy, %, old / new | fine-tuning | frozen backbone | gain | forgotten |"
    yield "|---|---|---|---|---|"
    for pair in dict.fromkeys(cell.pair for cell in cells):
        own = [cell for cell in cells if cell.pair == pair]
        tuned, frozen = (_means(own, method) for method in ("fine-tuned", "base"))
        ends = " | ".join(f"{100 * old:.1f} / {100 * new:.1f}" for old, new in (tuned, frozen))
        yield (f"| {pair} | {ends} | {100 * (tuned[1] - frozen[1]):.1f} | {100 * (frozen[0] - tuned[0]):.1f} |")


_DEFAULTS = """Without a search, a user gets one of these points. **New skill** is the accuracy on the new task as a
share of fine-tuning's; **kept** the share of what fine-tuning forgets, at that point."""
_SAID = {
    "HoldShare(0.25)": f'`HoldShare({SHARE})` holds a quarter of the weights (`of="weights"`) and is told the length of'
    " the training; “MAS, then WiSE-FT” begins there.",
    "auto": "`auto` is what `Anchor` does unless it is told otherwise: it holds back 65 % of the movement.",
    "half": "`half` holds back half of it.",
    "HoldShare(0.5)": "`HoldShare(0.5)` is the same, told the length of the training.",
    "KeepAgreement(0.98)": f"`KeepAgreement` checks {PROBES} unlabeled pictures that the old task was not trained on.",
    "λ = 1": "`λ = 1` is the paper's.",
}


def _defaults(cells: Sequence[Cell]) -> Iterator[str]:
    pairs = list(dict.fromkeys(cell.pair for cell in cells))
    yield ""
    present = [each for each in DEFAULTS if (each, 0) in cells[0].keys]
    yield _line(" ".join([_DEFAULTS, *(_SAID[each] for each in present)]))
    yield ""
    yield (
        "| default, no search | new skill, % | kept, % | "
        + " | ".join(f"{pair}, old / new, %" for pair in pairs)
        + " |"
    )
    yield "|---" * (3 + len(pairs)) + "|"
    every = [cell.accuracies() for cell in cells]
    forgotten = sum(each["base", 0][0] - each["fine-tuned", 0][0] for each in every)
    learned = sum(each["fine-tuned", 0][1] for each in every)
    for method in present:
        new = sum(each[method, 0][1] for each in every) / learned
        kept = sum(each[method, 0][0] - each["fine-tuned", 0][0] for each in every) / forgotten
        means = [_means([cell for cell in cells if cell.pair == pair], method) for pair in pairs]
        points = " | ".join(f"{100 * old:.1f} / {100 * right:.1f}" for old, right in means)
        yield f"| `{method}` | {100 * new:.1f} | {100 * kept:.0f} | {points} |"


def drawn(found: Mapping[str, Any], path: Path) -> None:
    """Old accuracy against new accuracy, a panel a pair, means over seeds; a line a method, its settings in order."""
    cells = [Cell.of(each) for each in found["cells"]]
    pairs = list(dict.fromkeys(cell.pair for cell in cells))
    pyplot = figures.pyplot_module()
    figure, axes = pyplot.subplots(1, len(pairs), figsize=(4.2 * len(pairs), 4.4), squeeze=False)
    for axis, pair in zip(axes[0], pairs, strict=True):
        own = [cell for cell in cells if cell.pair == pair]
        keys = own[0].keys
        for method, (color, mark) in _STYLES.items():
            if all(key[0] != method for key in keys):
                continue
            means = [_means(own, *key) for key in sorted(key for key in keys if key[0] == method)]
            axis.plot(*_percents(means), mark, ls="-", lw=1, ms=4, c=color, label=method)
        for method, mark in ((each, mark) for each, mark in _POINTS.items() if (each, 0) in keys):
            axis.plot(*_percents([_means(own, method)]), mark, ms=10, mfc="none", c="#0072b2", label=method)
        for method, mark, label in (("fine-tuned", "x", "fine-tuning"), ("base", "+", "frozen backbone")):
            axis.plot(*_percents([_means(own, method)]), mark, ms=10, mew=2, c="#000000", label=label)
        axis.axvline(100 * LEVEL * _means(own, "fine-tuned")[1], ls=":", lw=1, c="#888888")
        axis.set(title=pair, xlabel="accuracy on the new task, %", ylabel="accuracy on the old task, %")
        axis.grid(alpha=0.3)
    figures.legend(figure, axes[0])
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figures.save(figure, path)


def _percents(means: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [100 * new for _, new in means], [100 * old for old, _ in means]

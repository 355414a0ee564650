"""The page of a run of language models: one HTML file with the parts that every run's page has."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from forgetless import files
from forgetless.lab.long_text.results import Rare, grouped, spread
from forgetless.lab.report.chart import Chart, Points
from forgetless.lab.report.template import rendered

_Bits = Annotated[float, files.Between(0, 1e12)]
_Share = Annotated[float, files.Between(0, 1)]
_KINDS = ("compressed", "recent", "current")


@dataclass(frozen=True)
class _Details:
    """What the page shows of a run beside its bits per character."""

    curve: list[_Bits]
    place: list[_Bits]
    rarity: dict[str, Rare]
    attention: list[list[_Share]]
    perplexity: dict[str, _Bits]
    seconds: dict[str, _Bits]


@dataclass(frozen=True)
class Variant:
    """One variant of the network, over its seeds.

    Attributes:
        name: the variant's.
        bits: what was tested → bits per character, with their spread.
        test: bits per character of the test text, the mean.
        rarity: class of words → bits per character; None where the test text has no such word.
        attention: of every layer, to compressed, recent and current positions.
        seeds: the seeds that it has.
        minutes: of training a run.
    """

    name: str
    bits: Mapping[str, str]
    test: float
    rarity: Mapping[str, float | None]
    attention: Sequence[Sequence[float]]
    seeds: Sequence[int]
    minutes: float


def page(results: Mapping[str, Any], path: Path) -> None:
    """Write the content of a `results.json` of language models as a page, whole or not at all.

    Args:
        results: the content.
        path: the file.

    Raises:
        ForgetlessError: a run holds something else than its figures, or the file cannot be written.
    """
    groups = {
        name: [_details(run, f"{path.parent}, {name},") for run in runs] for name, runs in grouped(results).items()
    }
    variants = [_variant(name, runs, groups[name]) for name, runs in grouped(results).items()]
    values = {
        "results": {"data": "", **results},
        "variants": variants,
        "best": min(variants, key=lambda each: each.test, default=None) if len(variants) > 1 else None,
        "tested": _names(each.bits for each in variants),
        "classes": _names(each.rarity for each in variants),
        "charts": list(_charts(groups)),
        "kinds": _KINDS,
    }
    files.write_text(path, rendered(Path(__file__).with_name("page.html"), **values))


def _details(run: Mapping[str, Any], where: str) -> _Details:
    held = {
        "curve": run.get("curve", []),
        "place": run.get("by place", []),
        "rarity": run.get("by rarity", {}),
        "attention": run.get("attention", []),
        "perplexity": run.get("word perplexity", {}),
        "seconds": run.get("seconds", {}),
    }
    found: _Details = files.decoded(held, _Details, where)
    return found


def _variant(name: str, runs: Sequence[Mapping[str, Any]], details: Sequence[_Details]) -> Variant:
    bits = {what: spread([run["bits"][what] for run in runs if what in run["bits"]]) for what in runs[0]["bits"]}
    for what in details[0].perplexity:
        bits[f"{what}, perplexity by word"] = spread([e.perplexity[what] for e in details if what in e.perplexity], 1)
    layers = zip(*(each.attention for each in details), strict=False)
    return Variant(
        name,
        bits,
        _mean([run["bits"]["test"] for run in runs if "test" in run["bits"]]),
        {each: _rare([one.rarity[each].bits for one in details if each in one.rarity]) for each in details[0].rarity},
        [[statistics.fmean(kind) for kind in zip(*layer, strict=False)] for layer in layers],
        [run["seed"] for run in runs],
        _mean([each.seconds.get("train", math.nan) for each in details]) / 60,
    )


def _rare(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return statistics.fmean(known) if known else None


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.inf


def _names(found: Iterator[Mapping[str, Any]] | Any) -> list[str]:
    return list(dict.fromkeys(name for each in found for name in each))


def _charts(groups: Mapping[str, Sequence[_Details]]) -> Iterator[Chart]:
    """While it is learned, and at each place of a window; means over the seeds."""
    if curves := [(name, _line([each.curve for each in runs], 100.0)) for name, runs in groups.items()]:
        lines = tuple((name, points[len(points) // 10 :]) for name, points in curves)  # the first tenth hides the rest
        if all(len(points) > 1 for _, points in lines):
            yield Chart("bits per token of the training text", "percent of the steps", lines)
    places = tuple((name, _line([each.place for each in runs])) for name, runs in groups.items())
    if places and all(len(points) > 1 for _, points in places):
        yield Chart("bits per token by place in the window", "part of the window", places)


def _line(lists: Sequence[Sequence[float]], whole: float | None = None) -> Points:
    """The mean of several lists, place by place; across, its number or its share of the whole."""
    means = [statistics.fmean(each) for each in zip(*lists, strict=False)]
    return [((n if whole is None else whole * n / len(means)), value) for n, value in enumerate(means, 1)]

"""What the network says of the same test samples when their task was learned, and now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forgetless.lab.report.picture import data_url
from forgetless.lab.report.shown import Shown, Traced
from forgetless.lab.traces import Answer


@dataclass(frozen=True)
class Said:
    """One answer, and whether it is right; None where the network was not asked."""

    answer: str
    sure: float
    right: bool


@dataclass(frozen=True)
class Asked:
    """A sample with the answers of every method.

    Attributes:
        source: a picture as a data URL; "" of a text.
        text: a text; "" of a picture.
        task: the number of its task, from 1.
        label: its class.
        said: of each method, then and now.
    """

    source: str
    text: str
    task: int
    label: str
    said: tuple[tuple[Said | None, Said | None], ...]


def section(shown: Shown) -> dict[str, Any] | None:
    """The samples; None where there are none, and of pictures also without Pillow."""
    traced = [each for each in shown.traced() if any(end.answers for end in each[2].ends)]
    asked = _asked(shown, traced) if traced else []
    return {"asked": asked, "traced": traced} if asked else None


def _asked(shown: Shown, traced: Traced) -> list[Asked]:
    names = shown.results["tasks"]
    then = [_when_learned(number, traced) for number in range(len(traced))]
    now = [{(each.task, each.sample): each for each in trace.ends[-1].answers} for _, _, trace in traced]
    found = []
    for album in shown.traces.albums:
        for number, label in enumerate(album.labels):
            source = "" if album.pictures is None else data_url(album.pictures[number])
            text = album.texts[number] if album.texts else ""
            if album.task not in names or not (source or album.texts):
                continue
            place = (album.task, number)
            said = tuple(
                (_said(then[m].get(place), label), _said(now[m].get(place), label)) for m in range(len(traced))
            )
            found.append(Asked(source, text, names.index(album.task) + 1, label, said))
    return found


def _when_learned(number: int, traced: Traced) -> dict[tuple[str, int], Answer]:
    """The first answer about every sample, which was given when its task was learned."""
    found: dict[tuple[str, int], Answer] = {}
    for end in traced[number][2].ends:
        for each in end.answers:
            found.setdefault((each.task, each.sample), each)
    return found


def _said(given: Answer | None, label: str) -> Said | None:
    return None if given is None else Said(given.answer, given.sure, given.answer == label)

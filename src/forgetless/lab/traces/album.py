"""The test samples of each task that the network is asked about: spread evenly over the test set, never chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn.classification import Classification
from forgetless.learn.samples import samples_of
from forgetless.learn.task import Task
from forgetless.model import batches

_KIND = "the test samples of a run"
_FILE = "samples.safetensors"
_MOST = 20  # samples of all tasks together
_EACH = 4  # of a task
_SIDE = 64  # pixels of a picture's longer side on the page
_LEAST = 8
_LONGEST = 280  # characters of a text on the page

#: Inputs of a task, a row for each sample → what a person reads.
Written = Callable[[Any], Sequence[str]]


@dataclass(frozen=True, eq=False)
class Album:
    """Samples of one task: pictures or texts.

    Attributes:
        task: its name.
        labels: the name of each sample's class.
        pictures: uint8 `[n, C, H, W]` for the page, C of 1 or 3; None of texts.
        texts: for the page; empty of pictures.
        inputs: what the network gets; None where it was read from a file.
    """

    task: str
    labels: tuple[str, ...]
    pictures: Tensor | None = None
    texts: tuple[str, ...] = ()
    inputs: Any = None


def albums(tasks: Sequence[Task], written: Written | None = None) -> tuple[Album, ...]:
    """A few test samples of every task that classifies pictures or texts.

    Pictures are uint8 `[N, C, H, W]`, or flat and square. Texts are what `written` reads in the inputs; without it,
    token numbers `[N, T]` are shown as such.
    """
    each = max(1, min(_EACH, _MOST // len(tasks)))
    found = (_album(task, each, written) for task in tasks[:_MOST])
    return tuple(album for album in found if album is not None)


def _album(task: Task, most: int, written: Written | None) -> Album | None:
    if not isinstance(task.objective, Classification):
        return None
    samples = samples_of(task.test)
    try:
        count = len(samples)
        chosen = [int((number + 0.5) * count / most) for number in range(most)]
        batch = samples.take(torch.tensor(sorted(set(chosen))))
    except ForgetlessError:  # a stream has no numbers
        return None
    inputs, numbers = batches.inputs(batch), batches.labels(batch).tolist()
    if not all(0 <= number < len(task.objective.classes) for number in numbers):
        return None
    labels = tuple(task.objective.classes[number] for number in numbers)
    pictures = None if written is not None else _pictures(inputs)
    if pictures is not None:
        return Album(task.name, labels, pictures, inputs=inputs)
    texts = _token_numbers(inputs) if written is None else [_shortened(each) for each in written(inputs)]
    return Album(task.name, labels, texts=tuple(texts), inputs=inputs) if len(texts) == len(labels) else None


def _token_numbers(inputs: Any) -> list[str]:
    """Tokens `[N, T]` as numbers; nothing where they are none."""
    if not isinstance(inputs, Tensor) or inputs.dim() != 2 or inputs.dtype not in (torch.int32, torch.int64):
        return []
    return [_shortened(" ".join(map(str, row))) for row in inputs.tolist()]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _pictures(inputs: Any) -> Tensor | None:
    """Inputs as small pictures; None where they are none."""
    if not isinstance(inputs, Tensor) or inputs.dtype != torch.uint8:
        return None
    found: Tensor = inputs.cpu()
    if found.dim() == 2:
        side = math.isqrt(found.shape[1])
        if side * side != found.shape[1]:
            return None
        found = found.reshape(-1, 1, side, side)
    if found.dim() != 4 or found.shape[1] not in (1, 3) or min(found.shape[2:]) < _LEAST:
        return None
    longer = max(found.shape[2:])
    if longer <= _SIDE:
        return found.clone()
    size = [max(1, round(_SIDE * side / longer)) for side in found.shape[2:]]
    return F.interpolate(found.float(), size, mode="area").round_().to(torch.uint8)


def write_albums(folder: Path, held: Sequence[Album]) -> None:
    """Keep the samples in a folder of traces, once for all runs."""
    path = folder / _FILE
    if held and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        named = [{"task": each.task, "labels": list(each.labels), "texts": list(each.texts)} for each in held]
        pictures = {str(number): each.pictures for number, each in enumerate(held) if each.pictures is not None}
        files.write_tensors(path, pictures, _KIND, {"albums": named})


@dataclass(frozen=True)
class _Named:
    task: str
    labels: list[str]
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Header:
    albums: list[_Named]


def read_albums(folder: Path) -> tuple[Album, ...]:
    """The samples that were kept; none where they are missing or damaged."""
    path = folder / _FILE
    try:
        tensors, found = files.read_tensors(path, _KIND)
        header: _Header = files.decoded(found, _Header, path)
    except ForgetlessError:
        return ()
    held = []
    for number, each in enumerate(header.albums):
        pictures = tensors.get(str(number))
        if pictures is not None and _fits(pictures, len(each.labels)):
            held.append(Album(each.task, tuple(each.labels), pictures))
        elif pictures is None and len(each.texts) == len(each.labels):
            held.append(Album(each.task, tuple(each.labels), texts=tuple(map(_shortened, each.texts))))
    return tuple(held)


def _fits(pictures: Tensor, count: int) -> bool:
    plain = pictures.dtype == torch.uint8 and pictures.dim() == 4 and len(pictures) == count
    return plain and pictures.shape[1] in (1, 3) and min(pictures.shape[2:]) > 0 and max(pictures.shape[2:]) <= _SIDE

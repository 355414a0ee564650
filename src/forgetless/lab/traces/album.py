"""The test pictures of each task that the network is asked about: spread evenly over the test set, never chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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

_KIND = "the test pictures of a run"
_MOST = 20  # pictures of all tasks together
_EACH = 4  # of a task
_SIDE = 64  # pixels of a picture's longer side on the page
_LEAST = 8


@dataclass(frozen=True, eq=False)
class Album:
    """Pictures of one task.

    Attributes:
        task: its name.
        labels: the name of each picture's class.
        pictures: uint8 `[n, C, H, W]` for the page, C of 1 or 3.
        inputs: what the network gets; None where it was read from a file.
    """

    task: str
    labels: tuple[str, ...]
    pictures: Tensor
    inputs: Any = None


def albums(tasks: Sequence[Task]) -> tuple[Album, ...]:
    """A few test pictures of every task that classifies pictures: uint8 `[N, C, H, W]`, or flat and square."""
    each = max(1, min(_EACH, _MOST // len(tasks)))
    found = (_album(task, each) for task in tasks[:_MOST])
    return tuple(album for album in found if album is not None)


def _album(task: Task, most: int) -> Album | None:
    if not isinstance(task.objective, Classification):
        return None
    samples = samples_of(task.test)
    try:
        count = len(samples)
        chosen = [int((number + 0.5) * count / most) for number in range(most)]
        batch = samples.take(torch.tensor(sorted(set(chosen))))
    except ForgetlessError:  # a stream has no numbers
        return None
    inputs, labels = batches.inputs(batch), batches.labels(batch).tolist()
    pictures = _pictures(inputs)
    if pictures is None or not all(0 <= label < len(task.objective.classes) for label in labels):
        return None
    return Album(task.name, tuple(task.objective.classes[label] for label in labels), pictures, inputs)


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
    """Keep the pictures in a folder of traces, once for all runs."""
    path = folder / "pictures.safetensors"
    if held and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        header = {"albums": [{"task": each.task, "labels": list(each.labels)} for each in held]}
        files.write_tensors(path, {str(number): each.pictures for number, each in enumerate(held)}, _KIND, header)


@dataclass(frozen=True)
class _Named:
    task: str
    labels: list[str]


@dataclass(frozen=True)
class _Header:
    albums: list[_Named]


def read_albums(folder: Path) -> tuple[Album, ...]:
    """The pictures that were kept; none where they are missing or damaged."""
    path = folder / "pictures.safetensors"
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
    return tuple(held)


def _fits(pictures: Tensor, count: int) -> bool:
    plain = pictures.dtype == torch.uint8 and pictures.dim() == 4 and len(pictures) == count
    return plain and pictures.shape[1] in (1, 3) and min(pictures.shape[2:]) > 0 and max(pictures.shape[2:]) <= _SIDE

"""What a run of facts keeps, for its page and for questions: read strictly, since it may come from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.kept import KEPT, Kept

_LARGEST = 4096  # pixels per side
#: What every file holds, and what it may: the letter of its numbers as NumPy has it, and how many axes.
_NEEDED = {"facts": ("f", 2), "pictures": ("f", 2), "labels": ("i", 1), "shown": ("i", 1), "thumbnails": ("u", 4)}
_OTHERS = {"top_facts": ("i", 3), "top_similarities": ("f", 3)}


@dataclass(frozen=True)
class TaskFacts:
    """A task: its name, and the numbers of its facts."""

    name: str
    facts: list[int]


@dataclass(frozen=True)
class Header:
    """What the file says of itself.

    Attributes:
        run: whose run it is.
        network: the backbone's name.
        size: pixels per side.
        facts: all facts as text; a fact's number is its place here.
        pictures: what each test picture is called; empty where that is not known.
        tasks: the tasks in order.
    """

    run: Kept
    network: str
    size: Annotated[int, files.Between(1, _LARGEST)]
    facts: list[str]
    pictures: list[str]
    tasks: list[TaskFacts]


def read(path: Path) -> tuple[dict[str, np.ndarray], Header]:
    """The arrays and the header of a file.

    Raises:
        ForgetlessError: it is missing, damaged or another experiment's, or numbers a fact or a picture that it does not
            have.
    """
    arrays, found = files.read_arrays(path, KEPT)
    header: Header = files.decoded(found, Header, path)
    if missing := [name for name in _NEEDED if name not in arrays]:
        raise ForgetlessError(f"{path} is no run of facts: it lacks {missing[0]!r}.")
    for name, (kind, axes) in (_NEEDED | _OTHERS).items():
        held = arrays.get(name)
        if held is not None and (held.dtype.kind, held.ndim) != (kind, axes):
            raise ForgetlessError(f"{path} is damaged: {name!r} is {held.dtype} {list(held.shape)}.")
    pictures, facts = len(arrays["labels"]), len(header.facts)
    numbers = {"labels": facts, "shown": pictures, "top_facts": facts}
    for name, most in numbers.items():
        held = arrays.get(name)
        if held is not None and held.size and not 0 <= int(held.min()) <= int(held.max()) < most:
            raise ForgetlessError(f"{path} is damaged: {name!r} holds numbers outside 0…{most - 1}.")
    fits = len(arrays["facts"]) == facts and len(arrays["pictures"]) == pictures
    if not fits or len(header.pictures) not in (0, pictures) or len(arrays["thumbnails"]) != len(arrays["shown"]):
        raise ForgetlessError(f"{path} is damaged: its facts or pictures are not as many as it says.")
    if {fact for task in header.tasks for fact in task.facts} - set(range(facts)):
        raise ForgetlessError(f"{path} is damaged: a task has facts outside 0…{facts - 1}.")
    return arrays, header

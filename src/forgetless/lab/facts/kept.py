"""What a run of facts keeps, for its page and for questions: read strictly, since it may come from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.running.work import KEPT, Kept

_LARGEST = 4096  # pixels per side


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


def read(path: Path) -> tuple[dict[str, Tensor], Header]:
    """The tensors and the header of a file.

    Raises:
        ForgetlessError: it is missing, damaged or another experiment's, or numbers a fact or a picture that it does not
            have.
    """
    tensors, found = files.read_tensors(path, KEPT)
    header: Header = files.decoded(found, Header, path)
    needed = ("facts", "pictures", "labels", "shown", "thumbnails")
    if missing := [name for name in needed if name not in tensors]:
        raise ForgetlessError(f"{path} is no run of facts: it lacks {missing[0]!r}.")
    pictures, facts = len(tensors["labels"]), len(header.facts)
    numbers = {"labels": facts, "shown": pictures, "top_facts": facts}
    for name, most in numbers.items():
        held = tensors.get(name)
        if held is not None and held.numel() and not 0 <= int(held.min()) <= int(held.max()) < most:
            raise ForgetlessError(f"{path} is damaged: {name!r} holds numbers outside 0…{most - 1}.")
    fits = len(tensors["facts"]) == facts and len(tensors["pictures"]) == pictures
    if not fits or len(header.pictures) not in (0, pictures) or len(tensors["thumbnails"]) != len(tensors["shown"]):
        raise ForgetlessError(f"{path} is damaged: its facts or pictures are not as many as it says.")
    if {fact for task in header.tasks for fact in task.facts} - set(range(facts)):
        raise ForgetlessError(f"{path} is damaged: a task has facts outside 0…{facts - 1}.")
    return tensors, header

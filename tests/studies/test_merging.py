"""The study of merging on a small network and small tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task
from studies import merging as study

RECIPE = dataclasses.replace(study.RECIPE, lr=0.05, epochs=3)


def network() -> MultiHead:
    torch.manual_seed(0)
    return MultiHead(nn.Sequential(nn.Linear(6, 16), nn.ReLU()), 16, pretrained=True)


def task(name: str) -> Task:
    draw = torch.Generator().manual_seed(len(name))
    inputs = torch.randn(160, 6, generator=draw)
    labels = (inputs @ torch.randn(6, generator=draw) > 0).long()
    return classification(name, ("a", "b"), (inputs[:100], labels[:100]), (inputs[100:], labels[100:]))


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    tasks = [task("one"), task("three")]
    return {"tasks": [each.name for each in tasks], "seeds": [study.study(tasks, network, 3, RECIPE)]}


def test_every_row_and_what_was_chosen_by_what_was_left_out(found: dict[str, object]) -> None:
    (run,) = found["seeds"]  # type: ignore[misc]
    rows = run["rows"]
    assert [*rows] == [study.EXPERTS, study.START, *study.ROWS]
    for name, (_, _, scales) in study.ROWS.items():
        assert ("λ" in rows[name]) == bool(scales)
        if scales:
            tried = rows[name]["held out"]
            assert tried[f"{rows[name]['λ']:g}"] == max(tried.values())
    assert min(rows[study.EXPERTS]["test"]) > 0.7


def test_training_and_choosing_see_no_test_picture() -> None:
    given = task("one")
    made = study.expert(given, network, 3, RECIPE)
    assert made.test is given
    kept, left_out = made.task.train[0], made.task.test[0]
    assert (len(kept), len(left_out)) == (80, 20)
    together = {tuple(row.tolist()) for row in torch.cat([kept, left_out])}
    assert together == {tuple(row.tolist()) for row in given.train[0]}
    assert all(name.startswith("backbone.") for omega in made.omegas.values() for name in omega.sums)


def test_the_page_takes_both_tables(found: dict[str, object], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = "".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in ("merging methods", "merging"))
    page.write_text(marks)
    study.write(page, found)
    text = page.read_text()
    assert text.count("\n| `") == 8
    for name in (study.EXPERTS, study.START, *study.ROWS):
        assert text.count(f"\n| {name} | ") == 1 + (name in study.ROWS and name != "mean")
    assert "| 100 % | – |" in text
    out = tmp_path / "found.json"
    files.write_sealed(out, found)
    before = page.read_text()
    study.main(["--out", str(out), "--page", str(page)])
    assert page.read_text() == before
    page.write_text("nothing")
    with pytest.raises(ForgetlessError, match="has no place for 'merging methods'"):
        study.write(page, found)

"""`forgetless merge-importances`: files of different days as one, the old ones fading."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cli.conftest import Command
from forgetless import ForgetlessError, Importance

Refused = Callable[..., None]
DAYS = ((2.0, 4.0), (3.0, 1.0), (10.0, 5.0))  # the sum, and over how many samples


def saved(values: tuple[tuple[float, float], ...] = DAYS, **more: str) -> list[str]:
    names = []
    for number, (total, count) in enumerate(values):
        names.append(f"day{number}.safetensors")
        Importance({"w": torch.tensor([total, 0.0])}, count, **more).save(names[-1])  # type: ignore[arg-type]
    return names


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_each_counts_as_often_as_it_is_old(decay: float, forgetless: Command) -> None:
    done = forgetless("merge-importances", *saved(), "--decay", decay, "--out", "month.safetensors")
    assert done.exit_code == 0, done.stderr
    weights = [decay**2, decay, 1.0]
    total = sum(weight * day[0] for weight, day in zip(weights, DAYS, strict=True))
    count = sum(weight * day[1] for weight, day in zip(weights, DAYS, strict=True))
    found = Importance.load("month.safetensors")
    assert found.count == pytest.approx(count)
    assert float(found.mean()["w"][0]) == pytest.approx(total / count)


def test_fading_changes_no_mean() -> None:
    whole = Importance({"w": torch.tensor([3.0, 0.5])}, 4)
    assert torch.equal(whole.faded(0.5).mean()["w"], whole.mean()["w"])
    assert whole.faded(0.5).count == 2
    for gamma in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(ForgetlessError, match="gamma must be above 0 and at most 1"):
            whole.faded(gamma)


def test_refused(forgetless: Command, refused: Refused) -> None:
    names = saved()
    refused("day0.safetensors exists already; choose another --out.", "merge-importances", *names, "--out", names[0])
    refused(
        "'day1.safetensors' would count twice; name each file once.",
        "merge-importances",
        *names,
        names[1],
        "--out",
        "m",
    )
    refused("--decay must be above 0 and at most 1, not 2.", "merge-importances", *names, "--decay", 2, "--out", "m")
    refused(
        "no.safetensors does not exist; name a file of that kind (importance) that was saved before.",
        *("merge-importances", names[0], "no.safetensors", "--out", "m"),
    )
    Importance({"other": torch.ones(2)}, 1).save("x.safetensors")
    done = forgetless("merge-importances", names[0], "x.safetensors", "--out", "m")
    assert done.exit_code == 2
    assert done.stderr.startswith("forgetless: x.safetensors cannot be merged: ")
    assert not Path("m").exists()


@pytest.mark.filterwarnings("default")
def test_days_of_different_networks_are_told(forgetless: Command) -> None:
    for name, weights in (("a", "1"), ("b", "2")):
        Importance({"w": torch.ones(2)}, 1, weights={"w": weights}).save(name)
    done = forgetless("merge-importances", "a", "b", "--out", "m")
    assert done.exit_code == 0
    assert "measured at different weights ('w')" in done.stderr
    same = Importance({"w": torch.ones(2)}, 1, weights={"w": "1"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same.merge(same, Importance({"w": torch.ones(2)}, 1))

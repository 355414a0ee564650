from __future__ import annotations

from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.recipes import PUBLISHED, Recipe
from forgetless.lab.networks.compressive import Sizes


def test_the_published_schedules() -> None:
    """Of characters: 1e-6 to 3e-4 in 4,000 steps, then a cosine of 100,000 steps back; one update in 4 after 60,000."""
    recipe = Recipe(**PUBLISHED["enwik8"].recipe)  # type: ignore[arg-type]
    assert recipe.rate(0) == 1e-6
    assert recipe.rate(2_000) == pytest.approx((1e-6 + 3e-4) / 2)
    assert recipe.rate(4_000) == 3e-4
    assert recipe.rate(54_000) == pytest.approx((1e-6 + 3e-4) / 2)
    assert recipe.rate(104_000) == recipe.rate(200_000) == 1e-6
    assert recipe.clip == 0.1
    moves = [recipe.moves(step) for step in range(59_998, 60_008)]
    assert moves == [True, True, False, False, False, True, False, False, False, True]
    assert (recipe.share(59_999), recipe.share(60_000)) == (1, 0.25)
    assert recipe.moves(103_999)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_fit(name: str) -> None:
    found = PUBLISHED[name]
    sizes, recipe = Sizes(symbols=256, **found.sizes), Recipe(**found.recipe)  # type: ignore[arg-type]
    assert sizes.memory == recipe.window
    assert recipe.steps == recipe.warm_up + recipe.decay


def test_without_a_schedule_the_rate_stays() -> None:
    assert {Recipe(steps=9, high=0.5).rate(step) for step in range(20)} == {0.5}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"rare": 0}, "rare must be at least 1"),
        ({"high": 0.0}, "high must be a positive number"),
        ({"clip": float("nan")}, "clip must be a positive number"),
    ],
)
def test_values_out_of_range(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ForgetlessError, match=said):
        Recipe(**{"steps": 9, **given})

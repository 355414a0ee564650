"""Values of JSON files with types and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.files import Between, Shape, decoded


@dataclass(frozen=True)
class Trial:
    strength: Annotated[float, Between(0)]
    accepted: bool
    kind: Literal["coarse", "fine"] = "coarse"


@dataclass(frozen=True)
class Search:
    trials: list[Trial]
    shapes: dict[str, Shape]
    limit: int | None = None


GOOD = {"trials": [{"strength": 1, "accepted": True}], "shapes": {"a.weight": [2, 3]}}


def test_a_record_is_built() -> None:
    assert decoded(GOOD, Search, "f") == Search([Trial(1.0, True)], {"a.weight": (2, 3)})
    assert decoded([1, "a"], tuple[int, str], "f") == (1, "a")
    assert decoded(None, int | None, "f") is None
    assert decoded({"a": [None]}, Any, "f") == {"a": [None]}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], "its content must be an object, not []."),
        ({}, "its content lacks the field 'trials'."),
        ({**GOOD, "more": 1}, "its content has the field 'more' and may only have trials, shapes, limit."),
        ({**GOOD, "limit": True}, "limit must be an integer, not True."),
        ({**GOOD, "limit": 1.0}, "limit must be an integer, not 1.0."),
        ({**GOOD, "trials": {}}, "trials must be a list, not {}."),
        ({**GOOD, "trials": [{"strength": float("nan"), "accepted": True}]},
         "trials[0].strength must be a finite number, not nan."),
        ({**GOOD, "trials": [{"strength": 10**400, "accepted": True}]},
         "trials[0].strength must be a finite number, not a number of 1329 bits."),
        ({**GOOD, "trials": [{"strength": -1, "accepted": True}]}, "trials[0].strength must be from 0 to inf, not -1."),
        ({**GOOD, "trials": [{"strength": True, "accepted": True}]}, "trials[0].strength must be a number, not True."),
        ({**GOOD, "trials": [{"strength": 1, "accepted": 1}]}, "trials[0].accepted must be true or false, not 1."),
        ({**GOOD, "trials": [{"strength": 1, "accepted": True, "kind": "x" * 999}]},
         f"trials[0].kind must be 'coarse' or 'fine', not '{'x' * 78}…."),
        ({**GOOD, "shapes": {"a": [-1]}}, "shapes.a[0] must be from 0 to 4611686018427387904, not -1."),
        ({**GOOD, "shapes": {"a b": [2, 2**62]}}, "shapes.'a b' is the shape of a tensor that no memory holds"),
        ({**GOOD, "shapes": {"a": "x"}}, "shapes.a must be a list, not 'x'."),
        ({**GOOD, "shapes": {"a": True}}, "shapes.a must be a list, not True."),
        ({**GOOD, "shapes": {"a": [1] * 65}}, "shapes.a must be a length from 0 to 64, not [1, 1, "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(value: Any, sentence: str) -> None:
    with pytest.raises(ForgetlessError) as raised:
        decoded(value, Search, "f.json")
    assert str(raised.value).startswith(f"f.json is damaged: {sentence}")
    assert len(str(raised.value)) < 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["trials", "shapes", "strength"]), inner)
    ),
    max_leaves=8,
)


@given(ANYTHING)
def test_any_value_is_taken_or_one_sentence(value: Any) -> None:
    for kind in (Search, Shape, int, float, dict[str, Shape], tuple[int, str], list[float] | None, Literal[1, "a"]):
        try:
            decoded(value, kind, "f")
        except ForgetlessError:
            continue

"""A card says what was measured; what others wrote in it stays text."""

from __future__ import annotations

from typing import Any

import pytest

from forgetless.measure.card import FRONT, Card, mark

yaml = pytest.importorskip("yaml")


def card(**changed: Any) -> str:
    settings: dict[str, Any] = {
        "estimator": "mas",
        "count": 1234.0,
        "sizes": {"a": 1000, "b": 24},
        "unused": ["b"],
        "weights": {"a": "0" * 16, "b": "1" * 16},
        "errors": {"a": 0.03, "b": 0.0},
        "base_model": "me/small",
        "data": "old texts",
        "place": "me/omega",
    }
    return Card(**settings | changed).text()


def front(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_names_library_tags_and_model() -> None:
    found = front(card())
    assert found["library_name"] == "forgetless"
    assert "forgetless" in found["tags"]
    assert found["base_model"] == "me/small"
    assert "base_model" not in front(card(base_model=None))
    assert card().startswith(FRONT)


def test_the_table_says_what_was_measured() -> None:
    text = card()
    for said in ("me/small", "old texts", "`mas`: Memory Aware", "| 1,234 |", "1,024 weights in 2 tensors", "`b`"):
        assert said in text
    assert "at most 3.00% (`a`)" in text
    assert mark({"b": "1" * 16, "a": "0" * 16}) in text
    assert 'from_pretrained("me/omega", model=model)' in text


def test_what_is_not_known_is_said() -> None:
    text = card(base_model=None, data=None, errors=None, unused=[], weights={})
    assert text.count("not stated") == 2
    for said in ("| not measured |", "| none |", "| not known |"):
        assert said in text
    assert "a single batch" in card(errors={"a": float("inf")})


def test_many_unused_parameters_are_counted() -> None:
    text = card(unused=[f"p{n}" for n in range(500)])
    assert "and 480 more" in text
    assert len(text) < 3000


def test_a_hostile_name_stays_text() -> None:
    name = 'x"\n---\nlicense: mit\n# <script>alert(1)</script> | [a](javascript:b) ```'
    text = card(base_model=name, data=name, unused=[name], estimator=name, place=name)
    assert front(text) == {**front(card()), "base_model": name}
    body = text.split("---\n\n", 1)[1]
    assert "<script>" not in body.replace('\\"', "")[: body.index("```python")]
    assert sum(line.startswith("| ") for line in body.splitlines()) == 9  # its heading and eight rows
    assert all(line.replace("\\|", "").count("|") == 3 for line in body.splitlines() if line.startswith("| "))

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from forgetless.errors import ForgetlessError
from forgetless.lab.report import table
from forgetless.lab.results import MEANING
from forgetless.learn.methods import METHODS

Results = dict[str, Any]


def lines(results: Results, width: int = 80) -> list[str]:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(results))
    return [line.rstrip() for line in console.export_text().splitlines()]


def row(drawn: list[str], name: str) -> str:
    """The line that starts with `name`, its columns a space apart."""
    return next(" ".join(line.split()) for line in drawn if line.strip().startswith(name))


def test_says_what_was_learned_and_what_is_left(results: Callable[..., Results]) -> None:
    drawn = lines(results())
    assert "demo: 3 tasks, one after the other" in drawn
    assert row(drawn, "zero or one") == "zero or one 90.0 → 50.0 90.0 → 90.0 90.0 → 88.0"
    assert row(drawn, "four or five") == "four or five 90.0 → 90.0 90.0 → 90.0 90.0 → 90.0"
    assert row(drawn, "average") == "average 90.0 → 70.0 90.0 → 90.0 90.0 → 89.0"
    assert row(drawn, "forgetting") == "forgetting 30.0 0.0 1.5"
    assert any("finetune" in line and "frozen" in line and "mas, λ = 1" in line for line in drawn)


def test_explains_every_word_it_uses(results: Callable[..., Results]) -> None:
    drawn = lines(results(seeds=3))
    for word in ("learned", "now", "finetune", "frozen", "mas", "±"):
        assert row(drawn, word)
    assert "over 3 seeds" in row(drawn, "±")
    assert not any(line.startswith("±") for line in lines(results()))


def test_every_method_has_a_line_and_one_with_two_strengths_has_one(results: Callable[..., Results]) -> None:
    found = results(methods=("mas", "ewc"))
    found["runs"].append({**found["runs"][0], "column": "2", "strength": 2.0})
    words = [line.split()[0] for line in lines(found) if line.strip()]
    assert words.count("mas") == words.count("ewc") == 1
    assert {*METHODS} <= {*MEANING}


def test_several_seeds_have_a_mean_and_a_deviation(results: Callable[..., Results]) -> None:
    assert "91.0 → 51.0 ± 1.0" in row(lines(results(seeds=3)), "zero or one")


def test_seeds_that_differ_in_number_are_told(results: Callable[..., Results]) -> None:
    found = results(seeds=3)
    del found["runs"][-2:]
    assert "over 1 to 3 seeds" in row(lines(found), "±")


def test_several_orders_are_told(results: Callable[..., Results]) -> None:
    found = results(seeds=2)
    found["runs"][1].update(learned=found["tasks"][::-1], order=1)
    drawn = lines(found)
    assert "demo: 3 tasks, one after the other, in several orders" in drawn
    assert row(drawn, "zero or one").startswith("zero or one 90.5 → 70.5 ± 29.0")  # 50 % as the first, 91 as the last
    assert "over 2 runs" in row(drawn, "±")


def test_one_task_has_nothing_to_forget(results: Callable[..., Results]) -> None:
    drawn = lines(results(tasks=("flowers",)))
    assert "demo: one task" in drawn
    assert row(drawn, "forgetting ") == "forgetting – – –"


def test_what_is_unknown_is_left_out_of_no_mean(results: Callable[..., Results]) -> None:
    found = results(seeds=2)
    found["runs"][0]["accuracy"][2][0] = None
    drawn = lines(found)
    assert "90.5 → –" in row(drawn, "zero or one")
    assert "90.5 → –" in row(drawn, "average")


@pytest.mark.parametrize("methods", [3, 8, 20])
def test_never_wider_than_a_terminal(results: Callable[..., Results], methods: int) -> None:
    drawn = lines(results(methods=[f"method {n}" for n in range(methods)], seeds=2, tasks=("a" * 70, "b")))
    assert max(map(len, drawn)) <= 80
    for number in range(methods):
        assert any(f"method {number}" in line for line in drawn)
    assert sum("learned → now" in line for line in drawn) > 1 or methods == 3


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", ":smile:", "日本語", "\x1b[31mred", "a\nb", ""])
def test_names_are_shown_as_they_are_and_do_nothing(results: Callable[..., Results], name: str) -> None:
    drawn = "\n".join(lines(results(tasks=(name, "other"), methods=(name,), experiment=name)))
    assert "\x1b" not in drawn
    assert "".join(letter if letter.isprintable() else "\ufffd" for letter in name) in drawn


def test_no_finished_run(results: Callable[..., Results]) -> None:
    found = results()
    found["runs"] = []
    sentence = "these results hold no finished run yet; let `forgetless run` finish one."
    with pytest.raises(ForgetlessError, match=sentence):
        table(found)

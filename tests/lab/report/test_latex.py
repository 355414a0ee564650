from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from forgetless.lab.report import latex

Results = dict[str, Any]


def test_a_row_per_method(results: Callable[..., Results]) -> None:
    lines = latex(results(seeds=2)).splitlines()
    assert r"\begin{tabular}{lrrrrrr}" in lines
    assert r"method & zero or one & two or three & four or five & average & forgetting & difference \\" in lines
    assert r"frozen & 90.5 & 90.5 & 90.5 & 90.5 $\pm$ 0.7 & 0.0 $\pm$ 0.0 & $-$1.0 {[}$-$1.0, $-$1.0{]} \\" in lines
    assert r"mas, $\lambda$ = 1 & 88.5 & 89.5 & 90.5 & 89.5 $\pm$ 0.7 & 1.5 $\pm$ 0.0 & -- \\" in lines
    alone = latex(results())
    assert "difference" not in alone
    assert "Means over" not in alone


def test_many_tasks_are_left_to_their_average(results: Callable[..., Results]) -> None:
    assert "method & average & forgetting " in latex(results(tasks=[f"t{n}" for n in range(9)], methods=["frozen"]))


@pytest.mark.parametrize(
    "name",
    ["100%", "a&b", r"\input{x}", "$x$", "#_^~{}", r"[3]", "*", "a--b", "x\ny", "^^M", "don''t", '"`', "\\\\", "<|>"],
)
def test_names_are_shown_as_they_are_and_do_nothing(results: Callable[..., Results], name: str) -> None:
    found = results(tasks=(name, "b"), methods=(name, "mas"), experiment=name, seeds=2)
    found["environment"] = {name: name}
    plain = latex(results(tasks=("x", "b"), methods=("x", "mas"), experiment="x", seeds=2))
    lines, known = ([each for each in text.splitlines() if each[0] != "%"] for text in (latex(found), plain))
    assert len(lines) == len(known)
    for line, other in zip(lines, known, strict=True):
        # What LaTeX would act on: commands are those that write a sign, and cells, groups and math are those of "x".
        signs = r"\\text\w+\{\}|\{\\char34\}|\{[-'*\[\]]\}|\\[&%$#_{}]"
        left = [re.sub(r"[^\\&%$#_{}^~]|\\[a-z]+", "", re.sub(signs, "", each)) for each in (line, other)]
        assert left[0] == left[1]
        assert re.match(r"[\[*]", line) is None


def test_letters_that_pdflatex_lacks_are_math_or_told_of(results: Callable[..., Results]) -> None:
    known = latex(results(tasks=("Ω ≤ −2 θ", "b")))
    assert r"method & $\Omega$ $\leq$ $-$2 $\theta$ & b" in known
    assert "lualatex" not in known
    told = latex(results(tasks=("日é日", "b"))).splitlines()[1]
    assert told == "% pdflatex knows accented letters; where it lacks one of 日é, use lualatex with a font of yours."

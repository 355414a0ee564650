"""The results as a LaTeX table: a row per method, as papers have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from forgetless.lab.results import Compared, Estimate, MethodSummary, Summary, compared, percent, points, summarize

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after a row's end it would be that command's argument
    "]": "{]}",
    "*": "{*}",
    "'": "{'}",  # two of them would be a double quote
    "-": "{-}",  # two of them would be a dash
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "√": r"$\surd$",
    "∞": r"$\infty$",
    "\N{REPLACEMENT CHARACTER}": "?",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\epsilon$",
    "ζ": r"$\zeta$",
    "η": r"$\eta$",
    "θ": r"$\theta$",
    "ι": r"$\iota$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ν": r"$\nu$",
    "ξ": r"$\xi$",
    "π": r"$\pi$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "υ": r"$\upsilon$",
    "φ": r"$\phi$",
    "χ": r"$\chi$",
    "ψ": r"$\psi$",
    "ω": r"$\omega$",
    "Γ": r"$\Gamma$",
    "Δ": r"$\Delta$",
    "Θ": r"$\Theta$",
    "Λ": r"$\Lambda$",
    "Ξ": r"$\Xi$",
    "Π": r"$\Pi$",
    "Σ": r"$\Sigma$",
    "Υ": r"$\Upsilon$",
    "Φ": r"$\Phi$",
    "Ψ": r"$\Psi$",
    "Ω": r"$\Omega$",
}
_WIDEST = 8  # more columns of tasks do not fit a page


def latex(results: Mapping[str, Any], method: str | None = None) -> str:
    """Write the content of a `results.json` as a LaTeX table for `booktabs`: a row per method.

    pdflatex compiles it unless a name holds letters that it has none of, such as 日; a comment then says so.

    A column per task (its score after the last task; left out where there are more than eight), the average, the
    forgetting and, where seeds allow, what one method has more than every other on the same seeds. Names are escaped.

    Args:
        results: the content of a `results.json`.
        method: the one that is compared with the others.

    Raises:
        ForgetlessError: the content is not the results of an experiment, or holds no run yet; as `compared`.
    """
    lines = list(_lines(summarize(results), results, method))
    foreign = dict.fromkeys(letter for line in lines if line[0] != "%" for letter in line if not letter.isascii())
    if foreign:
        known = "pdflatex knows accented letters; where it lacks one of"
        lines.insert(1, f"% {known} {''.join(foreign)}, use lualatex with a font of yours.")
    return "\n".join(lines) + "\n"


def _lines(summary: Summary, results: Mapping[str, Any], method: str | None) -> Iterator[str]:
    found = compared(results, method)
    tasks = summary.tasks if len(summary.tasks) <= _WIDEST else ()
    heads = [*map(_escaped, tasks), "average", "forgetting", *(["difference"] if found else [])]
    against = {each.other: each.average for each in found.differences} if found else {}
    yield r"% \usepackage{booktabs}"
    yield from (f"% {key}: {value}" for key, value in summary.environment.items())
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\begin{{tabular}}{{l{'r' * len(heads)}}}"
    yield r"\toprule"
    yield " & ".join(["method", *heads]) + r" \\"
    yield r"\midrule"
    for each in summary.methods:
        cells = [*_figures(each, bool(tasks)), *([points(against.get(each.label))] if found else [])]
        yield " & ".join([_escaped(each.label), *map(_number, cells)]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield rf"\caption{{{' '.join(_caption(summary, found))}}}"
    yield r"\end{table}"


def _figures(method: MethodSummary, tasks: bool) -> Iterator[str]:
    for each in method.now if tasks else ():
        yield percent(None if each is None else Estimate(each.mean))
    yield percent(method.average)
    yield percent(method.forgetting)


def _caption(summary: Summary, found: Compared | None) -> Iterator[str]:
    yield f"{_escaped(summary.experiment)}: {_escaped(summary.score)} on test data in \\%, after the last task."
    yield "Forgetting: points lost since a task was learned, on average over all tasks but the last."
    if any(len(method.seeds) > 1 for method in summary.methods):
        yield f"Means over {summary.runs}, with the standard deviation."
    if found is not None:
        yield f"Difference: the average of {_escaped(found.method)} minus the row's on the same seeds, in points,"
        yield "with its own 95\\,\\% confidence interval."


def _number(text: str) -> str:
    return _escaped(text).replace("{-}", "$-$")


def _escaped(text: str) -> str:
    """`text` on one line, shown as it is: it makes no command, cell or comment."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)

"""An importance's card: the README.md beside its file, which says what was measured, on what, and how surely."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FRONT = "---\nlibrary_name: forgetless\n"  # how a card of ours begins
_MOST = 20  # names of parameters in a row of the table
_KINDS = {
    "mas": "Memory Aware Synapses (Aljundi et al., ECCV 2018): the mean over samples of |∂‖F(x)‖²/∂θ|",
    "local-mas": "local Memory Aware Synapses (Aljundi et al., ECCV 2018): the mean product of activations",
    "fisher": "the diagonal of the Fisher information",
    "output-curvature": "the diagonal of the output's curvature",
}


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        estimator: what was measured.
        count: over how many samples.
        sizes: parameter name → how many weights it has.
        unused: parameters that took no part.
        weights: parameter name → fingerprint of the weights it was measured at.
        errors: parameter name → relative standard error; None where it is not known.
        base_model: the model's repository on the Hub, or another name.
        data: what it was measured on, in words.
        place: what `Importance.from_pretrained` is called with.
    """

    estimator: str
    count: float
    sizes: Mapping[str, int]
    unused: Sequence[str]
    weights: Mapping[str, str]
    errors: Mapping[str, float] | None
    base_model: str | None
    data: str | None
    place: str

    def text(self) -> str:
        """The card as Markdown, with YAML in front; what others wrote is quoted in both."""
        of = "" if self.base_model is None else f" of {_plain(self.base_model)}"
        rows = "\n".join(f"| {what} | {said} |" for what, said in self._rows().items())
        return (
            f"{FRONT}tags:\n- forgetless\n- continual-learning\n- parameter-importance\n"
            + ("" if self.base_model is None else f"base_model: {json.dumps(self.base_model)}\n")
            + f"---\n\n# Importance of the parameters{of}\n\n"
            "How much every parameter matters to what the model computes, measured from unlabeled samples. An anchor\n"
            "protects the parameters by it while the model learns something new.\n\n"
            f"| | |\n|---|---|\n{rows}\n\n"
            "```python\nimport forgetless\n\n"
            f"importance = forgetless.Importance.from_pretrained({json.dumps(self.place)}, model=model)\n"
            "forgetless.Anchor(model, importance).attach(optimizer)\n```\n\n"
            "`model=` refuses weights other than those that were measured.\n"
        )

    def _rows(self) -> dict[str, str]:
        unused = [f"`{_plain(name)}`" for name in self.unused[:_MOST]]
        more = f" and {len(self.unused) - _MOST} more" if len(self.unused) > _MOST else ""
        kind = f": {_KINDS[self.estimator]}" if self.estimator in _KINDS else ""
        return {
            "model": _plain(self.base_model or "not stated"),
            "data": _plain(self.data or "not stated"),
            "estimator": f"`{_plain(self.estimator)}`{kind}",
            "samples": f"{self.count:,.10g}",
            "parameters": f"{sum(self.sizes.values()):,} weights in {len(self.sizes):,} tensors",
            "parameters not used (Ω = 0)": ", ".join(unused) + more or "none",
            "standard error of Ω": self._sure(),
            "fingerprint of the weights": f"`{mark(self.weights)}`" if self.weights else "not known",
        }

    def _sure(self) -> str:
        if self.errors is None:
            return "not measured"
        known = sorted((value, name) for name, value in self.errors.items() if math.isfinite(value))
        if len(known) < len(self.errors) or not known:
            return "not known: a single batch"
        (middle, _), (largest, name) = known[len(known) // 2], known[-1]
        return f"{middle:.2%} of ‖Ω‖ in the median tensor, at most {largest:.2%} (`{_plain(name)}`)"


def mark(weights: Mapping[str, str]) -> str:
    """One short hash for all fingerprints of a model's weights."""
    return hashlib.sha256(json.dumps(sorted(weights.items())).encode()).hexdigest()[:16]


def _plain(text: str) -> str:
    """Somebody's words on one line of a table, as text: no markup, no HTML, no links."""
    words = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    for each in "\\`*_{}[]<>#|!":
        words = words.replace(each, f"\\{each}" if each not in "<>" else f"&{'lt' if each == '<' else 'gt'};")
    return words

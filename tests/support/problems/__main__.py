"""Writes `docs/exactness.md`: every problem, the path its parameters take, and how far they are from the reference.

PYTHONPATH=tests/support OMP_NUM_THREADS=1 python -m problems > docs/exactness.md
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from typing import Any

import torch
from torch import nn

import forgetless
from exactness import worst
from forgetless.measure.verify.kinks import on_a_kink, without
from forgetless.model.outputs import Output
from forgetless.protect.optimizers.gradient import Gradient
from optimizers import ENDING, OTHERS
from problems import PROBLEMS, Problem
from refused import REFUSED_DATA, REFUSED_MODELS

PAGE = """# Exactness: what was measured on every kind of network

Made by the command below from the tests' own problems (`tests/support/problems`); the numbers are of one run.

```
PYTHONPATH=tests/support OMP_NUM_THREADS=1 python -m problems > docs/exactness.md
```

Each problem is measured by `forgetless.mas` in a batch and by `forgetless.reference.mas`, which takes one sample at a
time by plain autograd and shares no code with the kernels. The error is the largest difference of a parameter's
importance, divided by the largest importance of that parameter (where mathematics says 0, by the network's), the worst
parameter of each problem. In float32 the reference is the *float32* loop, whose own rounding is part of the error.

*Path*: "batch" where every parameter has a rule that holds for the whole batch; otherwise how many parameters are
measured one sample at a time, and why. *On a kink*: samples with an activation within rounding of a kink (a ReLU's 0),
which have no one right gradient in float32; they are left out of the float32 error where it is above {whole:g}.

The tests hold these numbers to 1e-10 in float64, and in float32 to 5e-6 for layers and uses and 2e-5 for networks.

torch {torch}, {count} problems, worst error {wide:.1e} in float64{but}, {single:.1e} in float32.
"""
WHOLE = 2e-5
KINDS = {
    "layer": "Layers of `torch.nn`",
    "use": "Other uses of parameters",
    "routed": "Rows that follow the data",
    "alike": "Another axis as long as the batch",
    "late": "What shows in later batches only",
    "network": "Whole networks",
}


def measured(problem: Problem) -> tuple[str, float, float, int]:
    """The path, both errors, and how many samples sit on a kink in float32."""
    path, wide, _ = _compared(*problem.make(torch.float64))
    model, batch, options = problem.make(torch.float32)
    _, single, _ = _compared(model, batch, options)
    kinked: list[int] = []
    if single > WHOLE:
        function = Output(options.get("output"), options.get("forward"))
        kinked = on_a_kink(lambda piece: function.tensors(model, piece), batch)
        if kinked:
            _, single, _ = _compared(model, without(batch, kinked), options)
    return path, wide, single, len(kinked)


def _compared(model: nn.Module, batch: Any, options: dict[str, Any]) -> tuple[str, float, int]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = forgetless.mas(model, batch, progress=False, **options)
    told = [str(warning.message) for warning in caught if "one sample at a time" in str(warning.message)]
    path = "batch"
    if told:
        path = f"{told[0].split(' parameters')[0]} one sample at a time ({told[0].split('(')[1].split(')')[0]})"
    return path, worst(found, forgetless.reference.mas(model, batch, **options)), found.count


def sentence(model: Any, data: Any) -> str:
    """What is said instead of a number, as a cell of a table."""
    try:
        forgetless.mas(model, data, progress=False)
    except forgetless.ForgetlessError as error:
        return str(error).replace("|", "\\|")
    raise AssertionError("it was measured")


def refusals() -> None:
    """Write what cannot be measured as it is."""
    print("## Refused in one sentence\n\n| what is given | what is said |\n|---|---|")
    for what, (build, _) in REFUSED_MODELS.items():
        print(f"| model: {what} | {sentence(build(), torch.randn(6, 4))} |")
    for what, (data, _) in REFUSED_DATA.items():
        print(f"| data: {what} | {sentence(nn.Conv2d(3, 2, 3), data)} |")


def optimizers() -> None:
    """Write where each optimizer ends with the pull, and what is said of others."""
    print("## Protection in every optimizer\n")
    print(
        "With `Anchor.attach(optimizer)`: how far from the optimum of the penalized loss a quadratic problem ends, at\n"
        "15 strengths from 1e-6 to 1e8, after the learning rate has fallen where it must. The weights are about 1.\n"
    )
    print("| optimizer | from the optimum |\n|---|---|")
    for ending in ENDING:
        gap = ending.gap()
        print(f"| {ending} | {'not installed' if gap is None else f'{gap:.1e}'} |")
    print("\n| other optimizers | what `attach` does |\n|---|---|")
    for what, make in OTHERS.items():
        print(f"| {what} | {answer(make)} |")


def answer(make: Any) -> str:
    """What `attach` does with an optimizer, and what it says of it, as a cell of a table."""
    model = nn.Linear(2, 2, bias=False)
    importance = forgetless.Importance({"weight": torch.ones(2, 2)}, 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            anchor = forgetless.Anchor(model, importance, 1.0).attach(make(model.parameters()))
        except forgetless.ForgetlessError as error:
            return f"refused: {error}".replace("|", "\\|")
    (attachment,) = anchor._attached
    assert isinstance(attachment, Gradient), "it has a form, and belongs into the table above"
    said = " ".join(str(each.message) for each in caught).replace("|", "\\|")
    return f"the penalty is added to its gradients{', with a warning: ' * bool(said)}{said}"


def main() -> None:
    """Write the page to standard output."""
    torch.set_num_threads(1)
    missing = {p.needs for p in PROBLEMS if p.needs and importlib.util.find_spec(p.needs) is None}
    chosen = [problem for problem in PROBLEMS if problem.needs not in missing]
    results = {}
    for problem in chosen:
        print(problem.name, file=sys.stderr)
        results[problem.name] = measured(problem)
    exact = [results[problem.name][1] for problem in chosen if not problem.half_exact]
    partly = [problem.name for problem in chosen if problem.half_exact]
    but = f" (but for {', '.join(partly)}, which computes in float32 in part whatever its dtype)" if partly else ""
    single = max(found[2] for found in results.values())
    facts = {"torch": torch.__version__, "count": len(chosen), "wide": max(exact), "single": single, "but": but}
    print(PAGE.format(**facts, whole=WHOLE))
    if missing:
        print(f"Not measured, because it is not installed: {', '.join(sorted(missing))}.\n")
    for kind, title in KINDS.items():
        print(f"## {title}\n\n| problem | path | float64 | float32 | on a kink |\n|---|---|---|---|---|")
        for problem in chosen:
            if problem.kind == kind:
                path, wide, single, kinked = results[problem.name]
                print(f"| {problem.name} | {path} | {wide:.1e} | {single:.1e} | {kinked or ''} |")
        print()
    optimizers()
    print()
    refusals()


if __name__ == "__main__":
    main()

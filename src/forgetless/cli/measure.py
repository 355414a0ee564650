"""`forgetless measure MODEL`: the importance of a network's parameters, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetless.cli.parts.models import (
    SAMPLES,
    Exclude,
    Model,
    Output,
    Size,
    Weights,
    forward_for,
    load_data,
    load_model,
)
from forgetless.errors import ForgetlessError

if TYPE_CHECKING:
    from forgetless.measure.importance import Importance


def measure(
    model: Model,
    data: Annotated[
        Path,
        typer.Option(help=f"Unlabeled samples of what the network must keep doing: {SAMPLES}.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The .safetensors file to save the importance in.", show_default=False)],
    weights: Weights = None,
    output: Output = None,
    exclude: Exclude = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at a time; never changes the numbers.")] = 64,
    size: Size = 224,
    limit: Annotated[int | None, typer.Option(min=1, help="The most pictures to measure on. [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Measure how much every parameter of a network matters to what it computes.

    Pictures reach the network as they are decoded, uint8 RGB [N, 3, SIZE, SIZE], and it normalizes them itself; a
    torchvision network gets them scaled as torchvision does.
    """
    import forgetless

    if out.exists():
        raise ForgetlessError(f"{out} exists already; choose another --out.")
    importance = forgetless.mas(
        load_model(model, weights),
        load_data(data, size, limit),
        output=output,
        forward=forward_for(model, data),
        exclude=exclude or (),
        batch_size=batch_size,
    )
    importance.save(out)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **_facts(importance)}, indent=2))
    else:
        _show(importance, out)


def _facts(importance: Importance) -> dict[str, Any]:
    means = importance.mean()
    whole = sum(float(omega.sum()) for omega in means.values())
    parameters = {
        name: {
            "shape": list(omega.shape),
            "mean": float(omega.mean()),
            "max": float(omega.max()),
            "share": float(omega.sum()) / whole if whole else 0.0,
        }
        for name, omega in means.items()
    }
    return {
        "estimator": importance.estimator,
        "samples": importance.count,
        "unused": list(importance.unused),
        "parameters": parameters,
    }


def _show(importance: Importance, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    facts = _facts(importance)
    shares = sorted(facts["parameters"].items(), key=lambda item: -item[1]["share"])
    shown = Table("parameter", "shape", "mean Ω", "share of all Ω", box=None, pad_edge=False)
    for name, found in shares[:12]:
        shape = " × ".join(map(str, found["shape"]))
        shown.add_row(Text(name), shape, f"{found['mean']:.3g}", f"{100 * found['share']:.1f} %")
    Console().print(shown)
    rest = f"and {len(shares) - 12} more parameters; " if len(shares) > 12 else ""
    typer.echo(f"\n{rest}measured on {importance.count:g} samples\nimportance: {out}")

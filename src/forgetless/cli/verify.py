"""`forgetless verify MODEL`: whether a network's importance is exact, parameter by parameter."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetless.cli.parts.models import Model, Weights, load_model
from forgetless.cli.parts.output import AsJson, print_json
from forgetless.cli.parts.samples import (
    SAMPLES,
    Exclude,
    MaxLength,
    Output,
    Size,
    TextField,
    forward_of,
    samples_of,
)
from forgetless.errors import ForgetlessError

if TYPE_CHECKING:
    from forgetless.measure.verify.verification import Verification


def verify(
    model: Model,
    data: Annotated[Path | None, typer.Option(help=f"Samples: {SAMPLES}. [default: random ones]")] = None,
    weights: Weights = None,
    output: Output = None,
    exclude: Exclude = None,
    size: Size = None,
    text_field: TextField = None,
    max_length: MaxLength = 512,
    shape: Annotated[
        str, typer.Option(help="The shape of a random sample; of an hf: model of texts, 16 random tokens.")
    ] = "3,64,64",
    samples: Annotated[int, typer.Option(min=2, help="How many samples.")] = 4,
    tolerance: Annotated[
        float, typer.Option(help="The largest error in float64, relative to a parameter's largest importance.")
    ] = 1e-10,
    tolerance_own: Annotated[
        float | None,
        typer.Option(help="The same in the model's own precision. [default: 2e-5, in half precision 0.05]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random weights and samples.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare the importance of every parameter with one-at-a-time passes: path taken, error, cost.

    ```
    forgetless verify torchvision:resnet18
    forgetless verify my_models:network --data data.npy --samples 8
    ```

    Ends with exit code 1 if an error is above the tolerance. In float32 a sample with an activation within rounding of
    a kink (a ReLU's 0) has no single right gradient: such samples are named, and compared in float64 alone.
    """
    import torch

    from forgetless.measure import reference
    from forgetless.measure.verify.verification import verify as verified

    for option, value in (("--tolerance", tolerance), ("--tolerance-own", tolerance_own)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ForgetlessError(f"{option} must be positive and finite, not {value}.")
    torch.manual_seed(seed)
    loaded = load_model(model, weights, random=True)
    if data is not None:
        found_samples = samples_of(loaded, data, size=size, text=text_field, length=max_length).spread(samples)
        batch = found_samples.batch(range(found_samples.count))
    elif loaded.kind.reads_texts:
        batch = {"input_ids": torch.randint(len(loaded.tokenizer), (samples, 16))}
    else:
        batch = torch.randn(samples, *_sizes(shape))
    found = verified(
        loaded.network,
        batch,
        reference.mas,
        output=output,
        forward=forward_of(loaded, data, output),
        exclude=exclude or (),
    )
    half = found.dtype in (torch.float16, torch.bfloat16)
    own = (0.05 if half else 2e-5) if tolerance_own is None else tolerance_own
    wrong = [row.name for row in found.rows if row.float64 > tolerance or (row.own is not None and row.own > own)]
    if as_json:
        print_json(_facts(model, found, wrong))
    else:
        _show(found, wrong)
    if wrong:
        sys.stderr.write(f"forgetless: {len(wrong)} of {len(found.rows)} parameters are not exact.\n")
        raise typer.Exit(1)


def _sizes(shape: str) -> list[int]:
    try:
        sizes = [int(size) for size in shape.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise ForgetlessError(f"--shape {shape!r} is no shape; write numbers with commas, as in 3,64,64.")
    return sizes


def _facts(model: str, found: Verification, wrong: list[str]) -> dict[str, Any]:
    return {
        "model": model,
        "exact": not wrong,
        "samples": found.samples,
        "on_a_kink": list(found.kinked),
        "dtype": str(found.dtype).removeprefix("torch."),
        "milliseconds_per_sample": found.milliseconds,
        "parameters": {
            row.name: {
                "path": row.path,
                "by": row.by,
                "error_float64": row.float64,
                "error_own_dtype": row.own,
                "milliseconds_per_sample": row.milliseconds,
                "exact": row.name not in wrong,
            }
            for row in found.rows
        },
    }


def _show(found: Verification, wrong: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    dtype = str(found.dtype).removeprefix("torch.")
    shown = Table(
        "parameter", "path", "by", "error, float64", f"error, {dtype}", "ms a sample", box=None, pad_edge=False
    )
    for row in found.rows:
        style = "bold red" if row.name in wrong else ""
        own = "–" if row.own is None else f"{row.own:.1e}"
        cost = "–" if row.milliseconds is None else f"{row.milliseconds:.3f}"
        shown.add_row(Text(row.name), row.path, Text(row.by), f"{row.float64:.1e}", own, cost, style=style)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file is as wide as it takes
    console.print(shown)
    ours, alone, plain = (found.milliseconds[key] for key in ("importance", "one at a time", "plain"))
    typer.echo(
        f"\n{found.samples} samples; a sample costs {ours:.3g} ms with the check of the first two, {alone:.3g} ms one "
        f"at a time, and {plain:.3g} ms in a plain forward and backward pass."
    )
    if found.kinked:
        listed = ", ".join(map(str, found.kinked))
        typer.echo(f"on a kink in {dtype}, so compared in float64 alone: sample {listed}.")
    typer.echo("not exact: " + ", ".join(wrong) if wrong else "exact.")

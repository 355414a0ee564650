"""`forgetless measure MODEL`: the importance of a network's parameters, from the command line."""

from __future__ import annotations

import hashlib
import time
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
    from torch import nn

    from forgetless.cli.parts.partial import Partial
    from forgetless.lab.datasets.reading.unlabeled import Unlabeled
    from forgetless.measure.importance import Importance
    from forgetless.measure.measurement import Measurement


_SAVED_EVERY = 30.0  # seconds


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
    size: Size = None,
    text_field: TextField = None,
    max_length: MaxLength = 512,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The most samples, spread evenly over the data. [default: all]")
    ] = None,
    encode: Annotated[
        str | None, typer.Option(help="package.module:function from a list of texts to a batch, for .jsonl with text.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")] = False,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after so long, and save what was measured. [default: no limit]")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=1, help="The most megabytes for activations; never changes the numbers.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a measurement that was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how much every parameter of a network matters to what it computes.

    ```
    forgetless measure timm:NET --data pictures/ --out omega.safetensors
    forgetless measure my_models:network --data data.npy --out omega --resume
    ```

    Pictures reach the network as they are decoded, uint8 RGB [N, 3, SIZE, SIZE], and it normalizes them itself; a
    network of torchvision, timm or transformers gets them scaled as it was trained. Texts are read by the tokenizer of
    an hf: model, and those of similar length are measured together. OUT appears when all are measured, or the time is
    up; until then OUT.partial is kept for --resume.
    """
    import forgetless
    from forgetless.cli.parts.partial import Partial

    if out.exists():
        raise ForgetlessError(f"{out} exists already; choose another --out.")
    loaded = load_model(model, weights)
    samples = samples_of(
        loaded, data, size=size, text=text_field, length=max_length, encode=encode, skip_bad=skip_bad
    ).spread(limit)
    network = loaded.network
    asked = {
        "the model": model,
        "the weights": _hash(network),
        "the data": f"{samples.count} samples, {samples.listing}",
        "--size": str(size or loaded.size),
        "--output": str(output),
        "--exclude": ", ".join(exclude or ()),
        "--encode": str(encode),
        "--skip-bad": str(skip_bad),
    }
    progress = Partial(out.with_name(out.name + ".partial"), asked, resume)
    measurement = forgetless.Measurement(
        network,
        output=output,
        forward=forward_of(loaded, data, output),
        exclude=exclude or (),
        batch_size=batch_size,
        memory=None if memory is None else memory << 20,
        into=progress.found,
    )
    try:
        _measured(measurement, samples, progress, batch_size, max_seconds)
    except KeyboardInterrupt as interrupt:
        progress.save(measurement)
        typer.echo(f"forgetless: stopped; {progress.at} of {samples.count} samples are kept for --resume.", err=True)
        raise typer.Exit(130) from interrupt
    importance = measurement.importance()
    importance.save(out)
    progress.path.unlink(missing_ok=True)
    if progress.at < samples.count:
        typer.echo(f"forgetless: the time is up after {progress.at} of {samples.count} samples.", err=True)
    if as_json:
        print_json({"out": str(out), **_facts(importance)})
    else:
        _show(importance, out)


def _measured(
    measurement: Measurement, samples: Unlabeled, progress: Partial, batch_size: int, seconds: float | None
) -> None:
    """Measure the samples that are left, until the time is up; at least one batch."""
    begun = saved = time.monotonic()
    with measurement:
        for at, batch in samples.batches(batch_size, progress.at):
            if batch is not None:
                measurement.add(batch)
            progress.at = at
            now = time.monotonic()
            if seconds is not None and now - begun >= seconds:
                break
            if now - saved >= _SAVED_EVERY:
                progress.save(measurement)
                saved = now
    if not measurement.count and progress.found is None:
        raise ForgetlessError("none of the samples could be read.")


def _hash(network: nn.Module) -> str:
    """A short hash of all weights and buffers."""
    from forgetless.model.parameters import fingerprints

    return hashlib.sha256(repr(fingerprints(network.state_dict())).encode()).hexdigest()[:16]


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

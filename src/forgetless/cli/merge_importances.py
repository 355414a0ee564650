"""`forgetless merge-importances`: importances of the same network, measured one after the other, as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgetless.cli.parts.output import AsJson, print_json
from forgetless.errors import ForgetlessError


def merge_importances(
    importances: Annotated[
        list[Path], typer.Argument(help="Files of `forgetless measure`, the oldest first.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The .safetensors file to save the result in.", show_default=False)],
    decay: Annotated[
        float, typer.Option(help="How much a file counts beside the next: 0.9 forgets what is old, 1 does not.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Merge importances that were measured on different samples of the same network into one.

    ```
    forgetless merge-importances january february --out both
    forgetless merge-importances old new --out omega --decay 0.9
    ```

    With K files, file k counts DECAY^(K−k) times: Ω = Σ_k DECAY^(K−k) sums_k / Σ_k DECAY^(K−k) count_k.
    """
    import forgetless
    from forgetless.model.parameters import listing

    if out.exists():
        raise ForgetlessError(f"{out} exists already; choose another --out.")
    twice = [str(path) for number, path in enumerate(importances) if path in importances[:number]]
    if twice:
        raise ForgetlessError(f"{listing(twice)} would count twice; name each file once.")
    if not 0 < decay <= 1:
        raise ForgetlessError(f"--decay must be above 0 and at most 1, not {decay:g}.")
    whole: forgetless.Importance | None = None
    for path in importances:
        found = forgetless.Importance.load(path)
        try:
            whole = found if whole is None else whole.faded(decay).merge(found)
        except ForgetlessError as error:
            raise ForgetlessError(f"{path} cannot be merged: {error}") from error
    assert whole is not None
    whole.save(out)
    facts = {"out": str(out), "files": len(importances), "samples": whole.count, "estimator": whole.estimator}
    if as_json:
        print_json(facts)
    else:
        typer.echo(f"{len(importances)} files, {whole.count:g} samples by weight\nimportance: {out}")

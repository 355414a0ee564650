"""`forgetless repair BASE TUNED`: a fine-tuned checkpoint wins back what its base could do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from forgetless.cli.parts.output import AsJson, print_json
from forgetless.cli.parts.tensors import written as tensors_written
from forgetless.errors import ForgetlessError

_SHOWN = 12  # weights in the table
_USED = {"dg-hard": "scale", "importance-dg-hard": "scale", "wise-ft": "alpha", "importance": "strength"}


def repair(
    base: Annotated[
        Path, typer.Argument(help="The model before fine-tuning: a folder, or its .safetensors.", show_default=False)
    ],
    tuned: Annotated[
        Path, typer.Argument(help="The model after it, or the folder of its LoRA adapter.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write the repaired model to.", show_default=False)],
    method: Annotated[
        str, typer.Option(help="dg-hard, wise-ft, importance or importance-dg-hard; see docs/repair.md.")
    ] = "dg-hard",
    importance: Annotated[
        Path | None, typer.Option(help="What `forgetless measure` found of the base, for the methods that use it.")
    ] = None,
    scale: Annotated[float, typer.Option(help="dg-hard: how much of the threshold; less keeps more.")] = 1.0,
    alpha: Annotated[float, typer.Option(help="wise-ft: 0 gives the base, 1 the tuned model.")] = 0.5,
    strength: Annotated[float, typer.Option(help="importance: 0 gives the tuned model, more the base.")] = 0.1,
    device: Annotated[str, typer.Option(help="Where it is computed, such as cuda.")] = "cpu",
    page: Annotated[Path | None, typer.Option(help="An HTML file that shows what was kept of each weight.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a repair that was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Win back what fine-tuning has damaged, without data and without training.

    ```
    forgetless repair SmolLM2-135M my-finetuned --out my-repaired
    forgetless repair base/ tuned/ --out repaired --method wise-ft --alpha 0.7
    ```

    The result loads as TUNED does, and has its configuration and tokenizer. Nothing but safetensors is read. OUT
    appears when all is written; until then OUT.partial is kept for --resume.
    """
    from forgetless import edit, files
    from forgetless.edit.repair import REPORT
    from forgetless.measure.importance import Importance

    numbers = {"scale": scale, "alpha": alpha, "strength": strength}
    if (used := _USED.get(method)) is not None:
        given = [f"--{name}" for name, each in numbers.items() if name != used and each != getattr(edit.Settings, name)]
        given += ["--importance"] if importance is not None and not method.startswith("importance") else []
        if given:
            raise ForgetlessError(
                f"{method} does not use {', '.join(given)}; leave that out, or choose another --method."
            )
    settings = edit.Settings(scale=scale, alpha=alpha, strength=strength, device=device)
    omega = None if importance is None else Importance.load(importance, mmap=True)
    if page is not None and page.exists():
        raise ForgetlessError(f"{page} exists already; choose another --page.")
    with tensors_written() as progress:
        facts = edit.repair(
            base, tuned, out, method, importance=omega, settings=settings, resume=resume, progress=progress
        )
    written = len(files.Foreign(out).names)
    notes = files.read_json(out / REPORT).get("notes", [])
    if page is not None:
        from forgetless.lab.report import repair_page

        command = ["forgetless", "repair", str(base), str(tuned), "--out", str(out), "--method", method]
        command += [f"--{_USED[method]}", f"{numbers[_USED[method]]:g}"]
        command += ["--importance", str(importance)] if importance is not None else []
        repair_page(facts, written, method, shlex.join(command), page, notes)
    if as_json:
        print_json({"out": str(out), "method": method, "written": written, "notes": notes, "weights": facts})
    else:
        _show(facts, written, out)


def _show(facts: Mapping[str, Mapping[str, Any]], written: int, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if facts:
        shown = Table("weight", "shape", "noise σ̂", "rounding", "kept", "energy kept", box=None, pad_edge=False)
        for name, each in sorted(facts.items(), key=lambda item: item[1]["energy"])[:_SHOWN]:
            shape = " × ".join(map(str, each["shape"]))
            kept = f"{each['kept']} of {each['total']}"
            noise = (f"{each['sigma']:.2g}", f"{each['rounding']:.2g}")
            shown.add_row(Text(name), shape, *noise, kept, f"{100 * each['energy']:.1f} %")
        Console().print(shown)
        if len(facts) > _SHOWN:
            typer.echo(f"and {len(facts) - _SHOWN} more weights, of which more energy was kept")
        kept, total = (sum(each[key] for each in facts.values()) for key in ("kept", "total"))
        typer.echo(f"\n{kept} of {total} singular values kept in {len(facts)} of {written} tensors")
    else:
        typer.echo(f"{written} tensors written")
    typer.echo(f"repaired: {out}")

"""`forgetless merge A B …`: several models of one architecture as one, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetless.cli.parts.output import AsJson, print_json
from forgetless.cli.parts.tensors import written
from forgetless.errors import ForgetlessError, quoted

if TYPE_CHECKING:
    from forgetless.edit.combination import Told
    from forgetless.edit.merge_recipe import Recipe

_RECIPES = (".yaml", ".yml")


def merge(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Folders of models as the Hub lays them out, or their safetensors files; with --base also LoRA "
            "adapters of it; or one recipe.yaml in mergekit's form.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="The model that all were trained from.", show_default=False)] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="mean, task-arithmetic, wise-ft, ties, dare-linear, dare-ties, fisher or mas. [default: mean]",
            show_default=False,
        ),
    ] = None,
    importance: Annotated[
        list[Path] | None,
        typer.Option(help="A file of `forgetless measure`, one a model and in their order.", show_default=False),
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="One a model, in their order. [default: 1 each]", show_default=False)
    ] = None,
    density: Annotated[
        list[float] | None,
        typer.Option(
            help="The share of each task vector that is kept: one for all, or one a model. [default: 0.2 for ties, 0.5 "
            "for dare]",
            show_default=False,
        ),
    ] = None,
    lambda_: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            help="What the merged task vector is multiplied by. [default: 1 for ties, else 0.4]",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Of wise-ft: from the base (0) to the model (1). [default: 0.5]", show_default=False),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--sum",
            help="Divide by the sum of the weights, or do not. [default: divide for mean and ties]",
            show_default=False,
        ),
    ] = None,
    majority: Annotated[
        str | None,
        typer.Option(help="How ties and dare-ties elect a sign: sum or count. [default: sum]", show_default=False),
    ] = None,
    rescale: Annotated[
        str | None,
        typer.Option(
            help="What dare multiplies the rest by: density (1/density), l1 (to the same l1 norm) or none. [default: "
            "density]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides what dare drops. [default: 0]", show_default=False)] = None,
    scale_importance: Annotated[
        str | None,
        typer.Option(
            help="Divide each importance by its mean, or take it as measured (none). [default: mean]",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16 or float64. [default: as in the base, or the first model]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue where it was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Merge models of one architecture into one.

    ```
    forgetless merge model-a/ model-b/ --out merged
    forgetless merge code/ chat/ --base base/ --method ties --out merged
    ```

    Computes in float32, one tensor in memory at a time. OUT has the layout, configuration and tokenizer of the base, or
    of the first model where there is none, and OUT/forgetless_merge.json says how it was made.
    """
    from forgetless.edit.merge import merge as merged
    from forgetless.edit.merge_recipe import DTYPES, Recipe, read_recipe

    settings = {
        "density": None if density is None else density[0] if len(density) == 1 else density,
        "scale": lambda_,
        "alpha": alpha,
        "normalize": normalize,
        "majority": majority,
        "rescale": rescale,
        "seed": seed,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if any(each.endswith(_RECIPES) for each in models):
        others: dict[str, Any] = {"base": base, "method": method, "weight": weight, "dtype": dtype}
        others |= {"importance": importance, "scale-importance": scale_importance}
        others |= {"lambda": settings.pop("scale"), **settings}
        _refuse_beside(models, [name for name, value in others.items() if value is not None])
        asked = read_recipe(models[0])
    else:
        if dtype is not None and dtype not in DTYPES:
            raise ForgetlessError(f"--dtype is {', '.join(DTYPES)}, not {quoted(dtype)}.")
        wide = None if dtype is None else DTYPES[dtype]
        asked = Recipe(tuple(models), base, method or "mean", tuple(weight or ()), given, wide)
    with written() as progress:
        told = merged(
            asked.models,
            out,
            base=asked.base,
            method=asked.method,
            weights=asked.weights or None,
            importances=importance or None,
            scale_importance=scale_importance or "mean",
            dtype=asked.dtype,
            resume=resume,
            progress=progress,
            **asked.settings,
        )
    _show(told, asked, out, as_json)


def _refuse_beside(models: Sequence[str], given: Sequence[str]) -> None:
    """Refuse what a recipe cannot have beside it: more models, and options that it holds itself."""
    if len(models) > 1:
        raise ForgetlessError("a recipe names its models itself; give it alone.")
    if given:
        raise ForgetlessError(f"a recipe says itself how to merge; leave out --{', --'.join(given)}.")


def _show(told: Told, asked: Recipe, out: Path, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "out": str(out),
        "method": asked.method,
        "models": list(asked.models),
        "base": asked.base,
        "tensors": told.tensors,
        "by_method": told.by_method,
        "averaged": list(told.averaged),
        "copied": told.copied,
    }
    if as_json:
        print_json(facts)
        return
    from forgetless.model.parameters import listing

    with_base = "" if asked.base is None else " and their base"
    typer.echo(f"{len(asked.models)} models{with_base} by {asked.method}: {told.by_method} of {told.tensors} tensors")
    if told.averaged:
        typer.echo(f"without importance, so the weighted mean: {len(told.averaged)} ({listing(told.averaged)})")
    if told.copied:
        typer.echo(f"integers, equal in all models: {told.copied}")
    typer.echo(f"merged: {out}")

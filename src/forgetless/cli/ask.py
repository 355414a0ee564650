"""`forgetless ask RUN`: the facts of a picture, or the pictures of a fact, from a trained run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from forgetless.errors import ForgetlessError


def ask(
    run: Annotated[Path, typer.Argument(help="The run directory of `forgetless run facts`.", show_default=False)],
    image: Annotated[Path | None, typer.Option(help="A picture, whose facts are wanted.", show_default=False)] = None,
    fact: Annotated[
        str | None,
        typer.Option(
            help='A fact, whose pictures are wanted: "woman,row,boat"; parts may be empty.', show_default=False
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Whose network. [default: mas, or the first there is]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of which run. [default: the first]")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many answers.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Ask a trained run which facts a picture shows, or which test pictures show a fact."""
    from forgetless.lab.datasets.reading.fact import shown
    from forgetless.lab.facts.answers import Answers

    if (image is None) == (fact is None):
        raise ForgetlessError("ask takes either --image FILE or --fact subject,predicate,object.")
    answers = Answers(run, method, seed)
    found = answers.facts_of(image, top) if image is not None else answers.pictures_of(str(fact), top)
    if as_json:
        told = {"method": answers.method, "seed": answers.seed, "answers": [dataclasses.asdict(each) for each in found]}
        typer.echo(json.dumps(told, indent=2))
        return
    for each in found:
        labeled = "" if image is not None else f"   ({shown(each.fact)})"
        typer.echo(f"{each.similarity:6.3f}  {shown(each.name) if image is not None else each.name}{labeled}")
    typer.echo(f"similarity: the mean cosine over the parts, by {answers.method}, seed {answers.seed}")

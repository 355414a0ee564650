"""`forgetless ask RUN`: the facts of a picture, or the pictures of a fact, from a trained run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forgetless.cli.parts.output import AsJson, print_json
from forgetless.errors import ForgetlessError

if TYPE_CHECKING:
    from forgetless.lab.facts.answers import Answers


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
    as_json: AsJson = False,
) -> None:
    """Ask a trained run which facts a picture shows, or which test pictures show a fact.

    ```
    forgetless ask runs/facts --image photo.jpg
    forgetless ask runs/facts --fact "woman,row,boat" --top 10
    ```

    Without --image and --fact, questions are read from the standard input, one a line: a picture's file, or a fact. The
    first picture waits for PyTorch and the network to be loaded; those after it are answered at once.
    """
    from forgetless.lab.facts.answers import Answers

    if image is not None and fact is not None:
        raise ForgetlessError("ask takes either --image FILE or --fact subject,predicate,object.")
    answers = Answers(run, method, seed)
    if image is not None or fact is not None:
        _answer(answers, image, str(fact), top, as_json)
        return
    for line in typer.get_text_stream("stdin"):
        if question := line.strip():
            try:
                _answer(answers, Path(question) if Path(question).is_file() else None, question, top, as_json)
            except ForgetlessError as error:  # a question that cannot be answered does not end the others
                typer.echo(f"forgetless: {error}", err=True)


def _answer(answers: Answers, image: Path | None, fact: str, top: int, as_json: bool) -> None:
    from forgetless.lab.datasets.reading.fact import shown

    found = answers.facts_of(image, top) if image is not None else answers.pictures_of(fact, top)
    if as_json:
        told = {"method": answers.method, "seed": answers.seed, "answers": [dataclasses.asdict(each) for each in found]}
        print_json(told)
        return
    for each in found:
        labeled = "" if image is not None else f"   ({shown(each.fact)})"
        typer.echo(f"{each.similarity:6.3f}  {shown(each.name) if image is not None else each.name}{labeled}")
    typer.echo(f"similarity: the mean cosine over the parts, by {answers.method}, seed {answers.seed}")

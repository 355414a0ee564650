"""`forgetless write RUN`: text from a trained language model, as it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgetless.cli.parts.output import AsJson, print_json


def write(
    run: Annotated[Path, typer.Argument(help="The run directory of `forgetless run long-text`.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="What the text begins with.", show_default=False)],
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write.")] = 500,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token; 1 draws as it learned.")] = 0.8,
    method: Annotated[
        str | None, typer.Option(help="Which variant. [default: conv+attention, or the first there is]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of which run. [default: the first]")] = None,
    draw: Annotated[int, typer.Option(help="The seed of what is drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt with a trained language model, one token after the other.

    ```
    forgetless write runs/long-text --prompt "Once upon a time"
    forgetless write runs/long-text --prompt "The" --temperature 0
    ```

    The memory goes on from token to token: a text of any length takes no more memory than a short one.
    """
    from forgetless.lab.long_text.kept import read_network
    from forgetless.lab.long_text.writing import stream

    model, vocabulary = read_network(run, method, seed)
    pieces = stream(model, vocabulary, prompt, tokens, temperature=temperature, seed=draw)
    if as_json:
        print_json({"prompt": prompt, "text": "".join(pieces)})
        return
    first = next(pieces, "")  # refuse before anything is printed
    typer.echo(prompt + first, nl=False)
    for piece in pieces:
        typer.echo(piece, nl=False)
    typer.echo()

"""`forgetless learn MODEL`: something new for a model, without losing what it does, in one command."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from forgetless.cli.parts.models import Model, Weights, load_model
from forgetless.cli.parts.output import AsJson, Log, print_json
from forgetless.cli.parts.samples import MaxLength, Size, TextField
from forgetless.errors import ForgetlessError


def learn(
    model: Model,
    new: Annotated[
        Path,
        typer.Option(
            help="What to learn. Pictures: a folder per class, a dataset with train and test, or .parquet. Texts with "
            "labels: .csv, .jsonl or .parquet. Texts for a language model: .txt (a paragraph is a text), .jsonl, .csv "
            "or .parquet, with chats as a list of messages.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist.", show_default=False)],
    like_old: Annotated[
        Path | None,
        typer.Option(help="Samples like those of what the model must keep; labels are not needed.", show_default=False),
    ] = None,
    importance: Annotated[
        Path | None, typer.Option(help="A file of `forgetless measure`, in place of measuring.", show_default=False)
    ] = None,
    weights: Weights = None,
    method: Annotated[
        str,
        typer.Option(
            help="mas protects by importance; distillation shows old samples in every step and keeps the answers to "
            "them; l2sp holds all weights alike; finetune protects nothing."
        ),
    ] = "mas",
    strength: Annotated[
        str, typer.Option(help="λ, or auto: most of the movement is held back; of distillation, 1.")
    ] = "auto",
    hold: Annotated[
        float | None,
        typer.Option(help="The share of the movement to hold back, in place of half; of mas and l2sp."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the new data. [default: 5; of a language model, 1]")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="The learning rate at the start; it falls to 0. [default: 1e-4 below 30 million parameters, 5e-5 "
            "below 300 million, 2e-5 above; with --lora, 2e-4]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples in a step. [default: 32; of a language model, 8]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the order, dropout and what is held out.")] = 0,
    lora: Annotated[
        bool,
        typer.Option(
            "--lora", help="Let adapters of rank 16 learn in place of a language model's weights, then merge."
        ),
    ] = False,
    old_samples: Annotated[int, typer.Option(min=1, help="The most old samples to measure on, or to show.")] = 1000,
    size: Size = None,
    text_field: TextField = None,
    label_field: Annotated[str, typer.Option(help="The field with the label.")] = "label",
    max_length: MaxLength = 512,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Fine-tune without protection as well, and show both.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the time and the memory that it would take; write nothing.")
    ] = False,
    log: Log = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue where it was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Teach a model something new without losing what it does.

    ```
    forgetless learn hf:MODEL --new mine.txt --like-old old.txt --out taught
    forgetless learn timm:NET --new new/ --like-old old/ --out taught --compare
    ```

    Measures on the old data how much every parameter matters, protects what matters while the new data are learned, and
    saves the model in its own format. With --method distillation nothing is measured: old samples are shown in every
    step, and the answers to them are kept. A fifth of the old and of the new data, at most about 1,000, is held out to
    judge by. OUT/learned.json holds everything that was found.
    """
    from forgetless.cli.parts import learning
    from forgetless.lab.finetuning import teach
    from forgetless.lab.finetuning.request import Request

    load = functools.partial(load_model, model, weights, labels=True)
    request = Request(
        new=new,
        like_old=like_old,
        importance=importance,
        out=out,
        method=method,
        strength=_strength(strength),
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        seed=seed,
        lora=lora,
        compare=compare,
        resume=resume,
        old_samples=old_samples,
        size=size,
        text_field=text_field,
        label_field=label_field,
        max_length=max_length,
        skip_bad=skip_bad,
        log=log or (),
        hold=hold,
    )
    try:
        with learning.told() as tell:
            found = (teach.dry_run if dry_run else teach.teach)(load, request, tell)
    except KeyboardInterrupt as interrupt:
        if (out / "asked.json").exists():
            typer.echo("forgetless: stopped; what was done is kept for --resume.", err=True)
        raise typer.Exit(130) from interrupt
    if as_json:
        print_json(found)
    elif dry_run:
        learning.show_estimate(found)
    else:
        learning.show(found, str(out))


def _strength(given: str) -> float | str:
    try:
        return float(given)
    except ValueError as error:
        if given != "auto":
            raise ForgetlessError(f"--strength must be auto or a number of 0 or more, not {given}.") from error
        return given

"""`--data` and how it is read, the same for every command: pictures, texts, or the tensors of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetless.cli.parts.models import named_function
from forgetless.errors import ForgetlessError, brief

if TYPE_CHECKING:
    from torch import Tensor

    from forgetless.lab.datasets.reading.unlabeled import Unlabeled
    from forgetless.lab.finetuning.loaded import Loaded

Output = Annotated[
    str | None, typer.Option(help="Which of its outputs to measure, by name. [default: the logits, or the only one]")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Parameters to leave out: a name, a module or a pattern; repeat it.")
]
Size = Annotated[
    int | None, typer.Option(min=1, help="Pixels per side of pictures. [default: the model's own, or 224]")
]
TextField = Annotated[
    str | None,
    typer.Option(help="The field with the text, or with a list of chat messages. [default: text, else messages]"),
]
MaxLength = Annotated[int, typer.Option(min=2, help="The most tokens of a text.")]
#: What `--data` takes.
SAMPLES = (
    "a folder of pictures (of an image dataset, its training pictures), a .parquet file with pictures, a .npy file, or "
    "a .safetensors file with one tensor or with the model's keywords; for an hf: model of texts a .txt (a paragraph "
    "is a text), .jsonl, .csv or .parquet file; for another, a .jsonl file with text or input_ids"
)


def samples_of(
    loaded: Loaded,
    path: Path,
    *,
    size: int | None = None,
    text: str | None = None,
    length: int = 512,
    encode: str | None = None,
    skip_bad: bool = False,
) -> Unlabeled:
    """Pictures, texts, or the tensors of a file: one is the inputs, several are the model's keywords.

    Args:
        loaded: the model.
        path: `--data`.
        size: pixels per side of pictures; the model's own by default.
        text: the field with the text.
        length: the most tokens of a text.
        encode: the function that makes a batch of texts, for a model without a tokenizer.
        skip_bad: leave out pictures that cannot be read.

    Raises:
        ForgetlessError: it is none of these, damaged, or holds tensors of unequal length.
    """
    from forgetless.lab.datasets.reading import unlabeled

    if loaded.tokenizer is not None and encode is not None:
        raise ForgetlessError(f"{loaded.name} has a tokenizer; leave out --encode.")
    if loaded.tokenizer is not None and path.suffix not in (".npy", ".safetensors"):
        return _texts(loaded, path, text, length)
    if path.is_dir() or path.suffix in (".parquet", ".jsonl"):
        function = None if encode is None else _function(encode)
        return unlabeled.read(path, size or loaded.size, encode=function, skip_bad=skip_bad)
    return _from_tensors(path)


def _texts(loaded: Loaded, path: Path, text: str | None, length: int) -> Unlabeled:
    """The texts of a file as token numbers, those of similar length near each other."""
    from forgetless.lab.datasets.reading import documents, unlabeled
    from forgetless.lab.finetuning import encoding
    from forgetless.lab.finetuning.loaded import Kind

    found = documents.read(path, text)
    split = loaded.kind is Kind.CAUSAL_LM
    rows = encoding.encode(loaded.tokenizer, found.documents, loaded.longest(length), split=split)
    if not rows:
        raise ForgetlessError(f"{path} holds no text of two tokens or more.")
    order = encoding.by_length(rows)

    def batch(numbers: Sequence[int]) -> Any:
        return encoding.padded(loaded.tokenizer, [rows[order[n]] for n in numbers])

    return unlabeled.Unlabeled(len(rows), unlabeled.hashed(map(repr, rows)), batch)


def _from_tensors(path: Path) -> Unlabeled:
    from forgetless.lab.datasets.reading import unlabeled
    from forgetless.model.parameters import fingerprint

    tensors = _tensors(path)
    sizes = {len(each) if each.dim() else 0 for each in tensors.values()}
    if len(sizes) != 1:
        raise ForgetlessError(f"the tensors of {path} need a row for each sample, not {sorted(sizes)} rows.")

    def batch(numbers: Sequence[int]) -> Any:
        chosen = {name: each[list(numbers)] for name, each in tensors.items()}
        return next(iter(chosen.values())) if len(chosen) == 1 else chosen

    listing = ", ".join(f"{name} {list(each.shape)} {fingerprint(each)}" for name, each in sorted(tensors.items()))
    return unlabeled.Unlabeled(sizes.pop(), listing, batch)


def _tensors(path: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from forgetless import files

    with files.opened(path) as file:  # a regular file, which no reader waits for
        try:
            if path.suffix == ".npy":
                return {"": torch.from_numpy(np.load(file, allow_pickle=False))}
            return load_file(path)
        except Exception as error:
            raise ForgetlessError(f"{path} is no image dataset, .npy or .safetensors file: {brief(error)}.") from error


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    if not module or not function:
        raise ForgetlessError(f"{name!r} names no function; write package.module:function.")
    return named_function(module, function)


def forward_of(loaded: Loaded, data: Path | None, output: str | None) -> Any:
    """What computes the outputs of a batch, where it is not the model alone.

    Pictures of a file or a folder are scaled as the model takes them; an encoder's texts become embeddings.

    Args:
        loaded: the model.
        data: `--data`.
        output: `--output`.
    """
    from forgetless.lab.finetuning.loaded import Kind

    pictures = data is not None and (data.is_dir() or data.suffix == ".parquet")
    encoded = loaded.kind is Kind.TEXT_ENCODER and output is None
    return loaded.forward if encoded or (pictures and loaded.normalize is not None) else None

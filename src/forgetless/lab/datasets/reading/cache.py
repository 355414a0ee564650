"""Decoded pictures on disk: a file per data set, found again by the content of what it was decoded from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.decoding import WHITE, Color, decode
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.model.parameters import listing

_FORMAT = 2

Decoded = tuple[Tensor, Tensor]


def decoded(
    train: Pictures,
    test: Pictures,
    size: int,
    *,
    name: str,
    cache: Path | None = None,
    skip_bad: bool = False,
    background: Color = WHITE,
    decode: Callable[..., Decoded] = decode,
) -> tuple[Decoded, Decoded]:
    """Decode both parts, or read them back where `cache` holds them.

    The file's name carries a hash of every picture's bytes, of the labels, the size and the version of the decoder, so
    that a picture that changed, even in place, is decoded anew. Files are written whole and verified when read; a
    damaged one is decoded anew, with a warning.

    Args:
        train: the training pictures.
        test: the test pictures.
        size: pixels per side.
        name: what the data set is called; the file is called `name-HASH.safetensors`.
        cache: a folder; None to keep nothing.
        skip_bad: leave out pictures that cannot be read.
        background: what shows behind transparent pixels.
        decode: how to decode a part.

    Raises:
        ForgetlessError: pictures cannot be read, no training picture of a class can, or the cache cannot be written.
    """
    path = None if cache is None else cache / f"{name}-{_key(train, test, size, skip_bad, background)}.safetensors"
    if path is not None and path.is_file():
        try:
            kept = _read(path, train, test, size)
        except ForgetlessError as error:
            warnings.warn(f"decoding {name} again: {error}", stacklevel=2)
        else:
            _refuse_lost(train, kept[0][1], name)
            left_out = sum(
                len(part.labels) - len(labels) for part, (_, labels) in zip((train, test), kept, strict=True)
            )
            if left_out:
                warnings.warn(
                    f"left out {left_out} pictures of {name} that cannot be read; "
                    f"remove {path} to have them named again.",
                    stacklevel=2,
                )
            return kept
    first, second = (decode(part, size, skip_bad=skip_bad, background=background) for part in (train, test))
    _refuse_lost(train, first[1], name)
    if path is not None:
        tensors = {"train": first[0], "train labels": first[1], "test": second[0], "test labels": second[1]}
        files.write_tensors(path, tensors, "pictures", {"set": name, "size": size})
    return first, second


def _read(path: Path, train: Pictures, test: Pictures, size: int) -> tuple[Decoded, Decoded]:
    """What a file of the cache holds, as far as it can be what `decode` gave for these pictures."""
    found, _ = files.read_tensors(path, "pictures", dtypes=(torch.uint8, torch.int64))
    parts = []
    for name, part in (("train", train), ("test", test)):
        inputs, labels = found.get(name), found.get(f"{name} labels")
        if inputs is None or labels is None or inputs.dtype != torch.uint8 or labels.dtype != torch.int64:
            raise ForgetlessError(f"{path} is damaged: it lacks the pictures or the labels of the {name} part.")
        fits = labels.ndim == 1 and 0 < len(labels) <= len(part.labels)
        if not fits or inputs.shape != (len(labels), 3, size, size):
            raise ForgetlessError(f"{path} is damaged: its {name} part has other pictures than were decoded.")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(part.classes):
            raise ForgetlessError(f"{path} is damaged: its {name} part has labels outside the classes.")
        parts.append((inputs, labels))
    return parts[0], parts[1]


def _refuse_lost(train: Pictures, labels: Tensor, name: str) -> None:
    """Refuse to leave out so many pictures that a class has none left to be learned from."""
    lost = sorted(train.classes[label] for label in set(train.labels.tolist()) - set(labels.tolist()))
    if lost:
        raise ForgetlessError(
            f"no training picture of {listing(lost)} in {name} can be read, and leaving them all out would leave out "
            "the class; replace the pictures, or remove the class from the data set."
        )


def _key(train: Pictures, test: Pictures, size: int, skip_bad: bool, background: Color) -> str:
    pillow = importlib.metadata.version("pillow")
    parts = (_FORMAT, pillow, size, skip_bad, background, train.contents(), test.contents())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

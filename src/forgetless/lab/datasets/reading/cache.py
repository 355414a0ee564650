"""Decoded pictures on disk: a file per part of a dataset, found again by the content of what it was decoded from.

What is returned stays in the files, memory-mapped, so that a stream of datasets needs the memory of one part: of the
one that is being decoded.
"""

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

_FORMAT = 3

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
    """Decode both parts, or map them from the files where `cache` holds them.

    A file's name carries a hash of every picture's bytes, of the labels, the size and the version of the decoder, so
    that a picture that changed, even in place, is decoded anew. Files are written whole and verified when read; a
    damaged one is decoded anew, with a warning.

    Args:
        train: the training pictures.
        test: the test pictures.
        size: pixels per side.
        name: what the dataset is called; the files are called `name-PART-HASH.safetensors`.
        cache: a folder; None to keep nothing, and to have the pictures in memory.
        skip_bad: leave out pictures that cannot be read.
        background: what shows behind transparent pixels.
        decode: how to decode a part.

    Returns:
        For each part inputs uint8 `[N, 3, size, size]` and labels int64 `[N]`. With `cache` the inputs are mapped:
        the files may be removed, but not changed in place, as long as the tensors are used.

    Raises:
        ForgetlessError: pictures cannot be read, no training picture of a class can, or the cache cannot be written.
    """

    def part(called: str, pictures: Pictures) -> Decoded:
        path = None
        if cache is not None:
            path = cache / f"{name}-{called}-{_key(pictures, size, skip_bad, background)}.safetensors"
            if path.is_file() and (kept := _kept(path, pictures, size, name)) is not None:
                return kept
        inputs, labels = decode(pictures, size, skip_bad=skip_bad, background=background)
        if called == "train":
            _refuse_lost(pictures, labels, name)
        if path is None:
            return inputs, labels
        tensors = {"inputs": inputs, "labels": labels}
        files.write_tensors(path, tensors, "pictures", {"set": name, "part": called, "size": size})
        return _read(path, pictures, size)

    return part("train", train), part("test", test)


def _kept(path: Path, pictures: Pictures, size: int, name: str) -> Decoded | None:
    """What a file of the cache holds; None, with a warning, where it is damaged."""
    try:
        inputs, labels = _read(path, pictures, size)
    except ForgetlessError as error:
        warnings.warn(f"decoding {name} again: {error}", stacklevel=4)
        return None
    if left_out := len(pictures.labels) - len(labels):
        warnings.warn(
            f"left out {left_out} pictures of {name} that cannot be read; remove {path} to have them named again.",
            stacklevel=4,
        )
    return inputs, labels


def _read(path: Path, pictures: Pictures, size: int) -> Decoded:
    """What a file of the cache holds, its pictures mapped, as far as it can be what `decode` gave for these."""
    found, _ = files.read_tensors(path, "pictures", dtypes=(torch.uint8, torch.int64), mmap=True)
    inputs, labels = found.get("inputs"), found.get("labels")
    if inputs is None or labels is None or inputs.dtype != torch.uint8 or labels.dtype != torch.int64:
        raise ForgetlessError(f"{path} is damaged: it lacks the pictures or the labels.")
    fits = labels.ndim == 1 and 0 < len(labels) <= len(pictures.labels)
    if not fits or inputs.shape != (len(labels), 3, size, size):
        raise ForgetlessError(f"{path} is damaged: it has other pictures than were decoded.")
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(pictures.classes):
        raise ForgetlessError(f"{path} is damaged: it has labels outside the classes.")
    return inputs, labels.clone()  # pickled by itself a mapped tensor is sent with all of its file


def _refuse_lost(train: Pictures, labels: Tensor, name: str) -> None:
    """Refuse to leave out so many pictures that a class has none left to be learned from."""
    lost = sorted(train.classes[label] for label in set(train.labels.tolist()) - set(labels.tolist()))
    if lost:
        raise ForgetlessError(
            f"no training picture of {listing(lost)} in {name} can be read, and leaving them all out would leave out "
            "the class; replace the pictures, or remove the class from the dataset."
        )


def _key(pictures: Pictures, size: int, skip_bad: bool, background: Color) -> str:
    pillow = importlib.metadata.version("pillow")
    parts = (_FORMAT, pillow, size, skip_bad, background, pictures.contents())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

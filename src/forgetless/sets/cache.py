"""Decoded pictures on disk: a file per picture set, found again by the content of what it was decoded from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.sets.pictures import Pictures, decode

_FORMAT = 1

Decoded = tuple[Tensor, Tensor]


def decoded(
    train: Pictures,
    test: Pictures,
    size: int,
    *,
    name: str,
    cache: Path | None = None,
    skip_bad: bool = False,
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
        name: what the set is called; the file is called `name-HASH.safetensors`.
        cache: a folder; None to keep nothing.
        skip_bad: leave out pictures that cannot be read.
        decode: how to decode a part.

    Raises:
        ForgetlessError: pictures cannot be read, or the cache cannot be written.
    """
    path = None if cache is None else cache / f"{name}-{_key(train, test, size, skip_bad)}.safetensors"
    if path is not None and path.is_file():
        try:
            found, _ = files.read_tensors(path, "pictures")
            return (found["train"], found["train labels"]), (found["test"], found["test labels"])
        except (ForgetlessError, KeyError) as error:
            warnings.warn(f"decoding {name} again: {error}", stacklevel=2)
    first, second = (decode(part, size, skip_bad=skip_bad) for part in (train, test))
    if path is not None:
        tensors = {"train": first[0], "train labels": first[1], "test": second[0], "test labels": second[1]}
        try:
            files.write_tensors(path, tensors, "pictures", {"set": name, "size": size})
        except OSError as error:
            raise ForgetlessError(f"{path} cannot be written: {error.strerror}; choose another --cache.") from error
    return first, second


def _key(train: Pictures, test: Pictures, size: int, skip_bad: bool) -> str:
    pillow = importlib.metadata.version("pillow")
    parts = (_FORMAT, pillow, size, skip_bad, train.contents(), test.contents())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

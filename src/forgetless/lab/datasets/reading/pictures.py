"""Pictures before and after decoding: where each comes from, what it is called, its label; squares of one size."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.model.parameters import listing


@dataclass(frozen=True)
class Crop:
    """A part of the picture in the file `path`: the pixels from (left, top) up to (right, bottom)."""

    path: Path
    box: tuple[int, int, int, int]


#: Encoded bytes, a file, a part of a file, or pixels uint8 `[3, H, W]`.
Picture = bytes | Path | Crop | Tensor


@dataclass(frozen=True)
class Pictures:
    """Labeled pictures that are not decoded yet.

    Attributes:
        classes: the names of the classes; label c is `classes[c]`.
        pictures: where each comes from.
        names: what to call each: a file's path inside its set, a row of a table.
        labels: int64 `[N]`.
    """

    classes: tuple[str, ...]
    pictures: Sequence[Picture]
    names: Sequence[str]
    labels: Tensor

    def only(self, chosen: Tensor) -> Pictures:
        """The pictures of the numbers `chosen`."""
        numbers = chosen.tolist()
        pictures, names = [self.pictures[i] for i in numbers], [self.names[i] for i in numbers]
        return Pictures(self.classes, pictures, names, self.labels[chosen])

    def listing(self) -> str:
        """A SHA-256 of what is listed, of the names of the classes and of every picture with its label, in order.

        Pictures that have no file of their own are listed by their content.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for picture, name, label in zip(self.pictures, self.names, self.labels.tolist(), strict=True):
            box = f" {picture.box}" if isinstance(picture, Crop) else ""
            own = name + box if isinstance(picture, (Path, Crop)) else content(picture)
            digest.update(f"\n{label} {own}".encode())
        return digest.hexdigest()

    def contents(self) -> str:
        """A SHA-256 of the classes, the labels and the bytes of every picture."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        with ThreadPoolExecutor() as pool:
            for own, label in zip(pool.map(content, self.pictures), self.labels.tolist(), strict=True):
                digest.update(f"\n{label} {own}".encode())
        return digest.hexdigest()


def content(picture: Picture) -> str:
    """The SHA-256 of a picture's bytes, with the box of a part; a file that cannot be read has that for content."""
    if isinstance(picture, Crop):
        return f"{content(picture.path)} {picture.box}"
    if isinstance(picture, Path):
        try:
            picture = picture.read_bytes()
        except OSError as error:
            return type(error).__name__
    raw = picture if isinstance(picture, bytes) else picture.contiguous().numpy().tobytes()
    return hashlib.sha256(raw).hexdigest()


def stratified(labels: Tensor, limit: int, seed: int) -> Tensor:
    """The numbers, ascending, of `limit` samples: every class in proportion, none without a sample.

    Args:
        labels: int64 `[N]`.
        limit: how many to choose.
        seed: decides which.

    Raises:
        ForgetlessError: `limit` is below the number of classes that occur.
    """
    classes = torch.unique(labels)
    if limit < len(classes):
        raise ForgetlessError(f"a limit of {limit} pictures leaves some of the {len(classes)} classes without one.")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turn = torch.empty(len(labels), dtype=torch.float64)
    for label in classes:
        mine = order[labels[order] == label]
        turn[mine] = torch.arange(len(mine), dtype=torch.float64) / len(mine)
    # Sample k of a class of n is due at k/n; ties go by the random order.
    return order[turn[order].argsort(stable=True)[:limit]].sort().values


def halves(pictures: Pictures, seed: int = 0) -> tuple[Pictures, Pictures]:
    """The pictures in two halves, every class too, up to one picture; the second has one more of an odd number."""
    order = torch.randperm(len(pictures.labels), generator=torch.Generator().manual_seed(seed))
    by_class = order[pictures.labels[order].argsort(stable=True)]
    return pictures.only(by_class[1::2].sort().values), pictures.only(by_class[::2].sort().values)


def decode(pictures: Pictures, size: int, *, skip_bad: bool = False) -> tuple[Tensor, Tensor]:
    """Turn every picture upright, make it RGB, scale its shorter side to `size` pixels, cut the square in its middle.

    Args:
        pictures: what to decode.
        size: pixels per side.
        skip_bad: leave out pictures that cannot be read, with a warning that counts and names them.

    Returns:
        Inputs uint8 `[N, 3, size, size]` and labels int64 `[N]`.

    Raises:
        ForgetlessError: pictures cannot be read (counting and naming them), none is left, or Pillow is not installed.
    """
    # Decoding lets go of Python's lock, so threads do speed it up.
    with ThreadPoolExecutor() as pool:
        tried = list(pool.map(_tried(size), pictures.pictures, pictures.names))
    bad = [why for why in tried if isinstance(why, str)]
    good = [number for number, found in enumerate(tried) if isinstance(found, Tensor)]
    if bad and not skip_bad:
        more = f"{len(bad)} of {len(tried)} pictures cannot be read; a run with --skip-bad leaves them out."
        raise ForgetlessError(f"{bad[0]}. {more if len(bad) > 1 else 'A run with --skip-bad leaves it out.'}")
    if not good:
        raise ForgetlessError(
            f"none of the {len(tried)} pictures can be read; the first: {(bad or ['there is none'])[0]}."
        )
    if bad:
        names = listing(pictures.names[number] for number, found in enumerate(tried) if isinstance(found, str))
        warnings.warn(f"left out {len(bad)} of {len(tried)} pictures that cannot be read: {names}.", stacklevel=2)
    return torch.stack([found for found in tried if isinstance(found, Tensor)]), pictures.labels[torch.tensor(good)]


def _tried(size: int) -> Callable[[Picture, str], Tensor | str]:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ForgetlessError("pictures need Pillow: pip install 'forgetless[vision]'.") from error

    def one(picture: Picture, name: str) -> Tensor | str:
        try:
            return _square(picture, size)
        except Exception as error:
            return f"{name} is no picture that can be read: {_brief(error)}"

    return one


def _square(picture: Picture, size: int) -> Tensor:
    from PIL import Image, ImageOps

    if isinstance(picture, Tensor):
        image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        return _pixels(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))
    path = picture.path if isinstance(picture, Crop) else picture
    with Image.open(io.BytesIO(path) if isinstance(path, bytes) else path) as image:
        if not isinstance(picture, Crop):
            image.draft("RGB", (2 * size, 2 * size))  # lets JPEG skip detail that scaling would drop
        upright = ImageOps.exif_transpose(image).convert("RGB")
        if isinstance(picture, Crop):
            upright = upright.crop(_inside(picture.box, upright.size))
        return _pixels(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))


def _inside(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box as far as it lies inside the picture."""
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], size[0]), min(box[3], size[1])
    if left >= right or top >= bottom:
        raise ValueError(f"the box {box} lies outside its {size[0]} × {size[1]} pixels")
    return left, top, right, bottom


def _pixels(image: object) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

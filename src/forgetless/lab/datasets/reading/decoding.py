"""Encoded pictures → squares of one size, as uint8 RGB; what cannot be decoded right is refused by name."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError, brief
from forgetless.lab.datasets.reading.pictures import MOST_BYTES, Crop, Picture, Pictures
from forgetless.model.parameters import listing

#: The only formats whose decoders are used, whatever a file is called; AVIF where Pillow has it.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 64_000_000
WHITE = (255, 255, 255)

Color = tuple[int, int, int]


class NoneReadable(ForgetlessError):
    """Pictures that cannot be read were to be left out, and then none is left."""


def decode(
    pictures: Pictures, size: int, *, skip_bad: bool = False, background: Color = WHITE
) -> tuple[Tensor, Tensor]:
    """Turn every picture upright, make it RGB, scale its shorter side to `size` pixels, cut the square in its middle.

    Gray of 16 bits is scaled to 8, a palette and CMYK become RGB, and what is transparent shows `background`. Pixels of
    floats or 32-bit integers, whose range no file tells, are refused by name.

    Args:
        pictures: what to decode.
        size: pixels per side.
        skip_bad: leave out pictures that cannot be read, with a warning that counts and names them.
        background: RGB of 0 … 255, behind pictures with transparency.

    Returns:
        Inputs uint8 `[N, 3, size, size]` and labels int64 `[N]`.

    Raises:
        ForgetlessError: pictures cannot be read (counting and naming them), none is left, or Pillow is not installed.
    """
    try:
        inputs = torch.empty(len(pictures.pictures), 3, size, size, dtype=torch.uint8)
    except RuntimeError as error:
        what = f"{len(pictures.pictures)} pictures of {size} × {size} pixels"
        raise ForgetlessError(f"{what} do not fit in the memory; choose a smaller size, or fewer pictures.") from error
    # Decoding lets go of Python's lock, so threads do speed it up. Each picture goes straight to its row.
    with ThreadPoolExecutor() as pool:
        tried = list(pool.map(_into(inputs, background), range(len(inputs)), pictures.pictures, pictures.names))
    bad = [why for why in tried if why is not None]
    good = [number for number, why in enumerate(tried) if why is None]
    if bad and not skip_bad:
        more = f"{len(bad)} of {len(tried)} pictures cannot be read; a run with --skip-bad leaves them out."
        raise ForgetlessError(f"{bad[0]}. {more if len(bad) > 1 else 'A run with --skip-bad leaves it out.'}")
    if not good:
        raise NoneReadable(
            f"none of the {len(tried)} pictures can be read; the first: {(bad or ['there is none'])[0]}."
        )
    if bad:
        names = listing(pictures.names[number] for number, why in enumerate(tried) if why is not None)
        warnings.warn(f"left out {len(bad)} of {len(tried)} pictures that cannot be read: {names}.", stacklevel=2)
        for row, number in enumerate(good):  # in place: a copy of the good ones would need the memory again
            inputs[row] = inputs[number]
    return inputs[: len(good)], pictures.labels[torch.tensor(good)]


def decode_one(picture: Path, size: int, background: Color = WHITE) -> Tensor:
    """One picture as `decode` makes it, uint8 `[3, size, size]`.

    Raises:
        ForgetlessError: it cannot be read, or Pillow is not installed.
    """
    inputs = torch.empty(1, 3, size, size, dtype=torch.uint8)
    if why := _into(inputs, background)(0, picture, str(picture)):
        raise ForgetlessError(f"{why}.")
    return inputs[0]


def _into(inputs: Tensor, background: Color) -> Callable[[int, Picture, str], str | None]:
    """A function that decodes a picture into a row of `inputs`, `[N, 3, size, size]`; gives what is wrong with it."""
    try:
        import PIL.Image
    except ImportError as error:
        raise ForgetlessError("pictures need Pillow: pip install 'forgetless[vision]'.") from error

    def one(row: int, picture: Picture, name: str) -> str | None:
        try:
            inputs[row] = _square(picture, inputs.shape[-1], background)
        except PIL.UnidentifiedImageError:
            return f"{name} is no picture that can be read: {_unread(picture)}"
        except Exception as error:
            return f"{name} is no picture that can be read: {brief(error)}"
        return None

    return one


def _square(picture: Picture, size: int, background: Color) -> Tensor:
    from PIL import Image, ImageOps

    if isinstance(picture, Tensor):
        image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        return _pixels(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))
    path = picture.path if isinstance(picture, Crop) else picture
    encoded = path if isinstance(path, bytes) else files.read_bytes(path, MOST_BYTES)
    with Image.open(io.BytesIO(encoded), formats=_formats()) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} × {image.height} pixels, and {MOST_PIXELS:,} are the most")
        if not isinstance(picture, Crop):
            image.draft("RGB", (2 * size, 2 * size))  # lets JPEG skip detail that scaling would drop
        upright = _rgb(ImageOps.exif_transpose(image), image, background)
        if isinstance(picture, Crop):
            upright = upright.crop(_inside(picture.box, upright.size))
        return _pixels(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))


@functools.cache
def _formats() -> tuple[str, ...]:
    from PIL import features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an older Pillow does not know the word
        return (*FORMATS, "AVIF") if features.check("avif") else FORMATS


def _unread(picture: Picture) -> str:
    """Why no decoder took a picture."""
    path = picture.path if isinstance(picture, Crop) else picture
    if isinstance(path, Path) and path.suffix.lower() in (".avif", ".heic", ".heif", ".jp2", ".jxl"):
        return f"there is no decoder for {path.suffix} here; convert it to PNG or JPEG"
    return f"it is damaged, or none of {', '.join(_formats())}"


def _rgb(image: Any, opened: Any, background: Color) -> Any:
    """A picture of any mode in RGB.

    Args:
        image: the picture, upright.
        opened: the same as it was opened, with what its file says.
        background: what shows behind transparent pixels.
    """
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and opened.format in ("PNG", "PPM")):
        return _gray(image, opened, background)
    if image.mode in ("I", "F"):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise ValueError(f"its pixels are {kind}, whose range is not known; convert it to 8 or 16 bits")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in opened.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (*background, 255)), over).convert("RGB")
    return image.convert("RGB")


def _gray(image: Any, opened: Any, background: Color) -> Any:
    """Gray of 16 bits in RGB; a value v of b bits becomes 255 · v / (2^b − 1), rounded."""
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    tags = getattr(opened, "tag_v2", {})
    bits = int(tags.get(258, (16,))[0]) if opened.format == "TIFF" else 16
    top = (1 << bits) - 1
    if values.min() < 0 or values.max() > top:
        raise ValueError(f"its pixels are not of {bits} bits")
    eight = (255 * values + top // 2) // top
    if opened.format == "TIFF" and tags.get(262) == 0:  # white is zero
        eight = 255 - eight
    colored = np.repeat(eight.astype(np.uint8)[:, :, None], 3, 2)
    clear = opened.info.get("transparency")
    if isinstance(clear, int):
        colored[values == clear] = background
    return Image.fromarray(colored)


def _inside(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box as far as it lies inside the picture."""
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], size[0]), min(box[3], size[1])
    if left >= right or top >= bottom:
        raise ValueError(f"the box {box} lies outside its {size[0]} × {size[1]} pixels")
    return left, top, right, bottom


def _pixels(image: object) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)

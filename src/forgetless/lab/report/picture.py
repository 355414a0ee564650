"""Pictures inside of a page."""

from __future__ import annotations

import base64
import io

from torch import Tensor

_SIDE = 64  # pixels of the longer side, as pages show it
_SMALL = 2048  # bytes


def data_url(pixels: Tensor) -> str:
    """A picture uint8 `[C, H, W]` as a data URL, without loss where that is small; "" without Pillow.

    A larger picture is made as small as pages show it, so that a page of many stays small too.
    """
    try:
        from PIL import Image
    except ImportError:
        return ""
    rows = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    image, written = Image.fromarray(rows.contiguous().numpy()), {}
    image.thumbnail((_SIDE, _SIDE))
    for kind in ("png", "jpeg"):
        content = io.BytesIO()
        image.save(content, kind, optimize=True)
        written[kind] = content.getvalue()
    kind = "png" if len(written["png"]) <= _SMALL else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(written[kind]).decode()}"

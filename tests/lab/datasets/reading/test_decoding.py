"""Pictures of every mode: the right pixels, or refused by name."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading import decoding
from forgetless.lab.datasets.reading.decoding import decode
from forgetless.lab.datasets.reading.pictures import Crop, Pictures
from layouts import picture
from warned import said

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def pictures(folder: Path, count: int = 4) -> Pictures:
    paths = [picture(folder / f"{number}.png", 10 * number) for number in range(count)]
    return Pictures(("a", "b"), paths, [path.name for path in paths], torch.arange(count) % 2)


def one(content: bytes | Path) -> Pictures:
    return Pictures(("a",), [content], ["x"], torch.tensor([0]))


def encoded(image: Any, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes, size: int, **options: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode(one(content), size, **options)[0][0]


def refusal(content: bytes | Path, size: int = 4) -> str:
    with pytest.raises(ForgetlessError) as caught:
        decode(one(content), size)
    return str(caught.value)


def test_a_size_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    sentence = "^4 pictures of 100000000 × 100000000 pixels do not fit in the memory; choose a smaller size, or fewer"
    with pytest.raises(ForgetlessError, match=sentence):
        decode(pictures(tmp_path), 100_000_000)


def test_bad_pictures_are_counted_named_and_left_out_only_on_demand(tmp_path: Path) -> None:
    some = pictures(tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with pytest.raises(ForgetlessError) as caught:
        decode(some, 4)
    said_first = str(caught.value)
    assert said_first.startswith("1.png is no picture that can be read: it is damaged, or none of BMP, GIF, JPEG, PNG")
    assert said_first.endswith(". A run with --skip-bad leaves it out.")
    (tmp_path / "2.png").unlink()
    with pytest.raises(ForgetlessError) as caught:
        decode(some, 4)
    assert str(caught.value).endswith(" 2 of 4 pictures cannot be read; a run with --skip-bad leaves them out.")
    with pytest.warns(UserWarning, match="left out") as warned:
        inputs, labels = decode(some, 4, skip_bad=True)
    assert said(warned) == ["left out 2 of 4 pictures that cannot be read: '1.png', '2.png'."]
    assert inputs[:, 0, 0, 0].tolist() == [0, 30]
    assert labels.tolist() == [0, 1]


def test_none_that_can_be_read(tmp_path: Path) -> None:
    some = pictures(tmp_path, 1)
    (tmp_path / "0.png").unlink()
    with pytest.raises(ForgetlessError, match=r"^none of the 1 pictures can be read; the first: 0\.png is no picture"):
        decode(some, 4, skip_bad=True)


@pytest.mark.parametrize("box", [(12, 0, 20, 5), (5, 5, 5, 9), (-9, 0, 0, 5)])
def test_a_box_outside_its_picture_is_a_bad_picture(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    crop = Crop(picture(tmp_path / "0.png"), box)
    with pytest.raises(ForgetlessError) as caught:
        decode(Pictures(("a",), [crop], ["0.png"], torch.tensor([0])), 4)
    assert f"the box {box} lies outside its 12 × 10 pixels" in str(caught.value)


RAMP = np.linspace(0, 1, 64)[None].repeat(64, 0)


@pytest.mark.parametrize(
    ("values", "kind", "options"),
    [
        ((RAMP * 255).round().astype("uint8"), "png", {}),
        ((RAMP * 65535).round().astype("uint16"), "png", {}),
        ((RAMP * 65535).round().astype("uint16"), "tiff", {}),
        ((RAMP * 65535).round().astype("uint16"), "ppm", {}),
        ((RAMP * 65535).round().astype("uint16").astype(">u2"), "tiff", {}),
        (((1 - RAMP) * 65535).round().astype("uint16"), "tiff", {"tiffinfo": {262: 0}}),
    ],
)
def test_gray_of_8_and_16_bits(values: Any, kind: str, options: dict[str, Any]) -> None:
    found = decoded(encoded(Image.fromarray(values), kind, **options), 64)
    assert (found.double() / 255 - torch.tensor(RAMP)).abs().max() <= 0.5 / 255 + 1e-9
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_gray_of_12_bits() -> None:
    """Pillow reads such TIFFs without scaling; the file says how many bits it has."""
    packed = bytearray()
    for low, high in zip(*[iter(np.linspace(0, 4095, 64).round().astype(int).tolist() * 64)] * 2, strict=True):
        packed += bytes((low >> 4, (low & 15) << 4 | high >> 8, high & 255))
    tags = {256: (4, 64), 257: (4, 64), 258: (3, 12), 259: (3, 1), 262: (3, 1), 273: (4, 8), 277: (3, 1), 278: (4, 64)}
    tags[279] = (4, len(packed))
    entries = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, (kind, value) in sorted(tags.items())
    )
    start = (8 + len(packed)).to_bytes(4, "little")
    content = b"II*\0" + start + bytes(packed) + len(tags).to_bytes(2, "little") + entries + bytes(4)
    assert (decoded(content, 64)[0].double() / 255 - torch.tensor(RAMP)).abs().max() < 0.003


@pytest.mark.parametrize(("mode", "kind"), [("F", "floats"), ("I", "32-bit integers")])
def test_pixels_of_no_known_range_are_refused_by_name(mode: str, kind: str) -> None:
    image = Image.fromarray(RAMP.astype("float32")).convert(mode)
    assert refusal(encoded(image, "tiff")) == (
        f"x is no picture that can be read: its pixels are {kind}, whose range is not known; "
        "convert it to 8 or 16 bits. A run with --skip-bad leaves it out."
    )


def glyph(mode: str) -> Any:
    """A black square on nothing: its color is black everywhere, only alpha tells it from what is around."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:6, 2:6] = 255
    black = np.zeros((8, 8, 3), np.uint8)
    whole = Image.fromarray(np.dstack([black, alpha]))
    if mode == "P":
        palette = Image.fromarray(alpha // 255).convert("P")
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.info["transparency"] = 0
        return palette
    return whole.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("RGBA", "webp")]
)
def test_what_is_transparent_shows_white_or_a_color_given(mode: str, kind: str) -> None:
    content = encoded(glyph(mode), kind, **({"lossless": True} if kind == "webp" else {}))
    for color in ((255, 255, 255), (10, 200, 30)):
        found = decoded(content, 8, background=color) if color[0] == 10 else decoded(content, 8)
        assert found[:, 0, 0].tolist() == list(color)
        assert found[:, 3, 3].tolist() == [0, 0, 0]


def test_half_transparent_and_colors_that_are_named_transparent() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert decoded(encoded(half), 4)[:, 0, 0].tolist() == pytest.approx([255, 127, 127], abs=1)
    named = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3))
    assert decoded(named, 4).unique().tolist() == [255]
    gray = encoded(Image.fromarray(np.full((4, 4), 513, np.uint16)), transparency=513)
    assert decoded(gray, 4, background=(9, 9, 9)).unique().tolist() == [9]


def test_opaque_pictures_are_what_they_were() -> None:
    """A full alpha changes no pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    plain, full = Image.fromarray(pixels), Image.fromarray(np.dstack([pixels, np.full((24, 16), 255, np.uint8)]))
    assert torch.equal(decoded(encoded(plain), 16), decoded(encoded(full), 16))


def test_inks() -> None:
    red = encoded(Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK"), "jpeg", quality=100)
    assert decoded(red, 8).float().mean((1, 2)).tolist() == pytest.approx([255, 0, 0], abs=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_pictures_are_turned_upright(orientation: int, mode: str) -> None:
    upright = np.zeros((8, 8), np.uint8)
    upright[:4, :4], upright[:4, 4:] = 255, 128
    turn = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.transpose(a), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = turn(upright)
    if mode == "I;16":
        image = Image.fromarray(stored.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(np.ascontiguousarray(stored)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decoded(encoded(image, exif=exif), 8)[0].tolist() == upright.tolist()


def test_only_listed_formats_reach_a_decoder(tmp_path: Path) -> None:
    """Whatever a file is called: Pillow has decoders for dozens of formats, some of which start other programs."""
    for kind in ("ico", "eps", "tga", "pcx", "icns", "dds"):
        content = encoded(Image.new("RGB", (16, 16)), kind)
        (tmp_path / "a.png").write_bytes(content)
        for where in (content, tmp_path / "a.png"):
            assert refusal(where).startswith(
                "x is no picture that can be read: it is damaged, or none of BMP, GIF, JPEG"
            )
    (tmp_path / "a.heic").write_bytes(b"....ftypheic")
    assert refusal(tmp_path / "a.heic") == (
        "x is no picture that can be read: there is no decoder for .heic here; convert it to PNG or JPEG. "
        "A run with --skip-bad leaves it out."
    )
    (tmp_path / "a.jfif").write_bytes(encoded(Image.new("RGB", (8, 8), (200, 0, 0)), "jpeg"))
    assert decode(one(tmp_path / "a.jfif"), 4)[0][0, 0, 0, 0] > 190


def test_an_avif_without_its_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_formats", lambda: decoding.FORMATS)
    (tmp_path / "a.avif").write_bytes(bytes(4) + b"ftypavif" + bytes(40))
    assert "there is no decoder for .avif here; convert it to PNG or JPEG" in refusal(tmp_path / "a.avif")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    bomb = encoded(Image.new("1", (8001, 8001)), compress_level=9)
    assert len(bomb) < 20_000
    assert refusal(bomb).startswith(
        "x is no picture that can be read: it has 8001 × 8001 pixels, and 64,000,000 are the most. "
    )


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "it is a pipe or a device, not a regular file" in refusal(tmp_path / "a.png")
    crop = Pictures(("a",), [Crop(tmp_path / "a.png", (0, 0, 1, 1))], ["x"], torch.tensor([0]))
    with pytest.raises(ForgetlessError, match="it is a pipe or a device"):
        decode(crop, 4)
    assert "pipe" not in crop.contents()  # listed without being read

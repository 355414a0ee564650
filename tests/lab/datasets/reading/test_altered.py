"""No altered archive, table, picture or list may cause anything but data or one sentence, nor write elsewhere."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given

from altered import contents, fuzzed, taken_or_told
from forgetless.lab.datasets.reading import folder, tables
from forgetless.lab.datasets.reading.archive import unpack
from forgetless.lab.datasets.reading.decoding import decode
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.lab.experiments.parts import digits
from idx_files import written

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in ("a", "folder/b", "x" * 120, "ä"):
            info = tarfile.TarInfo(name)
            info.size = 700
            file.addfile(info, io.BytesIO(bytes(range(100)) * 7))
    return buffer.getvalue()


def zipped(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name in ("a", "folder/b", "folder/", "ä"):
            file.writestr(name, b"" if name.endswith("/") else bytes(range(100)) * 7)
    return buffer.getvalue()


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = Image.fromarray((torch.arange(16 * 12 * 3) % 251).view(16, 12, 3).to(torch.uint8).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.convert(mode).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def table(**options: Any) -> bytes:
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    found = pyarrow.table({"image": [{"bytes": b"x", "path": "a.png"}] * 4, "label": [0, 1, 0, 1]})
    buffer = io.BytesIO()
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(found.replace_schema_metadata(metadata), buffer, **options)
    return buffer.getvalue()


ARCHIVES = [tar(), gzip.compress(tar()), lzma.compress(tar()), zipped(zipfile.ZIP_DEFLATED), zipped(zipfile.ZIP_STORED)]
ENCODED = [
    *(encoded(kind) for kind in ("png", "jpeg", "bmp", "tiff", "webp", "ppm")),
    *(encoded("png", mode) for mode in ("P", "LA", "RGBA", "L", "1", "I;16")),
    encoded("gif", "P"),
    encoded("tiff", "CMYK", compression="tiff_lzw"),
    encoded("jpeg", "CMYK"),
]


@fuzzed
@given(contents(ARCHIVES))
def test_archives(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("archives")
    (root / "a").write_bytes(content)
    taken_or_told(lambda: unpack(root / "a", root / "in"), root, writes=[root / "in"])
    assert not (root / "in").exists() or not list((root / "in").glob(".*"))
    assert all(path.is_dir() or path.is_file() for path in root.rglob("*"))
    assert not any(path.is_symlink() for path in root.rglob("*"))


@fuzzed
@given(contents(ENCODED))
def test_pictures(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    one = Pictures(("a",), [content], ["x"], torch.tensor([0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about damaged metadata
        taken_or_told(lambda: decode(one, 8), tmp_path_factory.getbasetemp() / "none")


@fuzzed
@given(contents([table(), table(compression="zstd"), table(use_dictionary=False, compression="none")]))
def test_tables(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("tables")
    (root / "t").write_bytes(content)
    taken_or_told(lambda: tables.read(root / "t", root), root)


@fuzzed
@given(contents(ENCODED))
def test_folders(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("folders")
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            (root / split / name / "1.png").write_bytes(content)
            (root / split / name / "2.png").write_bytes(ENCODED[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        taken_or_told(lambda: [decode(part, 8, skip_bad=True) for part in folder.read(root)], root)


@pytest.fixture(scope="module")
def idx(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    found = {zipped: tmp_path_factory.mktemp("idx") for zipped in (False, True)}
    for zipped, place in found.items():
        written(place, zipped=zipped)
    return found


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files(tmp_path_factory: pytest.TempPathFactory, idx: dict[bool, Path], zipped: bool) -> None:
    good = {path.name: path.read_bytes() for path in idx[zipped].iterdir()}

    @fuzzed
    @given(contents(sorted(good.values())))
    def each(content: bytes) -> None:
        root = tmp_path_factory.mktemp("digits")
        for name, whole in good.items():
            (root / name).write_bytes(content if "labels" in name or len(content) > 2000 else whole)
        taken_or_told(lambda: digits.load(root), root)

    each()

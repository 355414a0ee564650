"""The open list of readers: good files of each, and how it reads one that was altered.

To add one, append a line. A reader takes any bytes for what was written, or says one sentence; it writes nowhere else.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save

from altered import Reader, one_file, taken_or_told
from forgetless import files
from forgetless.lab.datasets.reading import folder, tables
from forgetless.lab.datasets.reading.archive import unpack
from forgetless.lab.datasets.reading.decoding import decode, decode_one
from forgetless.lab.experiments.parts import digits
from idx_files import written
from sealed_again import SEALED_AGAIN
from text_readers import TEXTS

VALUE = {"R": [[0.5, None], [0.25, 1.0]], "name": "ä", "deep": {"a": [{"b": [1, 2, 3]}]}, "flag": True}
MEMBER = bytes(range(100)) * 7
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


def _json(path: Path) -> None:
    json.dumps(files.read_json(path), ensure_ascii=False, allow_nan=False).encode("utf-8")


def _sealed(path: Path) -> None:
    assert files.read_sealed(path) == VALUE


def _tensors(path: Path) -> None:
    found, header = files.read_tensors(path, "importance")
    assert header == {"count": 3}
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def _arrays(path: Path) -> None:
    found, header = files.read_arrays(path, "importance")
    assert header == {"count": 3}
    assert {name: array.tolist() for name, array in found.items()} == {n: t.tolist() for n, t in TENSORS.items()}


def tensors() -> bytes:
    sums = {name: files.sha256(tensor) for name, tensor in TENSORS.items()}
    seal = hashlib.sha256(b'{"count": 3}').hexdigest()
    meta = {"kind": "importance", "version": 1, "sha256": sums, "header": {"count": 3}, "header_sha256": seal}
    return save(TENSORS, {"forgetless": json.dumps(meta)})


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in ("a", "folder/b", "x" * 120, "ä"):
            info = tarfile.TarInfo(name)
            info.size = len(MEMBER)
            file.addfile(info, io.BytesIO(MEMBER))
    return buffer.getvalue()


def zipped(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name in ("a", "folder/b", "folder/", "ä"):
            file.writestr(name, b"" if name.endswith("/") else MEMBER)
    return buffer.getvalue()


def archives() -> list[bytes]:
    packed = [gzip.compress(tar()), lzma.compress(tar())]
    return [tar(), *packed, zipped(zipfile.ZIP_DEFLATED), zipped(zipfile.ZIP_STORED)]


def _archive(content: bytes, root: Path) -> None:
    (root / "a").write_bytes(content)
    if (root / "in").exists():
        shutil.rmtree(root / "in")
    taken_or_told(lambda: unpack(root / "a", root / "in"), root, writes=[root / "in"])
    assert not (root / "in").exists() or not list((root / "in").glob(".*"))
    assert all(path.is_dir() or path.is_file() for path in root.rglob("*"))
    assert not any(path.is_symlink() for path in root.rglob("*"))
    if content.startswith((b"\x1f\x8b", b"\xfd7zXZ\0", b"PK")):  # with checksums
        assert all(path.read_bytes() == MEMBER for path in (root / "in").rglob("*") if path.is_file())


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    pixels = Image.fromarray((torch.arange(16 * 12 * 3) % 251).view(16, 12, 3).to(torch.uint8).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.convert(mode).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def pictures() -> list[bytes]:
    return [
        *(encoded(kind) for kind in ("png", "jpeg", "bmp", "tiff", "webp", "ppm")),
        *(encoded("png", mode) for mode in ("P", "LA", "RGBA", "L", "1", "I;16")),
        encoded("gif", "P"),
        encoded("tiff", "CMYK", compression="tiff_lzw"),
        encoded("jpeg", "CMYK"),
    ]


def _decoded(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about damaged metadata
        assert decode_one(path, 8).shape == (3, 8, 8)


def _folder(content: bytes, root: Path) -> None:
    for split, name, other in (("train", "a", "b"), ("test", "b", "a")):
        if not (root / split).exists():
            (root / split / name).mkdir(parents=True)
            (root / split / other).mkdir()
            (root / split / other / "1.png").write_bytes(encoded("bmp"))
        (root / split / name / "1.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        taken_or_told(lambda: [decode(part, 8, skip_bad=True) for part in folder.read(root)], root)


def table(**options: Any) -> bytes:
    import pyarrow
    from pyarrow import parquet

    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    found = pyarrow.table({"image": [{"bytes": b"x", "path": "a.png"}] * 4, "label": [0, 1, 0, 1]})
    buffer = io.BytesIO()
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(found.replace_schema_metadata(metadata), buffer, **options)
    return buffer.getvalue()


def tables_of() -> list[bytes]:
    return [table(), table(compression="zstd"), table(use_dictionary=False, compression="none")]


_IDX: dict[bool, dict[str, bytes]] = {}


def idx(packed: bool) -> dict[str, bytes]:
    """Good idx files by name, plain or gzipped."""
    if packed not in _IDX:
        with TemporaryDirectory() as place:
            written(Path(place), zipped=packed)
            _IDX[packed] = {path.name: path.read_bytes() for path in Path(place).iterdir()}
    return _IDX[packed]


def _idx(packed: bool) -> Reader:
    def read(content: bytes, root: Path) -> None:
        altered = next(name for name in idx(packed) if name.startswith(f"train-{_kind(content)}"))
        for name, whole in idx(packed).items():
            (root / name).write_bytes(content if name == altered else whole)
        taken_or_told(lambda: digits.load(root), root)

    return Reader(lambda: [whole for name, whole in sorted(idx(packed).items()) if name.startswith("train")], read)


def _kind(content: bytes) -> str:
    """What a file stands for, by its size."""
    return "images" if len(content) > 2000 else "labels"


READERS: dict[str, Reader] = {
    "JSON": Reader(
        lambda: [json.dumps(VALUE).encode(), json.dumps(VALUE, indent=2, ensure_ascii=False).encode()],
        one_file(_json),
    ),
    "sealed JSON": Reader(lambda: [json.dumps(files.sealed(VALUE, "f"), indent=1).encode()], one_file(_sealed)),
    "tensors": Reader(lambda: [tensors()], one_file(_tensors)),
    "tensors, as arrays": Reader(lambda: [tensors()], one_file(_arrays)),
    "archives": Reader(archives, _archive),
    "pictures": Reader(pictures, one_file(_decoded)),
    "folders of pictures": Reader(pictures, _folder),
    "Parquet tables": Reader(tables_of, one_file(lambda path: tables.read(path, path.parent))),
    "idx files": _idx(False),
    "gzipped idx files": _idx(True),
    **TEXTS,
    **SEALED_AGAIN,
}

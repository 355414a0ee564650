"""Tensors in safetensors files that others wrote, such as a model's own: mapped where they lie, or read one by one.

They have no checksums; whoever uses them must know what to expect of them.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.files.places import opened
from forgetless.files.strict import parse_json, read_json
from forgetless.files.tensors import FLOATS, Mapped, dtype_called
from forgetless.model.parameters import listing

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"  # as Hugging Face's libraries call them
_POINTER = b"version https://git-lfs"  # what a clone without Git LFS has in a file's place


@dataclass(frozen=True)
class Layout:
    """A tensor that is not read yet.

    Attributes:
        dtype: its type.
        shape: its lengths.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return self.elements * self.dtype.itemsize


class Foreign:
    """The tensors of real numbers of a file, of several that an index lists, or of a folder with one of these.

    Attributes:
        names: tensor → the file that it is in.
    """

    def __init__(self, path: str | Path) -> None:
        """Look at what there is.

        Args:
            path: `model.safetensors`, `model.safetensors.index.json` or their folder.

        Raises:
            ForgetlessError: a file is missing, damaged or in another folder.
        """
        path = Path(path)
        if path.is_dir():
            found = next((path / name for name in (ONE, INDEX) if (path / name).exists()), None)
            if found is None:
                raise ForgetlessError(_nothing_found(path))
            path = found
        self.names = _listed(path) if path.suffix == ".json" else dict.fromkeys(_names(path), path)
        self._places = cache(_places)

    def layout(self) -> dict[str, Layout]:
        """Every tensor's type and shape, by name, as the files' headers have them.

        Raises:
            ForgetlessError: a file is missing or damaged, lacks a tensor, or has one of a type that is not known here.
        """
        for path in dict.fromkeys(self.names.values()):
            unlisted = [name for name in self._places(path) if self.names.get(name) != path]
            if unlisted:
                raise ForgetlessError(
                    f"{path} holds {quoted(unlisted[0])}, which its index does not say; mend the index."
                )
        return {name: self._place(name)[0] for name in self.names}

    def read(self, name: str, at: slice | None = None) -> Tensor:
        """One tensor, read into memory of its own: nothing stays mapped, so that memory holds one tensor at a time.

        Args:
            name: which.
            at: of its elements in their order, those to read, as a flat tensor; None for the whole, in its shape.

        Raises:
            ForgetlessError: the file cannot be read, or was cut since its header was read.
        """
        layout, start = self._place(name)
        first, end = (0, layout.elements) if at is None else (at.start, at.stop)
        held = torch.empty((end - first) * layout.dtype.itemsize, dtype=torch.uint8)
        with opened(self.names[name]) as file:
            file.seek(start + first * layout.dtype.itemsize)
            if file.readinto(held.numpy().data) != len(held):  # type: ignore[attr-defined]
                raise ForgetlessError(f"{self.names[name]} was cut: it ends before the end of {quoted(name)}.")
        found = held.view(layout.dtype)
        return found.view(layout.shape) if at is None else found

    def start(self, name: str, most: int) -> bytes:
        """The first bytes of a tensor, at most so many.

        Raises:
            ForgetlessError: the file cannot be read.
        """
        layout, start = self._place(name)
        with opened(self.names[name]) as file:
            file.seek(start)
            return file.read(min(most, layout.size))

    def _place(self, name: str) -> tuple[Layout, int]:
        path = self.names[name]
        place = self._places(path).get(name)
        if place is None:
            raise ForgetlessError(f"{path} has no tensor {quoted(name)}, which its index says is there.")
        stored, shape, start = place
        dtype = dtype_called(stored)
        if dtype is None:
            raise ForgetlessError(
                f"{quoted(name)} in {path} has the type {quoted(stored)}, which is not known here; convert the model "
                "to float32, bfloat16 or float16 first."
            )
        return Layout(dtype, shape), start

    def mapped(self, names: list[str]) -> tuple[dict[str, Tensor], list[Mapped]]:
        """These tensors, where they lie, and the files to look at before each use.

        Raises:
            ForgetlessError: a file lacks one of them, or it is not of real numbers.
        """
        tensors: dict[str, Tensor] = {}
        files = dict.fromkeys(self.names[name] for name in names)
        watched = [Mapped(path) for path in files]
        for path in files:
            with _open(path) as found:
                there = set(found.keys())
                for name in (each for each in names if self.names[each] == path):
                    if name not in there:
                        raise ForgetlessError(f"{path} has no tensor {quoted(name)}, which its index says is there.")
                    if dtype_called(str(found.get_slice(name).get_dtype())) not in FLOATS:
                        raise ForgetlessError(f"{quoted(name)} in {path} is no tensor of real numbers.")
                    tensors[name] = found.get_tensor(name)
        return tensors, watched


def _open(path: Path) -> safetensors.safe_open:
    with opened(path):  # a regular file that can be read
        pass
    try:
        return safetensors.safe_open(str(path), framework="pt")
    except Exception as error:
        with opened(path) as file:
            pointer = file.read(len(_POINTER)) == _POINTER
        what = (
            "stands for a file that Git LFS has not fetched; run `git lfs pull` in its folder"
            if pointer
            else f"is damaged or no safetensors file: {brief(error)}; download or save it again"
        )
        raise ForgetlessError(f"{path} {what}.") from error


def _names(path: Path) -> list[str]:
    with _open(path) as found:
        return list(found.keys())


def _places(path: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Tensor → its type's name, shape and first byte in the file, from a header that safetensors has found in order."""
    with _open(path), opened(path) as file:
        length = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(length).decode("utf-8"), f"the header of {path}")
    return {
        name: (each["dtype"], tuple(each["shape"]), 8 + length + each["data_offsets"][0])
        for name, each in header.items()
        if name != "__metadata__"
    }


def _listed(path: Path) -> dict[str, Path]:
    """Tensor → file, by an index; its files are beside it, or links there as in the Hub's cache."""
    index = read_json(path)
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise ForgetlessError(f"{path} is no index of safetensors files: it has no weight_map of names.")
    for file in listed.values():
        if file in ("", "..") or file != os.path.basename(file) or not file.isprintable():
            raise ForgetlessError(f"{path} lists {quoted(file)}, which is not the name of a file beside it.")
    files = dict.fromkeys(listed.values())
    if missing := [file for file in files if not os.path.exists(path.parent / file)]:
        raise ForgetlessError(
            f"{path.parent} lacks {listing(missing)}: {len(missing)} of the {len(files)} files that {path.name} lists; "
            "download them into that folder, or the whole model again."
        )
    return {name: path.parent / file for name, file in listed.items()}


def _nothing_found(folder: Path) -> str:
    """What to say of a folder that has neither one file nor an index."""
    said = f"{folder} has neither {ONE} nor {INDEX}; "
    if not (others := sorted(each.name for each in folder.glob("*.safetensors"))):
        return f"{said}name the model's weights."
    if len(others) == 1 and "-of-" not in others[0]:
        return f"{said}if {quoted(others[0])} is all of the model, name that file."
    return f"{said}it holds {listing(others)}, and {INDEX} says which tensor is where: download that too."

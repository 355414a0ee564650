"""Tensors in safetensors files that others wrote, such as a model's own: left in the files and read where they lie.

They have no checksums; whoever uses them must know what to expect of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import safetensors
from torch import Tensor

from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.files.places import opened
from forgetless.files.strict import read_json
from forgetless.files.tensors import FLOATS, Mapped, dtype_called

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"  # as Hugging Face's libraries call them


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
            found = next((path / name for name in (_ONE, _INDEX) if (path / name).exists()), None)
            if found is None:
                raise ForgetlessError(f"{path} has neither {_ONE} nor {_INDEX}; name the model's weights.")
            path = found
        self.names = _listed(path) if path.suffix == ".json" else dict.fromkeys(_names(path), path)

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
        raise ForgetlessError(f"{path} is damaged or no safetensors file: {brief(error)}.") from error


def _names(path: Path) -> list[str]:
    with _open(path) as found:
        return list(found.keys())


def _listed(path: Path) -> dict[str, Path]:
    """Tensor → file, by an index; its files are beside it, or links there as in the Hub's cache."""
    index = read_json(path)
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise ForgetlessError(f"{path} is no index of safetensors files: it has no weight_map of names.")
    for file in listed.values():
        if file in ("", "..") or file != os.path.basename(file) or not file.isprintable():
            raise ForgetlessError(f"{path} lists {quoted(file)}, which is not the name of a file beside it.")
    return {name: path.parent / file for name, file in listed.items()}

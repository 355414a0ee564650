"""What `write_tensors` wrote, as arrays of NumPy: for whoever answers before PyTorch would be loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from forgetless.files import verified

_TYPES = frozenset(verified.NAMES.values()) - {"bfloat16"}  # which NumPy lacks


def read_arrays(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_tensors` wrote, verified as `read_tensors` verifies it.

    Args:
        path: the file.
        kind: what it must be: the word that was written.

    Returns:
        The tensors by name as arrays, in memory, and the header.

    Raises:
        ForgetlessError: as `read_tensors` does; also for bfloat16, which NumPy lacks.
    """
    return verified.read(path, kind, "np", _TYPES, _loaded)


def _loaded(found: Any, _: BinaryIO) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    arrays = {name: np.array(found.get_tensor(name), order="C") for name in found.keys()}  # noqa: SIM118 (no mapping)
    return arrays, {name: _sha256(array) for name, array in arrays.items()}


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()

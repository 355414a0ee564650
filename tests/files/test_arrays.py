"""Arrays against what was written as tensors, and against the reader of tensors where a file is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from forgetless import files
from forgetless.errors import ForgetlessError

TENSORS = {
    "floats": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "one": torch.tensor(3),
    "none": torch.zeros(0, 5, dtype=torch.uint8),
    "flags": torch.tensor([[True], [False]]),
    "complex": torch.tensor([1 + 2j]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    files.write_tensors(tmp_path / "f", TENSORS, "importance", {"count": 3})
    return tmp_path / "f"


def sentence(read: Callable[[], object]) -> str:
    with pytest.raises(ForgetlessError) as caught:
        read()
    return str(caught.value)


def test_what_was_written_as_tensors_is_read_as_arrays(path: Path) -> None:
    found, header = files.read_arrays(path, "importance")
    assert header == {"count": 3}
    assert found.keys() == TENSORS.keys()
    for name, array in found.items():
        expected = TENSORS[name].numpy()
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(array, expected)
        assert array.flags.owndata  # a file that is cut later does no harm


def test_every_damaged_byte_is_told_as_the_reader_of_tensors_tells_it(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        told = [
            sentence(lambda read=read: read(path, "importance")) for read in (files.read_arrays, files.read_tensors)
        ]
        assert told[0].startswith(str(path))
        assert told[0] == told[1]
    path.write_bytes(whole[:-1])
    assert sentence(lambda: files.read_arrays(path, "importance")).startswith(f"{path} is damaged")
    path.unlink()
    assert sentence(lambda: files.read_arrays(path, "importance")).startswith(f"{path} does not exist; ")


def test_another_kind_and_types_that_numpy_lacks(path: Path) -> None:
    assert sentence(lambda: files.read_arrays(path, "anchor")) == f"{path} is no anchor file: it holds 'importance'."
    files.write_tensors(path, {"x": torch.zeros(1, dtype=torch.bfloat16)}, "importance", {})
    assert sentence(lambda: files.read_arrays(path, "importance")).startswith(
        f"{path} cannot be used: 'x' has the type bfloat16, and it may be bool, complex64, float16, "
    )
    sums = {"x": hashlib.sha256(b"\0").hexdigest()}
    seal = hashlib.sha256(b"{}").hexdigest()
    meta = {"kind": "importance", "version": 1, "sha256": sums, "header": {}, "header_sha256": seal}
    save_file({"x": torch.zeros(1).to(torch.float8_e4m3fn)}, str(path), {"forgetless": json.dumps(meta)})
    told = sentence(lambda: files.read_arrays(path, "importance"))
    assert told.startswith(f"{path} cannot be used: 'x' has the type 'F8_E4M3', and it may be ")

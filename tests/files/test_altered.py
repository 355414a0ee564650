"""Files that are whole and strange: what was written is read, or refused in one sentence."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from altered import fuzzed, taken_or_told
from forgetless import files

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn, torch.complex64]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@fuzzed
@given(JSON, st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3), st.text(max_size=5))
def test_well_sealed_files_of_strangers(
    tmp_path_factory: pytest.TempPathFactory, header: Any, dtype: torch.dtype, shape: list[int], name: str
) -> None:
    path = tmp_path_factory.mktemp("sealed") / "f"
    tensors = {name.encode("utf-8", "replace").decode(): torch.zeros(shape).to(dtype)}
    sums = {name: files.sha256(tensor) for name, tensor in tensors.items()}
    text = json.dumps(header)
    meta = {
        "kind": "importance",
        "version": 1,
        "sha256": sums,
        "header_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    save_file(tensors, str(path), metadata={"forgetless": f'{json.dumps(meta)[:-1]}, "header": {text}}}'})
    taken_or_told(lambda: files.read_tensors(path, "importance", dtypes=files.FLOATS), path.parent)


@fuzzed
@given(JSON)
def test_whatever_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "f"

    def both() -> None:
        files.write_json(path, value)
        assert files.read_json(path) == value

    taken_or_told(both, path.parent, writes=[path])

"""No altered file may cause anything but what was written, or one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from altered import contents, fuzzed, taken_or_told
from forgetless import files

VALUE = {"R": [[0.5, None], [0.25, 1.0]], "name": "ä", "deep": {"a": [{"b": [1, 2, 3]}]}, "flag": True}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn, torch.complex64]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


def written(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Path:
    path = tmp_path_factory.mktemp("altered") / "f"
    path.write_bytes(content)
    return path


@fuzzed
@given(contents([json.dumps(VALUE).encode(), json.dumps(VALUE, indent=2, ensure_ascii=False).encode()]))
def test_json(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = written(tmp_path_factory, content)
    taken_or_told(lambda: files.read_json(path), path.parent)


@fuzzed
@given(contents([json.dumps(files.sealed(VALUE, "f"), indent=1).encode()]))
def test_sealed_json_is_what_was_written_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = written(tmp_path_factory, content)

    def read() -> None:
        assert files.read_sealed(path) == VALUE

    taken_or_told(read, path.parent)


def good() -> bytes:
    sums = {name: files.sha256(tensor) for name, tensor in TENSORS.items()}
    seal = hashlib.sha256(b'{"count": 3}').hexdigest()
    meta = {"kind": "importance", "version": 1, "sha256": sums, "header": {"count": 3}, "header_sha256": seal}
    return save(TENSORS, {"forgetless": json.dumps(meta)})


@fuzzed
@given(contents([good()]))
def test_tensors_are_what_was_written_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = written(tmp_path_factory, content)

    def read() -> None:
        found, header = files.read_tensors(path, "importance")
        assert header == {"count": 3}
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)

    taken_or_told(read, path.parent)


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

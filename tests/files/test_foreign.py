"""Tensors in other libraries' safetensors files: found in one file, by an index or in a folder, and never copied."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from safetensors.torch import save, save_file

from altered import contents, fuzzed, taken_or_told
from forgetless import files
from forgetless.errors import ForgetlessError

A, B = torch.arange(6.0).view(2, 3), torch.arange(4.0).bfloat16()


def several(folder: Path) -> Path:
    """Two files and their index, links as in the Hub's cache."""
    (folder / "blobs").mkdir(parents=True)
    (folder / "snapshot").mkdir()
    for name, tensors in (("one", {"a": A}), ("two", {"b": B, "c": torch.ones(1, dtype=torch.int64)})):
        save_file(tensors, folder / "blobs" / name)
        (folder / "snapshot" / f"{name}.safetensors").symlink_to(folder / "blobs" / name)
    names = {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors", "lost": "one.safetensors"}
    index = folder / "snapshot" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": names}))
    return index


def test_one_file_or_its_folder(tmp_path: Path) -> None:
    save_file({"a": A, "b": B}, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        found = files.Foreign(path)
        assert found.names.keys() == {"a", "b"}
        tensors, mapped = found.mapped(["b"])
        assert torch.equal(tensors["b"], B)
        assert tensors.keys() == {"b"}
        assert len(mapped) == 1


def test_several_files_by_their_index_or_folder(tmp_path: Path) -> None:
    index = several(tmp_path)
    for path in (index, index.parent):
        tensors, mapped = files.Foreign(path).mapped(["b", "a"])
        assert torch.equal(tensors["a"], A)
        assert torch.equal(tensors["b"], B)
        assert len(mapped) == 2
        for file in mapped:
            file.check()


def test_a_file_that_is_cut_is_noticed(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "model.safetensors")
    _, (mapped,) = files.Foreign(tmp_path).mapped(["a"])
    os.truncate(tmp_path / "model.safetensors", 20)
    with pytest.raises(ForgetlessError, match="was cut from"):
        mapped.check()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match=r"has neither model\.safetensors nor model\.safetensors\.index\.json"):
        files.Foreign(tmp_path)
    (tmp_path / "pickled").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ForgetlessError, match="is damaged or no safetensors file"):
        files.Foreign(tmp_path / "pickled")
    with pytest.raises(ForgetlessError, match="cannot be read: it does not exist"):
        files.Foreign(tmp_path / "gone")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ForgetlessError, match="Git LFS has not fetched; run `git lfs pull` in its folder"):
        files.Foreign(tmp_path / "pointer")
    found = files.Foreign(several(tmp_path))
    with pytest.raises(ForgetlessError, match=r"one\.safetensors has no tensor 'lost', which its index says"):
        found.mapped(["lost"])
    with pytest.raises(ForgetlessError, match=r"'c' in .* is no tensor of real numbers"):
        found.mapped(["c"])


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    index = several(tmp_path)
    (tmp_path / "blobs" / "two").unlink()
    said = r"snapshot lacks 'two\.safetensors': 1 of the 2 files that model\.safetensors\.index\.json lists; download"
    with pytest.raises(ForgetlessError, match=said):
        files.Foreign(index.parent)
    index.unlink()
    (index.parent / "two.safetensors").unlink()
    with pytest.raises(ForgetlessError, match=r"if 'one\.safetensors' is all of the model, name that file\."):
        files.Foreign(index.parent)
    (index.parent / "one.safetensors").rename(index.parent / "model-00001-of-00002.safetensors")
    said = (
        r"it holds 'model-00001-of-00002\.safetensors', and model\.safetensors\.index\.json says .*: download that too"
    )
    with pytest.raises(ForgetlessError, match=said):
        files.Foreign(index.parent)


@pytest.mark.parametrize("file", ["../one.safetensors", "/etc/passwd", "..", "", "a/b"])
def test_an_index_leads_to_no_other_folder(file: str, tmp_path: Path) -> None:
    index = tmp_path / "x.json"
    index.write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ForgetlessError, match="which is not the name of a file beside it"):
        files.Foreign(index)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": []}'])
def test_an_index_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ForgetlessError, match="is no index of safetensors files"):
        files.Foreign(tmp_path / "x.json")


def _all(path: Path) -> None:
    found = files.Foreign(path)
    found.mapped(list(found.names))


@fuzzed
@given(content=contents([json.dumps({"weight_map": {"a": "one.safetensors"}}).encode()]))
def test_an_altered_index_is_taken_or_told(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("altered")
    (folder / "x.json").write_bytes(content)
    taken_or_told(lambda: _all(folder / "x.json"), folder)


@fuzzed
@given(content=contents([save({"a": A, "b": B})]))
def test_an_altered_file_is_taken_or_told(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("altered")
    (folder / "model.safetensors").write_bytes(content)
    taken_or_told(lambda: _all(folder / "model.safetensors"), folder)

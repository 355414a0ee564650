"""θ* in the model's own files: found under the files' names, and refused unless it is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.model.parameters import fingerprints, named
from forgetless.protect.stored_weights import stored_weights


class Tied(nn.Module):
    """A language model's names: a prefix of the backbone, a head tied to the table."""

    base_model_prefix = "model"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"table": nn.Embedding(5, 3), "layer": nn.Linear(3, 3)})
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.model["table"].weight


def saved(path: Path, names: dict[str, str] | None = None) -> tuple[Tied, dict[str, str], Path]:
    """A model, its fingerprints, and its weights in a file under other `names`."""
    model = Tied()
    tensors = {(names or {}).get(name, name): p.detach().clone() for name, p in named(model).items()}
    save_file(tensors, path / "model.safetensors")
    return model, fingerprints(named(model)), path


@pytest.mark.parametrize(
    "names",
    [
        {},
        {f"model.{name}": name for name in ("table.weight", "layer.weight", "layer.bias")},
        {"model.table.weight": "head.weight"},
    ],
    ids=["the same", "of the backbone", "of the head"],
)
def test_parameters_are_found_under_the_files_names(names, tmp_path):
    model, marks, path = saved(tmp_path, names)
    found, mapped = stored_weights(path, model, list(marks), marks)
    assert all(torch.equal(found[name], parameter) for name, parameter in named(model).items())
    assert len(mapped) == 1
    assert stored_weights(path, model, ["model.layer.bias"], marks)[0].keys() == {"model.layer.bias"}


def test_a_wrapped_model_has_the_same_names(tmp_path):
    model, marks, path = saved(tmp_path)
    wrapped = nn.Module()
    wrapped.module = model
    assert stored_weights(path, wrapped, list(marks), marks)[0].keys() == marks.keys()


def test_several_files(tmp_path):
    model, marks, path = saved(tmp_path)
    (path / "model.safetensors").rename(path / "part")
    index = {"weight_map": dict.fromkeys(marks, "part")}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert stored_weights(path, model, list(marks), marks)[0].keys() == marks.keys()


def test_what_is_not_proven_is_refused(tmp_path):
    model, marks, path = saved(tmp_path)
    with pytest.raises(ForgetlessError, match=r"no fingerprint of 'model\.layer\.weight', so that"):
        stored_weights(path, model, list(marks), {n: m for n, m in marks.items() if n != "model.layer.weight"})
    other = {**marks, "model.layer.bias": "0" * 16}
    with pytest.raises(ForgetlessError, match=r"not those that the importance was measured at: 'model\.layer\.bias'"):
        stored_weights(path, model, list(marks), other)
    model.model["layer"].bias = nn.Parameter(torch.zeros(4))
    with pytest.raises(ForgetlessError, match=r"is of another model: 'model\.layer\.bias' have other shapes there"):
        stored_weights(path, model, list(marks), marks)
    model.model["more"] = nn.Linear(1, 1)
    with pytest.raises(ForgetlessError, match=r"the base model's files have no 'model\.more\.weight'"):
        stored_weights(path, model, [*marks, "model.more.weight"], marks)


def test_weights_elsewhere_are_refused(tmp_path):
    model, marks, path = saved(tmp_path)
    with pytest.raises(ForgetlessError, match=r"for whole weights on the CPU, which .*'model\.layer\.weight'"):
        stored_weights(path, model.to("meta"), list(marks), marks)


@pytest.mark.parametrize("size", ["5GB", "5KB"], ids=["one file", "several"])
def test_what_transformers_saves_is_found(size, tmp_path):
    transformers = pytest.importorskip("transformers")
    from tiny_language import language_model

    language_model(vocabulary=128, tie_word_embeddings=True).bfloat16().save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "5KB")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    marks = fingerprints(named(model))
    found, _ = stored_weights(tmp_path, model, list(marks), marks)
    assert all(torch.equal(found[name].float(), parameter) for name, parameter in named(model).items())
    assert all(tensor.dtype == torch.bfloat16 for tensor in found.values())
    backbone = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
    marks = fingerprints(named(backbone))
    assert stored_weights(tmp_path, backbone, list(marks), marks)[0].keys() == marks.keys()

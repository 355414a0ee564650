"""Adapters as PEFT writes them, against PEFT's own merging."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from forgetless import edit  # noqa: E402
from forgetless.edit.adapter import Adapted  # noqa: E402
from forgetless.edit.checkpoint import Checkpoint  # noqa: E402
from forgetless.edit.noise import threshold_by_median  # noqa: E402
from forgetless.errors import ForgetlessError  # noqa: E402
from tiny_language import wide_language_model  # noqa: E402

TARGETS = ["q_proj", "down_proj"]


def llama(folder: Path, tie: bool = True) -> transformers.LlamaForCausalLM:
    model = wide_language_model(tie=tie)
    model.save_pretrained(folder)
    return model


def adapter(model: transformers.LlamaForCausalLM, folder: Path, **more: object) -> peft.PeftModel:
    config = peft.LoraConfig(r=4, lora_alpha=6, **{"target_modules": TARGETS, **more})  # type: ignore[arg-type]
    wrapped = peft.get_peft_model(model, config)
    for name, each in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(each, std=0.1)
    wrapped.save_pretrained(folder)
    return wrapped


OPTIONS = [
    {},
    {"use_rslora": True},
    {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
    {"target_modules": [*TARGETS, "embed_tokens"]},
    {"modules_to_save": ["up_proj"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: "-".join(each) or "plain")
def test_it_is_read_as_peft_merges_it(options: dict[str, object], tmp_path: Path) -> None:
    model = llama(tmp_path / "base", tie="embed_tokens" not in str(options))
    merged = adapter(model, tmp_path / "lora", **options).merge_and_unload().state_dict()
    found = Adapted(Checkpoint(tmp_path / "base"), tmp_path / "lora")
    assert all(torch.allclose(found.tensor(name), merged[name], atol=1e-6) for name in found.layout)
    assert set(found.ranks.values()) <= {2, 4}


def test_an_adapter_is_repaired_by_its_own_rank(tmp_path: Path) -> None:
    wrapped = adapter(llama(tmp_path / "base"), tmp_path / "lora")
    for weight, each in wrapped.named_parameters():
        if "lora_A" in weight:
            each.data[0] *= 20  # one direction far above the others
    wrapped.save_pretrained(tmp_path / "lora")
    name = "model.layers.0.self_attn.q_proj.weight"
    layer = wrapped.base_model.model.model.layers[0].self_attn.q_proj
    delta = (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).double() * 6 / 4
    left, values, right = torch.linalg.svd(delta)
    values = values[:4]
    facts = edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out", settings=edit.Settings(scale=0.6))
    kept = values > 0.6 * threshold_by_median(1.0) * (values[1] + values[2]) / 2
    assert facts[name]["total"] == 4
    assert facts[name]["kept"] == int(kept.sum())
    assert 0 < facts[name]["kept"] < 4
    repaired = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    base = Checkpoint(tmp_path / "base").tensor(name)
    expected = base + ((left[:, :4][:, kept] * values[kept]) @ right[:4][kept]).float()
    assert torch.allclose(repaired.state_dict()[name], expected, atol=1e-6)


def test_what_is_no_plain_adapter_is_refused(tmp_path: Path) -> None:
    model = llama(tmp_path / "base")
    adapter(model, tmp_path / "lora", use_dora=True)
    with pytest.raises(ForgetlessError, match="a DoRA adapter, whose change is no product"):
        edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    with pytest.raises(ForgetlessError, match=r"lora is an adapter; name the folder of its base model first"):
        edit.repair(tmp_path / "lora", tmp_path / "base", tmp_path / "out")
    with pytest.raises(ForgetlessError, match=r"is the file of an adapter; name its folder, and its base model"):
        edit.repair(tmp_path / "base", tmp_path / "lora" / "adapter_model.safetensors", tmp_path / "out")
    changed = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    for key, value, said in (
        ("peft_type", "IA3", "its type is 'IA3'"),
        ("bias", "all", "trained biases"),
        ("r", 0, "r must be from 1"),
    ):
        text = json.dumps({**changed, "use_dora": False, key: value})
        (tmp_path / "lora" / "adapter_config.json").write_text(text)
        with pytest.raises(ForgetlessError, match=said):
            edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out")


def test_an_adapter_and_a_configuration_that_are_not_of_one_training(tmp_path: Path) -> None:
    adapter(llama(tmp_path / "base"), tmp_path / "lora")
    written = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    for content, said in (
        (
            {**written, "r": 3},
            r"has the rank 4 in '.*', and 3 by its adapter_config\.json; take both from one training",
        ),
        ({**written, "rank_pattern": {"q_proj": 2}}, r"has the rank 4 in '.*q_proj\.weight', and 2 by its"),
        ({**written, "rank_pattern": {"(": 2}}, "has a rank_pattern or alpha_pattern that is no pattern"),
        ([], "is no configuration of an adapter"),
    ):
        (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(content))
        with pytest.raises(ForgetlessError, match=said):
            edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(written))
    save_file({}, tmp_path / "lora" / "adapter_model.safetensors")
    with pytest.raises(ForgetlessError, match="holds no tensors; save it again"):
        edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out")


def test_an_adapter_of_another_base(tmp_path: Path) -> None:
    adapter(llama(tmp_path / "base"), tmp_path / "lora")
    other = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=10))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ForgetlessError, match=r"does not fit .*: the base has no 'model.layers"):
        edit.repair(tmp_path / "other", tmp_path / "lora", tmp_path / "out")


CHANGED = [
    ({"init_lora_weights": "pissa_niter_4"}, "initialized by 'pissa_niter_4', which changes the base"),
    ({"alora_invocation_tokens": [1, 2]}, "acts on part of the text only"),
    ({"layer_replication": [[0, 1], [0, 1]]}, "replicates layers"),
    ({"use_qalora": True}, "QA-LoRA"),
    ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "no layers'"),
    ({"alpha_pattern": {"(": 3}}, "alpha_pattern that is no pattern"),
]


@pytest.mark.parametrize(("changed", "said"), CHANGED, ids=[next(iter(changed)) for changed, _ in CHANGED])
def test_what_is_more_than_b_times_a_is_refused(changed: dict[str, object], said: str, tmp_path: Path) -> None:
    adapter(llama(tmp_path / "base"), tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(ForgetlessError, match=said):
        edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out")


def test_another_adapter_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    adapter(llama(tmp_path / "base"), tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_model.safetensors"

    def mark() -> str:
        return Adapted(Checkpoint(tmp_path / "base"), tmp_path / "lora").mark()

    first, times = mark(), path.stat()
    save_file({name: each + 1 for name, each in load_file(path).items()}, path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert mark() != first


def test_weights_that_may_be_stored_transposed_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=10))
    model.save_pretrained(tmp_path / "base")
    adapter(model, tmp_path / "lora", target_modules=["c_proj"], fan_in_fan_out=True)
    path = tmp_path / "lora" / "adapter_config.json"
    edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out", "wise-ft")
    path.write_text(json.dumps({**json.loads(path.read_text()), "fan_in_fan_out": False}))
    with pytest.raises(ForgetlessError, match="does not say which weights of this gpt2 are stored transposed"):
        edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "other", "wise-ft")


def test_a_whole_module_of_an_adapter_is_looked_at(tmp_path: Path) -> None:
    adapter(llama(tmp_path / "base"), tmp_path / "lora", modules_to_save=["up_proj"])
    path = tmp_path / "lora" / "adapter_model.safetensors"
    held = load_file(path)
    name = next(name for name in held if "up_proj" in name)
    for broken in (torch.full_like(held[name], torch.nan), held[name][:-1].clone()):
        save_file({**held, name: broken}, path)
        with pytest.raises(ForgetlessError, match="has another shape than the base's, or holds NaN or Inf"):
            edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / f"out{broken.shape[0]}", "wise-ft")


def test_where_nothing_is_left_of_an_adapter_a_warning_says_so(tmp_path: Path) -> None:
    adapter(llama(tmp_path / "base"), tmp_path / "lora")
    with pytest.warns(UserWarning, match=r"nothing is left of the adapter in \d+ of 4 weights"):
        edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out")


def test_a_folder_with_an_adapter_and_a_model_says_too_much(tmp_path: Path) -> None:
    model = llama(tmp_path / "base")
    adapter(model, tmp_path / "lora")
    save_file({"w": torch.ones(2)}, tmp_path / "lora" / "model.safetensors")
    with pytest.raises(ForgetlessError, match="holds an adapter and a whole model"):
        edit.repair(tmp_path / "base", tmp_path / "lora", tmp_path / "out")

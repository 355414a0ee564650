"""Models as one: state dicts in memory, and checkpoints on disk that load in transformers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM

import forgetless
from forgetless import Importance, edit
from forgetless.edit.versions import StateDict
from forgetless.errors import ForgetlessError
from forgetless.model.parameters import fingerprints
from tiny_language import language_model, tokenizer

State = dict[str, Tensor]


def state(seed: int, dtype: torch.dtype = torch.float32) -> State:
    draw = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(4, 3, generator=draw).to(dtype),
        "a.bias": torch.randn(4, generator=draw).to(dtype),
        "steps": torch.tensor(7),
    }


def omega(of: State, seed: int, estimator: str = "mas", **more: Any) -> Importance:
    draw = torch.Generator().manual_seed(seed)
    sums = {"a.weight": torch.rand(4, 3, generator=draw) * 10}
    return Importance(sums, 5, estimator, fingerprints({name: of[name] for name in sums}), **more)


def test_a_state_dict_has_names_order_and_dtypes_of_the_base() -> None:
    base = state(0, torch.bfloat16)
    models = [dict(reversed(state(seed, torch.float32).items())) for seed in (1, 2)]
    said = (
        "models[0] and base hold 2 of 2 tensors in different types, such as 'a.weight' as float32 and bfloat16: they "
        "are merged in the widest type (float32 at least) and written in the types of base."
    )
    with pytest.warns(UserWarning, match=re.escape(said)):
        found = edit.merged(models, base=base, method="task-arithmetic", scale=1.0)
    assert [*found] == [*base]
    for name in ("a.weight", "a.bias"):
        start = base[name].float()
        expected = start + sum(model[name] - start for model in models)
        assert torch.equal(found[name], expected.bfloat16())
    assert found["steps"].dtype == torch.int64
    wide = edit.merged(models, dtype=torch.float64)
    assert wide["a.bias"].dtype == torch.float64
    assert edit.merged([state(1), state(2, torch.bfloat16)])["a.bias"].dtype == torch.float32


def test_tied_tensors_stay_tied_and_are_merged_once() -> None:
    def tied(seed: int) -> State:
        found = state(seed)
        return {**found, "head.weight": found["a.weight"]}

    found = edit.merged([tied(1), tied(2)], base=tied(0), method="dare-linear")
    assert found["head.weight"] is found["a.weight"]
    apart = {name: each.clone() for name, each in tied(2).items()}
    found = edit.merged([tied(1), apart], base=tied(0), method="dare-linear")
    assert not torch.equal(found["head.weight"], found["a.weight"])  # masks of their own


def test_a_module_loads_what_was_merged_and_nothing_given_changes() -> None:
    def network(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        found = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
        found(torch.randn(5, 3, 3, 3))  # moves the statistics
        return found

    models = [network(seed).state_dict() for seed in range(3)]
    before = [{name: each.clone() for name, each in one.items()} for one in models]
    found = edit.merged(models)
    torch.testing.assert_close(found["1.running_var"], sum(one["1.running_var"] for one in models) / 3)
    network(0).load_state_dict(found)
    for one, held in zip(models, before, strict=True):
        assert all(torch.equal(one[name], held[name]) for name in held)


def test_importance_decides_and_what_has_none_gets_the_mean() -> None:
    models = [state(1), state(2)]
    importances = [omega(each, seed) for seed, each in enumerate(models)]
    found = edit.merged(models, method="mas", importances=importances, weights=[1, 3], scale_importance="none")
    w = [weight * each.mean()["a.weight"] for weight, each in zip((1, 3), importances, strict=True)]
    expected = (w[0] * models[0]["a.weight"] + w[1] * models[1]["a.weight"]) / (w[0] + w[1])
    torch.testing.assert_close(found["a.weight"], expected)
    torch.testing.assert_close(found["a.bias"], (models[0]["a.bias"] + 3 * models[1]["a.bias"]) / 4)


def test_scaled_by_its_mean_the_size_of_an_importance_does_not_matter() -> None:
    models = [state(1), state(2)]
    own = [omega(each, seed) for seed, each in enumerate(models)]
    large = Importance({name: 1e6 * each for name, each in own[1].sums.items()}, 2)
    plain = edit.merged(models, method="mas", importances=own)
    torch.testing.assert_close(edit.merged(models, method="mas", importances=[own[0], large]), plain)
    raw = edit.merged(models, method="mas", importances=[own[0], large], scale_importance="none")
    torch.testing.assert_close(raw["a.weight"], models[1]["a.weight"], rtol=1e-3, atol=1e-3)


def test_importances_in_another_order_than_the_models_are_refused() -> None:
    models = [state(1), state(2)]
    own = [omega(each, seed) for seed, each in enumerate(models)]
    with pytest.raises(ForgetlessError) as caught:
        edit.merged(models, method="mas", importances=own[::-1])
    assert str(caught.value) == (
        "the importance of models[0] was measured at the weights of models[1]; give the importances in the order of "
        "the models."
    )
    with pytest.warns(UserWarning, match=r"the importance of models\[1\] was measured at other weights"):
        edit.merged(models, method="mas", importances=[own[0], omega(state(3), 0)])


def test_measured_on_a_network_it_fits_its_state_dict() -> None:
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    data = torch.randn(8, 4)
    own = [forgetless.mas(each, data, progress=False) for each in networks]
    found = edit.merged([each.state_dict() for each in networks], method="mas", importances=own)
    networks[0].load_state_dict(found)


BROKEN = {
    "models[1] is of another architecture than models[0]: it lacks 'a.bias', has 'b' besides, differs in shape: "
    "a.weight (2, 3) instead of (4, 3).": lambda: edit.merged(
        [state(1), {"a.weight": torch.ones(2, 3), "b": torch.ones(1), "steps": torch.tensor(7)}]
    ),
    "'a.bias' of models[1] holds NaN or Inf; a model that holds them cannot be merged.": lambda: edit.merged(
        [state(1), {**state(2), "a.bias": torch.tensor([1, 2, 3, float("nan")])}]
    ),
    "'steps' is int64 and differs between models[0] and models[1]; only floating-point tensors are merged, others must "
    "be equal in all models.": lambda: edit.merged([state(1), {**state(2), "steps": torch.tensor(8)}]),
    "'a.bias' of models[0] is complex64, which cannot be merged; convert it to float32, bfloat16 or float16 first.": (
        lambda: edit.merged([{**state(1), "a.bias": torch.ones(4, dtype=torch.complex64)}, state(2)])
    ),
    "'a.bias' of models[1] is a int, not a tensor.": lambda: edit.merged([state(1), {**state(2), "a.bias": 3}]),
    "models[1] is a Linear, not a state dict; give model.state_dict().": lambda: edit.merged(
        [state(1), nn.Linear(2, 2)]
    ),
    "models is one state dict; give a list of several.": lambda: edit.merged(state(1)),  # type: ignore[arg-type]
    "models is one path, 'A'; give a list of several.": lambda: edit.merge("A", "out"),
    "models[0] holds no tensors.": lambda: edit.merged([{}, {}]),
    "the method 'ties' needs the base model that the others were trained from.": lambda: edit.merged(
        [state(1), state(2)], method="ties"
    ),
    "the method 'mean' uses no base model; leave it out.": lambda: edit.merged([state(1), state(2)], base=state(0)),
    "the method 'mas' needs an importance of each model.": lambda: edit.merged([state(1), state(2)], method="mas"),
    "the method 'mean' uses no importances; leave them out.": lambda: edit.merged(
        [state(1), state(2)], importances=[omega(state(1), 0)]
    ),
    "the method 'mean' uses no importances, which could be scaled; leave that out.": lambda: edit.merged(
        [state(1), state(2)], scale_importance="none"
    ),
    "there are 1 importances for 2 models; give one for each, in their order.": lambda: edit.merged(
        [state(1), state(2)], method="mas", importances=[omega(state(1), 0)]
    ),
    "the importance of models[0] was measured by 'mas'; this method takes one by 'fisher' or 'output curvature'.": (
        lambda: edit.merged([state(1), state(2)], method="fisher", importances=[omega(state(k), 0) for k in (1, 2)])
    ),
    "an importance is scaled by mean or none, not 'max'.": lambda: edit.merged(
        [state(1), state(2)],
        method="mas",
        importances=[omega(state(k), 0) for k in (1, 2)],
        scale_importance="max",
    ),
    "the importance of models[1] has 'b', which the model lacks; measure it on the network that the checkpoint "
    "is of.": (
        lambda: edit.merged(
            [state(1), state(2)], method="mas", importances=[omega(state(1), 0), Importance({"b": torch.ones(1)}, 1)]
        )
    ),
    "the importance of models[1] has 'a.bias' of shape (3,), and the model of (4,).": lambda: edit.merged(
        [state(1), state(2)], method="mas", importances=[omega(state(1), 0), Importance({"a.bias": torch.ones(3)}, 1)]
    ),
    "the importance of models[1] covers other tensors than that of models[0]: 'a.bias', 'a.weight'; measure both with "
    "the same --exclude.": lambda: edit.merged(
        [state(1), state(2)], method="mas", importances=[omega(state(1), 0), Importance({"a.bias": torch.ones(4)}, 1)]
    ),
    "'a.weight' would hold Inf in float16; choose a dtype of a wider range, or smaller weights.": lambda: edit.merged(
        [{name: each * 1e6 for name, each in state(1).items() if "a." in name}] * 2, dtype=torch.float16
    ),
    "models are written in float16, bfloat16, float32 or float64, not torch.int8.": lambda: edit.merged(
        [state(1), state(2)], dtype=torch.int8
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("sentence", BROKEN)
def test_refused(sentence: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        BROKEN[sentence]()
    assert str(caught.value) == sentence


# On disk


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two models of its kind, tied and in two files; the models differ from it in every tensor."""
    root = tmp_path_factory.mktemp("models")
    base = language_model(0)
    base.config.tie_word_embeddings = True
    base.tie_weights()
    for name in ("base", "A", "B"):
        if name != "base":
            torch.manual_seed(ord(name))
            for weights in base.parameters():
                weights.data.add_(0.02 * torch.randn_like(weights))
        base.save_pretrained(root / name, max_shard_size="12KB")
        tokenizer().save_pretrained(root / name)
    assert len([*(root / "A").glob("*.safetensors")]) >= 2
    return root


def tensors(folder: Path) -> State:
    return {name: each for file in folder.glob("*.safetensors") for name, each in load_file(file).items()}


@pytest.mark.parametrize("method", ["mean", "task-arithmetic", "ties", "dare-ties"])
def test_a_merged_folder_loads_and_is_what_state_dicts_give(method: str, folders: Path, tmp_path: Path) -> None:
    base = None if method == "mean" else folders / "base"
    told = edit.merge([folders / "A", folders / "B"], tmp_path / "out", base=base, method=method)
    states = [tensors(folders / name) for name in ("A", "B")]
    expected = edit.merged(states, base=None if base is None else tensors(base), method=method)
    found = tensors(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert told.tensors == told.by_method == len(found)
    model = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.model.embed_tokens.weight, expected["model.embed_tokens.weight"])
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()
    assert (tmp_path / "out" / "tokenizer.json").exists()
    noted = json.loads((tmp_path / "out" / "forgetless_merge.json").read_text())
    assert noted["method"] == method
    assert set(noted["tensors"].values()) == {method}


def test_importances_from_files(folders: Path, tmp_path: Path) -> None:
    files = []
    for name in ("A", "B"):
        model = LlamaForCausalLM.from_pretrained(folders / name)
        importance = forgetless.mas(model, torch.arange(24).view(3, 8), exclude="*layernorm.weight", progress=False)
        importance.save(tmp_path / f"{name}.safetensors")
        files.append(tmp_path / f"{name}.safetensors")
    told = edit.merge([folders / "A", folders / "B"], tmp_path / "out", method="mas", importances=files)
    assert len(told.averaged) == 4
    assert all(name.endswith("layernorm.weight") for name in told.averaged)
    found = LlamaForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    expected = edit.merged(
        [tensors(folders / name) for name in ("A", "B")],
        method="mas",
        importances=[Importance.load(file) for file in files],
    )
    assert all(torch.equal(found[name], each) for name, each in expected.items())
    noted = json.loads((tmp_path / "out" / "forgetless_merge.json").read_text())
    assert sum(each == "weighted mean" for each in noted["tensors"].values()) == 4


def test_stopped_and_resumed_it_is_bit_identical(folders: Path, tmp_path: Path) -> None:
    def go(out: str, **more: Any) -> None:
        names = [folders / "A", folders / "B"]
        edit.merge(names, tmp_path / out, base=folders / "base", method="dare-linear", seed=3, **more)

    def stop(name: str, done: int, of: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    go("whole")
    with pytest.raises(KeyboardInterrupt):
        go("cut", progress=stop)
    assert not (tmp_path / "cut").exists()
    with pytest.raises(ForgetlessError, match="continue it with --resume"):
        go("cut")
    with pytest.raises(ForgetlessError):
        edit.merge([folders / "A", folders / "B"], tmp_path / "cut", method="mean", resume=True)
    go("cut", resume=True)
    assert not (tmp_path / "cut.partial").exists()
    whole, cut = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert all(torch.equal(cut[name], each) for name, each in whole.items())


def test_another_dtype(folders: Path, tmp_path: Path) -> None:
    LlamaForCausalLM.from_pretrained(folders / "B", dtype=torch.bfloat16).save_pretrained(tmp_path / "B")
    with pytest.warns(UserWarning, match=r"such as .* as bfloat16 and float32: they are .* and written in bfloat16\."):
        edit.merge([folders / "A", tmp_path / "B"], tmp_path / "mixed", dtype=torch.bfloat16)
    assert len(json.loads((tmp_path / "mixed" / "forgetless_merge.json").read_text())["notes"]) == 1
    edit.merge([folders / "A", folders / "B"], tmp_path / "out", dtype=torch.bfloat16)
    model = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16


def test_adapters_of_the_base_are_merged_as_the_models_that_they_make(folders: Path, tmp_path: Path) -> None:
    whole = []
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        model = get_peft_model(LlamaForCausalLM.from_pretrained(folders / "base"), config)
        model.save_pretrained(tmp_path / name)
        whole.append({name: each.clone() for name, each in model.merge_and_unload().state_dict().items()})
    names = [tmp_path / "one", tmp_path / "two"]
    edit.merge(names, tmp_path / "out", base=folders / "base", method="ties", density=0.5)
    base = LlamaForCausalLM.from_pretrained(folders / "base").state_dict()
    expected = edit.merged(whole, base=base, method="ties", density=0.5)
    for name, found in tensors(tmp_path / "out").items():
        torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-6)
    with pytest.raises(
        ForgetlessError, match=r"one is an adapter; name the model that it was trained on as the base\."
    ):
        edit.merge(names, tmp_path / "none")


def test_refused_on_disk(folders: Path, tmp_path: Path) -> None:
    def refused(sentence: str, *models: Path, **more: Any) -> None:
        with pytest.raises(ForgetlessError) as caught:
            edit.merge(models, tmp_path / "out", **more)
        assert str(caught.value) == sentence.replace("ROOT", str(folders)).replace("HERE", str(tmp_path))
        assert not (tmp_path / "out").exists()

    twice = "is named twice; name each model once, and give it a larger weight instead."
    refused(f"ROOT/A {twice}", folders / "A", folders / "A")
    refused(f"ROOT/B/../A {twice}", folders / "A", folders / "B", base=folders / "B" / ".." / "A", method="ties")
    file = next(iter(sorted((folders / "A").glob("model.safetensors*"))))
    same = "are the same model; name it once, with a larger weight."
    refused(f"ROOT/A and {file} {same}", folders / "A", file)
    other = tmp_path / "other"
    shutil.copytree(folders / "B", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    refused("HERE/other is of another architecture ('gpt2') than ROOT/A ('llama').", folders / "A", other)
    heads = config["num_attention_heads"]
    (other / "config.json").write_text(json.dumps({**config, "num_attention_heads": 2 * heads}))
    what = f"'num_attention_heads' is {2 * heads} and {heads}"
    refused(f"HERE/other is of another architecture than ROOT/A: {what}.", folders / "A", other)
    for file in other.glob("*.safetensors"):
        kept = {name: each for name, each in load_file(file).items() if "mlp" not in name}
        save_file(kept, file)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ForgetlessError, match="is a pickle"):
        edit.merge([folders / "A", tmp_path], tmp_path / "out")


def test_what_is_no_number_on_disk_is_refused_and_a_fault_is_seen(folders: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folders / "B", broken)
    file = next(file for file in sorted(broken.glob("*.safetensors")))
    held = load_file(file)
    name = next(iter(held))
    held[name].view(-1)[0] = float("inf")
    save_file(held, file, {"format": "pt"})
    with pytest.raises(ForgetlessError, match=f"'{name}' in {broken} holds NaN or Inf"):
        edit.merge([folders / "A", broken], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_state_dict_is_read_without_its_graph() -> None:
    weights = nn.Parameter(torch.ones(2))
    assert not StateDict({"w": weights}, "it").tensor("w").requires_grad

"""`forgetless merge`: models as one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cli.conftest import Command
from forgetless import Importance, edit

Refused = Callable[..., None]
State = dict[str, Tensor]


def state(seed: int) -> State:
    torch.manual_seed(seed)
    return {"a": torch.randn(3, 4), "b": torch.randn(4), "steps": torch.tensor(3)}


@pytest.fixture
def models(forgetless: Command) -> dict[str, State]:
    """A folder for each of base, A and B, in the current one."""
    found = {name: state(seed) for seed, name in enumerate(("base", "A", "B"))}
    for seed, (name, tensors) in enumerate(found.items()):
        Path(name).mkdir()
        save_file(tensors, f"{name}/model.safetensors")
        Path(name, "config.json").write_text('{"model_type": "tiny"}')
        torch.manual_seed(seed)
        Importance({"a": torch.rand(3, 4)}, 2).save(f"{name}.safetensors")
    return found


def result(out: str = "out") -> State:
    return load_file(f"{out}/model.safetensors")


def equal(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_mean(models: dict[str, State], forgetless: Command) -> None:
    done = forgetless("merge", "A", "B/model.safetensors", "--out", "out")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ("2 models by mean: 2 of 3 tensors\nintegers, equal in all models: 1\nmerged: out\n")
    assert equal(result(), edit.merged([models["A"], models["B"]]))
    assert Path("out/config.json").read_text() == '{"model_type": "tiny"}'
    again = forgetless("merge", "A", "B", "--out", "out")
    assert again.exit_code == 2
    assert again.stderr == "forgetless: out exists already and is not empty; choose another --out.\n"


def test_every_option_reaches_the_method(models: dict[str, State], forgetless: Command) -> None:
    words = ["--base", "base", "--method", "dare-ties", "--weight", 1, "--weight", 0.5, "--density", 0.5]
    words += ["--density", 0.9, "--lambda", 0.7, "--normalize", "--majority", "count", "--rescale", "l1", "--seed", 4]
    done = forgetless("merge", "A", "B", *words, "--dtype", "float64", "--json", "--out", "out")
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["by_method"], facts["copied"], facts["base"]) == (2, 1, "base")
    expected = edit.merged(
        [models["A"], models["B"]],
        base=models["base"],
        method="dare-ties",
        weights=[1, 0.5],
        density=[0.5, 0.9],
        scale=0.7,
        normalize=True,
        majority="count",
        rescale="l1",
        seed=4,
        dtype=torch.float64,
    )
    found = result()
    # One is rounded once more: it is computed in float32 and then written as float64 by both.
    assert equal(found, expected)
    assert (
        forgetless("merge", "A", "--base", "base", "--method", "wise-ft", "--alpha", 1, "--out", "same").exit_code == 0
    )
    assert equal(result("same"), models["A"])


def test_importances(models: dict[str, State], forgetless: Command) -> None:
    words = ["--importance", "A.safetensors", "--importance", "B.safetensors", "--method", "mas"]
    done = forgetless("merge", "A", "B", *words, "--scale-importance", "none", "--out", "out")
    assert done.exit_code == 0, done.stderr
    assert "without importance, so the weighted mean: 1 ('b')\n" in done.stdout
    own = [Importance.load(f"{name}.safetensors") for name in ("A", "B")]
    expected = edit.merged([models["A"], models["B"]], method="mas", importances=own, scale_importance="none")
    assert equal(result(), expected)


def test_a_recipe(models: dict[str, State], forgetless: Command, refused: Refused) -> None:
    Path("recipe.yaml").write_text(
        "merge_method: ties\nbase_model: base\nmodels:\n"
        "  - {model: A, parameters: {weight: 1, density: 0.5}}\n  - {model: B, parameters: {weight: 0.5}}\n"
        "dtype: float32\n"
    )
    done = forgetless("merge", "recipe.yaml", "--out", "out")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("2 models and their base by ties: 2 of 3 tensors\n")
    expected = edit.merged(
        [models["A"], models["B"]], base=models["base"], method="ties", weights=[1, 0.5], density=[0.5, 1.0]
    )
    assert equal(result(), expected)
    refused("a recipe names its models itself; give it alone.", "merge", "recipe.yaml", "A", "--out", "o")
    words = ["--lambda", 1, "--method", "ties", "--seed", 1]
    refused(
        "a recipe says itself how to merge; leave out --method, --lambda, --seed.",
        *("merge", "recipe.yaml", *words, "--out", "o"),
    )
    refused("no.yaml cannot be read: it does not exist.", "merge", "no.yaml", "--out", "o")


def test_refused(models: dict[str, State], refused: Refused) -> None:
    refused("merging by 'mean' needs at least two models, not 1.", "merge", "A", "--out", "o")
    refused(
        "A is named twice; name each model once, and give it a larger weight instead.",
        *("merge", "A", "B", "A", "--out", "o"),
    )
    refused(
        "--dtype is float16, bfloat16, float32, float64, not 'int8'.",
        *("merge", "A", "B", "--dtype", "int8", "--out", "o"),
    )
    refused(
        "the method 'mean' has no setting 'scale'; beside weights it has normalize.",
        *("merge", "A", "B", "--lambda", 1, "--out", "o"),
    )
    refused(
        "the method 'ties' needs the base model that the others were trained from.",
        *("merge", "A", "B", "--method", "ties", "--out", "o"),
    )
    refused(
        "there is no way to merge called 'slerp'; there are mean, task-arithmetic, wise-ft, ties, dare-linear, "
        "dare-ties, fisher, mas.",
        *("merge", "A", "B", "--method", "slerp", "--out", "o"),
    )


def test_ctrl_c_keeps_what_is_finished(
    models: dict[str, State], forgetless: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forgetless.edit.combination import Combination

    own, read = Combination.tensor, []

    def tensor(self: Combination, name: str) -> Tensor:
        if len(read) == 1:
            raise KeyboardInterrupt
        read.append(name)
        return own(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Combination, "tensor", tensor)
        done = forgetless("merge", "A", "B", "--out", "out")
    assert done.exit_code == 130
    assert done.stderr == "forgetless: stopped; what is finished is kept for --resume.\n"
    assert forgetless("merge", "A", "B", "--out", "out", "--resume").exit_code == 0
    assert equal(result(), edit.merged([models["A"], models["B"]]))

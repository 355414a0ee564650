"""The same inputs give the same outputs as mergekit's, to rounding, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from forgetless import edit
from forgetless.edit.merge_recipe import read_recipe
from forgetless.edit.merging import METHODS
from forgetless.edit.merging.parts.deltas import draw, kept
from tiny_language import language_model

pytest.importorskip("mergekit", reason="mergekit is not installed (pip install mergekit)")

WEIGHTS, DENSITIES = [0.5, 1.0, -0.3], [0.2, 0.5, 0.9]
#: mergekit's name, ours, what mergekit is told, what ours is.
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("linear", "mean", {}, {}),
    ("linear", "mean", {"normalize": False}, {"normalize": False}),
    ("task_arithmetic", "task-arithmetic", {"lambda": 0.7}, {"scale": 0.7}),
    ("task_arithmetic", "task-arithmetic", {"normalize": True}, {"scale": 1.0, "normalize": True}),
    ("ties", "ties", {"density": DENSITIES}, {"density": DENSITIES}),
    ("ties", "ties", {"density": DENSITIES, "normalize": False}, {"density": DENSITIES, "normalize": False}),
    ("dare_ties", "dare-ties", {"density": DENSITIES}, {"density": DENSITIES, "scale": 1.0, "rescale": "l1"}),
    ("dare_linear", "dare-linear", {"density": DENSITIES}, {"density": DENSITIES, "scale": 1.0, "rescale": "l1"}),
    (
        "dare_ties",
        "dare-ties",
        {"density": DENSITIES, "rescale": False, "normalize": True},
        {"density": DENSITIES, "scale": 1.0, "rescale": "none", "normalize": True},
    ),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("theirs", "ours", "told", "given"), CASES)
def test_equal(
    theirs: str,
    ours: str,
    told: dict[str, Any],
    given: dict[str, Any],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mergekit.merge_methods.api import merge_tensors

    torch.manual_seed(0)
    base = torch.randn(37, 53, dtype=dtype)
    versions = [base + 0.1 * torch.randn(37, 53, dtype=dtype) for _ in range(3)]
    method = METHODS[ours]
    # What is dropped is drawn by other generators: theirs gets our masks, model by model.
    drawn = iter([kept(base.shape, density, draw(0, "", k)) for k, density in enumerate(DENSITIES)])

    def bernoulli(probability: Tensor, **_: Any) -> Tensor:
        return next(drawn).to(probability.dtype)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    tensors = versions if theirs == "linear" else [base, *versions]
    at = {} if theirs == "linear" else {"base_index": 0}
    expected = merge_tensors(tensors, theirs, parameters={"weight": WEIGHTS, **told}, **at)
    settings = method.told(3, WEIGHTS, **given)
    found = method.merge(versions, base if method.needs_base else None, None, settings)
    # DARE of theirs is computed in float32 whatever the inputs are.
    error = 1e-6 if dtype == torch.float32 or "dare" in theirs else 1e-14
    torch.testing.assert_close(found, expected, rtol=0, atol=error)


#: ROOT is the folder that the models are in: mergekit looks for a name without one on the Hub.
BASE = "base_model: ROOT/base\ndtype: float32\n"
TWO = "models:\n  - {model: ROOT/A, parameters: {weight: 0.3}}\n  - {model: ROOT/B, parameters: {weight: 0.9}}\n"
DENSE = TWO.replace("0.3", "0.3, density: 0.5").replace("0.9", "0.9, density: 0.2")
RECIPES = {
    "linear": f"merge_method: linear\n{TWO}dtype: float32",
    "a sum": f"merge_method: linear\n{TWO}parameters: {{normalize: false}}\ndtype: float32",
    "task arithmetic": f"merge_method: task_arithmetic\n{BASE}{TWO}parameters: {{lambda: 0.5}}",
    "TIES": (
        f"merge_method: ties\n{BASE}{DENSE}  - model: ROOT/base\nparameters: {{int8_mask: true}}\nout_dtype: bfloat16"
    ),
    "a weight for all": (
        f"merge_method: dare_ties\n{BASE}models: [{{model: ROOT/A}}, {{model: ROOT/B}}]\nparameters: {{weight: 0.5}}"
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_mergekits_folder(name: str, tmp_path: Path) -> None:
    import yaml  # type: ignore[import-untyped]
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    model = language_model(0)
    for folder in ("base", "A", "B"):
        if folder != "base":
            torch.manual_seed(ord(folder))
            for weights in model.parameters():
                weights.data.add_(0.02 * torch.randn_like(weights))
        model.save_pretrained(tmp_path / folder)
    text = RECIPES[name].replace("ROOT", str(tmp_path))
    (tmp_path / "recipe.yaml").write_text(text)
    options = MergeOptions(copy_tokenizer=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), str(tmp_path / "theirs"), options=options)
    told = read_recipe(tmp_path / "recipe.yaml")
    given = {"base": told.base, "method": told.method, "weights": told.weights, "dtype": told.dtype, **told.settings}
    edit.merge(told.models, tmp_path / "ours", **given)
    found, expected = (
        {name: each for file in (tmp_path / folder).glob("*.safetensors") for name, each in load_file(file).items()}
        for folder in ("ours", "theirs")
    )
    assert found.keys() == expected.keys()
    for tensor, each in expected.items():
        torch.testing.assert_close(found[tensor], each, rtol=0, atol=1e-6)

"""Recipes in mergekit's form: what they mean here, and that nothing in them is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forgetless.edit.merge_recipe import read_recipe
from forgetless.edit.merging import METHODS
from forgetless.errors import ForgetlessError

TIES = """
merge_method: ties
base_model: base
models:
  - model: base
  - model: A
    parameters: {weight: 0.5, density: 0.3}
  - model: B
parameters:
  weight: 1
  density: 0.7
  normalize: false
  lambda: 0.8
  int8_mask: true
dtype: float32
out_dtype: bfloat16
tokenizer_source: base
"""


def written(text: str, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe(tmp_path: Path) -> None:
    found = read_recipe(written(TIES, tmp_path))
    assert (found.models, found.base, found.method, found.weights) == (("A", "B"), "base", "ties", (0.5, 1.0))
    assert found.settings == {"scale": 0.8, "density": (0.3, 0.7), "normalize": False}
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("method", "ours", "settings"),
    [
        ("linear", "mean", {}),
        ("task_arithmetic", "task-arithmetic", {"scale": 1.0}),
        ("ties", "ties", {"scale": 1.0, "density": (1.0, 1.0)}),
        ("dare_linear", "dare-linear", {"scale": 1.0, "density": (1.0, 1.0), "rescale": "l1"}),
        ("dare_ties", "dare-ties", {"scale": 1.0, "density": (1.0, 1.0), "rescale": "l1"}),
    ],
)
def test_defaults_are_mergekit_s(method: str, ours: str, settings: dict[str, object], tmp_path: Path) -> None:
    base = "" if method == "linear" else "base_model: base\n"
    text = f"merge_method: {method}\n{base}models: [{{model: A}}, {{model: B}}]\nparameters: {{weight: 1}}\n"
    found = read_recipe(written(text, tmp_path))
    assert (found.method, found.settings, found.dtype) == (ours, settings, None)
    METHODS[ours].told(2, found.weights, **found.settings)


START = "merge_method: ties\nbase_model: base\nmodels: [{model: A, parameters: {weight: 1}}]\n"
LINEAR = "merge_method: linear\nmodels: [{model: A}, {model: B}]\n"
BROKEN = {
    "merge_method 'slerp' is not supported; linear, task_arithmetic, ties, dare_linear, dare_ties are.": (
        "merge_method: slerp\nmodels: [{model: A}]"
    ),
    "merge_method None is not supported; linear, task_arithmetic, ties, dare_linear, dare_ties are.": "models: [A]",
    "'slices' is not supported; merge_method, models, base_model, parameters, dtype, out_dtype, tokenizer_source "
    "are.": ("merge_method: ties\nslices: []"),
    "ties needs a base_model.": "merge_method: ties\nmodels: [{model: A}]",
    "linear uses no base_model.": f"{LINEAR}base_model: base",
    "tokenizer_source 'union' is not supported; base is.": f"{START}tokenizer_source: union",
    "dtype 'int8' is not supported; float16, bfloat16, float32, float64 are.": f"{START}dtype: int8",
    "out_dtype 16 is not supported; float16, bfloat16, float32, float64 are.": f"{START}out_dtype: 16",
    "models must list the models to merge, each as `- model: FOLDER`.": "merge_method: ties\nbase_model: b\nmodels: A",
    "models[0] must be a mapping of names, not 'A'.": "merge_method: ties\nbase_model: b\nmodels: [A]",
    "A has no weight; give one under its parameters.": "merge_method: ties\nbase_model: b\nmodels: [{model: A}]",
    "models[0] must name a folder or a file of a model, not {'path': 'A'}.": (
        "merge_method: ties\nbase_model: b\nmodels: [{model: {path: A}}]"
    ),
    "models[0] names 'A+lora': a model with an adapter is not supported; merge the adapter into its model first and "
    "name the result.": "merge_method: ties\nbase_model: b\nmodels: [{model: A+lora}]",
    "models[1] is the base model, whose parameters change nothing; leave them out.": (
        "merge_method: ties\nbase_model: b\nmodels: [{model: A}, {model: b, parameters: {weight: 1}}]"
    ),
    "models[0]: parameters: 'gamma' is not supported; weight, density are.": (
        "merge_method: ties\nbase_model: b\nmodels: [{model: A, parameters: {gamma: 1}}]"
    ),
    "A: weight: values by layer or by filter are not supported; give one number.": (
        "merge_method: ties\nbase_model: b\nmodels: [{model: A, parameters: {weight: [0, 1]}}]"
    ),
    "A: weight must be a finite number, not '1e-3'.": (
        "merge_method: ties\nbase_model: b\nmodels: [{model: A, parameters: {weight: 1e-3}}]"
    ),
    "A: weight must be a finite number, not a number of 1329 bits.": (
        f"merge_method: ties\nbase_model: b\nmodels: [{{model: A, parameters: {{weight: 1{'0' * 400}}}}}]"
    ),
    "A\\nB has no weight; give one under its parameters.": (
        'merge_method: ties\nbase_model: b\nmodels: [{model: "A\\nB"}]'
    ),
    "linear has no density; leave it out.": f"{LINEAR}parameters: {{weight: 1, density: 1}}",
    "parameters: linear has no lambda; leave it out.": f"{LINEAR}parameters: {{weight: 1, lambda: 1}}",
    "parameters: rescale is not supported for ties; leave it out.": f"{START}parameters: {{rescale: true}}",
    "parameters: normalize must be true or false, not 1.": f"{START}parameters: {{normalize: 1}}",
    "parameters: 'epsilon' is not supported; weight, density, normalize, lambda, rescale, int8_mask are.": (
        f"{START}parameters: {{epsilon: 1}}"
    ),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_what_is_not_supported_is_refused_by_name(sentence: str, tmp_path: Path) -> None:
    path = written(BROKEN[sentence], tmp_path)
    with pytest.raises(ForgetlessError) as caught:
        read_recipe(path)
    assert str(caught.value).removeprefix(str(path)).lstrip(": ") == sentence


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("a: &x 1\nb: *x", "it holds an alias (*), which is not supported"),
        ("[" * 40 + "]" * 40, "it nests deeper than 32 levels"),
        ("[" * 5000, "it nests deeper than 32 levels"),
        ("1: 2", "the key 1 is not text"),
        ("? [a, b]\n: 1", "the key ['a', 'b'] is not text"),
        ("<<: {a: 1}\na: 2", "could not determine a constructor for the tag 'tag:yaml.org,2002:merge'"),
        ("a: !!python/object/apply:os.system [ls]", "it holds a tag (tag:yaml.org,2002:python/object/apply:os.system)"),
        ("a: !!int ''", "it holds a tag (tag:yaml.org,2002:int), which is not supported"),
        ("!!map [a]", "it holds a tag (tag:yaml.org,2002:map), which is not supported"),
        ("a: b: c", "mapping values are not allowed here (line 1)"),
        ("\x00", "unacceptable character #x0000: special characters are not allowed"),
    ],
)
def test_yaml_is_read_strictly(text: str, why: str, tmp_path: Path) -> None:
    path = written(text, tmp_path)
    with pytest.raises(ForgetlessError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path} cannot be read as YAML: {why}")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="does not exist"):
        read_recipe(tmp_path / "no.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ForgetlessError, match="are the most here"):
        read_recipe(tmp_path / "large.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ForgetlessError, match=r"cannot be read as YAML: .*utf-8"):
        read_recipe(tmp_path / "latin.yaml")
    with pytest.raises(ForgetlessError, match="must be a mapping of names, not None"):
        read_recipe(written("", tmp_path))

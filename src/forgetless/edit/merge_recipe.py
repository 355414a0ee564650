"""A merge written down as YAML in mergekit's form; what is not supported is refused by name, never ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted

MOST_BYTES, DEEPEST = 1 << 20, 32

#: Their name → ours, and what their default is where it is not ours.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("mean", {}),
    "task_arithmetic": ("task-arithmetic", {"scale": 1.0}),
    "ties": ("ties", {"scale": 1.0, "density": 1.0}),
    "dare_linear": ("dare-linear", {"scale": 1.0, "density": 1.0, "rescale": "l1"}),
    "dare_ties": ("dare-ties", {"scale": 1.0, "density": 1.0, "rescale": "l1"}),
}
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
_KEYS = ("merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source")
_OF_A_MODEL = ("weight", "density")
_OF_ALL = (*_OF_A_MODEL, "normalize", "lambda", "rescale", "int8_mask")


@dataclass(frozen=True)
class Recipe:
    """What a recipe asks for.

    Attributes:
        models: folders or files of the models, without the base.
        base: that of the base.
        method: our name of the method.
        weights: w_k.
        settings: the method's own.
        dtype: of the result; None for that of the base or the first model.
    """

    models: tuple[str, ...]
    base: str | None
    method: str
    weights: tuple[float, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype | None = None


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe in mergekit's form.

    `merge_method` is linear, task_arithmetic, ties, dare_linear or dare_ties, with mergekit's defaults. Every model has
    a `weight` (its own, or the one under the recipe's `parameters`), and `density` where the method has one;
    `parameters` may hold `normalize`, `lambda`, `rescale` and `int8_mask`, which changes no numbers. Computing is in
    float32 whatever `dtype` says; `out_dtype`, else `dtype`, is that of the result. `tokenizer_source` may be "base".

    Raises:
        ForgetlessError: the file is missing, larger than 1 MiB, no plain YAML, or asks for something else: slices,
            modules, gradients, filters, adapters, another method or tokenizer.
    """
    where = str(path)
    told = _mapping(_parsed(path), where)
    _refuse_others(told, _KEYS, where)
    method, base = told.get("merge_method"), told.get("base_model")
    if not isinstance(method, str) or method not in METHODS:
        raise ForgetlessError(f"{where}: merge_method {quoted(method)} is not supported; {', '.join(METHODS)} are.")
    name, defaults = METHODS[method]
    base = None if base is None else _model(base, f"{where}: base_model")
    if (name == "mean") != (base is None):
        raise ForgetlessError(f"{where}: {method} {'uses no' if name == 'mean' else 'needs a'} base_model.")
    if told.get("tokenizer_source") not in (None, "base"):
        raise ForgetlessError(
            f"{where}: tokenizer_source {quoted(told['tokenizer_source'])} is not supported; base is."
        )
    shared = _mapping(told.get("parameters") or {}, f"{where}: parameters")
    _refuse_others(shared, _OF_ALL, f"{where}: parameters")
    models, own = _models(told.get("models"), base, where)
    settings = {**defaults, **_settings(shared, method, defaults, f"{where}: parameters")}
    weights = tuple(
        _of_model("weight", each, shared, f"{where}: {quoted(at)[1:-1]}") for at, each in zip(models, own, strict=True)
    )
    if "density" in defaults:
        settings["density"] = tuple(
            _of_model("density", each, {"density": 1.0, **shared}, f"{where}: {quoted(at)[1:-1]}")
            for at, each in zip(models, own, strict=True)
        )
    elif any("density" in each for each in (shared, *own)):
        raise ForgetlessError(f"{where}: {method} has no density; leave it out.")
    return Recipe(tuple(models), base, name, weights, settings, _dtype(told, where))


def _models(listed: Any, base: str | None, where: str) -> tuple[list[str], list[Mapping[str, Any]]]:
    if not isinstance(listed, list) or not listed:
        raise ForgetlessError(f"{where}: models must list the models to merge, each as `- model: FOLDER`.")
    models, own = [], []
    for number, each in enumerate(listed):
        at = f"{where}: models[{number}]"
        entry = _mapping(each, at)
        _refuse_others(entry, ("model", "parameters"), at)
        model = _model(entry.get("model"), at)
        parameters = _mapping(entry.get("parameters") or {}, f"{at}: parameters")
        _refuse_others(parameters, _OF_A_MODEL, f"{at}: parameters")
        if model == base:
            if parameters:
                raise ForgetlessError(f"{at} is the base model, whose parameters change nothing; leave them out.")
            continue
        models.append(model)
        own.append(parameters)
    return models, own


def _model(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ForgetlessError(f"{where} must name a folder or a file of a model, not {quoted(value)}.")
    if "+" in value and not Path(value).exists():
        raise ForgetlessError(
            f"{where} names {quoted(value)}: a model with an adapter is not supported; merge the adapter into its "
            "model first and name the result."
        )
    return value


def _settings(shared: Mapping[str, Any], method: str, defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The method's own settings under our names."""
    found: dict[str, Any] = {}
    for name in ("normalize", "rescale", "int8_mask"):
        if name in shared and not isinstance(shared[name], bool):
            raise ForgetlessError(f"{where}: {name} must be true or false, not {quoted(shared[name])}.")
    if "normalize" in shared:
        found["normalize"] = shared["normalize"]
    if "lambda" in shared:
        if "scale" not in defaults:
            raise ForgetlessError(f"{where}: {method} has no lambda; leave it out.")
        found["scale"] = _number(shared["lambda"], f"{where}: lambda")
    if "rescale" in defaults and "rescale" in shared:
        found["rescale"] = "l1" if shared["rescale"] else "none"
    elif shared.get("rescale"):
        raise ForgetlessError(f"{where}: rescale is not supported for {method}; leave it out.")
    return found


def _of_model(name: str, own: Mapping[str, Any], shared: Mapping[str, Any], where: str) -> float:
    value = own.get(name, shared.get(name))
    if value is None:
        raise ForgetlessError(f"{where} has no {name}; give one under its parameters.")
    return _number(value, f"{where}: {name}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, (list, dict)):
        raise ForgetlessError(f"{where}: values by layer or by filter are not supported; give one number.")
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:  # an integer of hundreds of digits
        found = math.nan
    if not math.isfinite(found):
        raise ForgetlessError(f"{where} must be a finite number, not {quoted(value)}.")
    return found


def _dtype(told: Mapping[str, Any], where: str) -> torch.dtype | None:
    for key in ("out_dtype", "dtype"):
        if told.get(key) is not None and (not isinstance(told[key], str) or told[key] not in DTYPES):
            raise ForgetlessError(f"{where}: {key} {quoted(told[key])} is not supported; {', '.join(DTYPES)} are.")
    chosen = told.get("out_dtype") or told.get("dtype")
    return None if chosen is None else DTYPES[chosen]


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ForgetlessError(f"{where} must be a mapping of names, not {quoted(value)}.")
    return value


def _refuse_others(value: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in value:
        if key not in known:
            raise ForgetlessError(f"{where}: {quoted(key)} is not supported; {', '.join(known)} are.")


def _parsed(path: str | Path) -> Any:
    """YAML without aliases, tags, merge keys, duplicate keys and deep nesting."""
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise ForgetlessError("a recipe needs PyYAML: pip install pyyaml.") from error

    class Strict(yaml.SafeLoader):  # type: ignore[misc]
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it holds an alias (*), which is not supported")
            if (tag := self.peek_event().tag) is not None:
                raise ValueError(f"it holds a tag ({quoted(tag)[1:-1]}), which is not supported")
            self.depth += 1
            if self.depth > DEEPEST:
                raise ValueError(f"it nests deeper than {DEEPEST} levels")
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for number, key in enumerate(keys):
                if not isinstance(key, str):
                    raise ValueError(f"the key {quoted(key)} is not text")
                if key in keys[:number]:
                    raise ValueError(f"the key {quoted(key)} is there twice")
            return super().construct_mapping(node, deep)

    content = files.read_bytes(path, MOST_BYTES)
    try:
        return yaml.load(content.decode("utf-8"), Strict)  # a SafeLoader
    except Exception as error:  # of a parser that raises whatever its values do
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or brief(error)
        at = "" if mark is None else f" (line {mark.line + 1})"
        raise ForgetlessError(f"{path} cannot be read as YAML: {what}{at}.") from error

"""Models with one architecture and different weights → one model, without training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless.edit.adapter import Adapted, is_adapter
from forgetless.edit.checkpoint import Checkpoint, Stored
from forgetless.edit.combination import Combination, Told
from forgetless.edit.rewritten import Told as Progress
from forgetless.edit.rewritten import rewrite
from forgetless.edit.versions import StateDict, tied
from forgetless.errors import ForgetlessError, quoted
from forgetless.measure.importance import Importance

REPORT = "forgetless_merge.json"


def merged(
    models: Sequence[Mapping[str, Tensor]],
    *,
    base: Mapping[str, Tensor] | None = None,
    method: str = "mean",
    weights: Sequence[float] | None = None,
    importances: Sequence[Importance] | None = None,
    scale_importance: str = "mean",
    dtype: torch.dtype | None = None,
    **settings: Any,
) -> dict[str, Tensor]:
    """The weights of several models of one architecture as those of one: θ from θ_1 … θ_K and θ_base.

    Every tensor is merged by itself, in float32 (float64 where one of its versions is), and gets the dtype that it has
    in the base, or in the first model where there is none. Tensors that are tied in all models are merged once and
    stay tied. Integer tensors must be equal in all models. Buffers, such as the running statistics of batch norm, are
    merged as weights are.

    Args:
        models: state dicts, `model.state_dict()`.
        base: the state dict of the model that all were trained from; methods with task vectors need it.
        method: "mean", "task-arithmetic", "wise-ft", "ties", "dare-linear", "dare-ties", "fisher" or "mas"
            (docs/merging.md has their formulas).
        weights: w_k, one a model; 1 each where None.
        importances: Ω_k for "fisher" and "mas", one a model; a tensor that they do not cover gets the weighted mean.
        scale_importance: "mean" divides each Ω_k by its mean over all elements; "none" takes it as measured.
        dtype: of the result's floating-point tensors.
        settings: the method's own: `density`, `scale` (λ), `alpha`, `normalize`, `majority`, `rescale`, `seed`.

    Returns:
        A state dict with the names of the base, or of the first model.

    Raises:
        ForgetlessError: models of different architectures, NaN or Inf, integers that differ, a method without what it
            needs, settings out of range.
    """
    if isinstance(models, Mapping):
        raise ForgetlessError("models is one state dict; give a list of several.")
    combination = Combination(
        {f"models[{k}]": StateDict(each, f"models[{k}]") for k, each in enumerate(models)},
        base=None if base is None else ("base", StateDict(base, "base")),
        method=method,
        weights=weights,
        importances=importances,
        scale_importance=scale_importance,
        dtype=dtype,
        **settings,
    )
    if note := combination.note():
        warnings.warn(note, stacklevel=2)
    every = [*models] if base is None else [base, *models]
    first = tied(every, {name for each in importances or () for name in each.sums})
    made = {name: combination.tensor(name) for name in every[0] if first(name) == name}
    return {name: made[first(name)] for name in every[0]}


def merge(
    models: Sequence[str | Path],
    out: str | Path,
    *,
    base: str | Path | None = None,
    method: str = "mean",
    weights: Sequence[float] | None = None,
    importances: Sequence[str | Path] | None = None,
    scale_importance: str = "mean",
    dtype: torch.dtype | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Told:
    """Merge checkpoints on disk; as `merged`, with one tensor in memory at a time.

    The result has the layout, the configuration and the tokenizer of the base, or of the first model where there is
    none; `forgetless_merge.json` in it says how it was made.

    Args:
        models: folders as the Hub lays them out, or their safetensors files; with a base, also LoRA adapters of it.
        out: the folder to write; it must not exist.
        base: the model that all were trained from.
        method: as in `merged`.
        weights: w_k.
        importances: files of `forgetless measure`, one a model, in the order of the models.
        scale_importance: as in `merged`.
        dtype: as in `merged`.
        resume: continue what was stopped.
        progress: called with a tensor's name, how many are done and how many there are.
        settings: as in `merged`.

    Returns:
        How many tensors were merged, and how.

    Raises:
        ForgetlessError: as `merged` does; a model named twice, a checkpoint that is missing, pickled or damaged, or
            an `out` that exists or cannot be written.
    """
    if isinstance(models, (str, Path)):
        raise ForgetlessError(f"models is one path, {quoted(str(models))}; give a list of several.")
    _refuse_twice([*models, *([] if base is None else [base])])
    start = None if base is None else Checkpoint(base)
    read = {str(path): _read(path, start) for path in models}
    _refuse_same_files([*([] if start is None else [start]), *read.values()])
    omegas = None if importances is None else [Importance.load(path, mmap=True) for path in importances]
    combination = Combination(
        read,
        base=None if start is None else (str(base), start),
        method=method,
        weights=weights,
        importances=omegas,
        scale_importance=scale_importance,
        dtype=dtype,
        **settings,
    )
    asked = {
        "method": method,
        "models": ", ".join(read),
        "base": str(base),
        **{name: str(value) for name, value in combination.used().items()},
    }
    if note := combination.note():
        warnings.warn(note, stacklevel=2)
    sources: list[Stored] = [*([] if start is None else [start]), *read.values()]
    rewrite(
        out,
        sources[0],
        sources,
        lambda name: (combination.tensor(name), combination.how(name)),
        asked=asked,
        dtype=dtype,
        resume=resume,
        progress=progress,
        report=REPORT,
        notes=[note] if note else [],
        first={name for each in omegas or () for name in each.sums},
    )
    return combination.told()


def _read(path: str | Path, base: Checkpoint | None) -> Stored:
    if not is_adapter(path):
        return Checkpoint(path)
    if base is None:
        raise ForgetlessError(f"{path} is an adapter; name the model that it was trained on as the base.")
    return Adapted(base, path)


def _refuse_twice(paths: Sequence[str | Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if (place := Path(path).resolve()) in seen:
            raise ForgetlessError(f"{path} is named twice; name each model once, and give it a larger weight instead.")
        seen.add(place)


def _refuse_same_files(read: Sequence[Stored]) -> None:
    """The same model, once by its folder and once by its file."""
    seen: dict[tuple[Path, ...], Path] = {}
    for each in read:
        if isinstance(each, Checkpoint) and (other := seen.setdefault(tuple(each.files()), each.path)) is not each.path:
            raise ForgetlessError(f"{other} and {each.path} are the same model; name it once, with a larger weight.")

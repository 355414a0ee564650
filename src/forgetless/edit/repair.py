"""Repair a fine-tuned model after the fact: win back what fine-tuning has damaged, without data or training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.edit.adapter import Adapted, is_adapter
from forgetless.edit.checkpoint import Checkpoint, finite, refuse_other_architecture, refuse_other_tensors
from forgetless.edit.omegas import Omegas
from forgetless.edit.repairing import REPAIRS
from forgetless.edit.rewritten import Told, refuse_overflow, rewrite
from forgetless.edit.versions import mixed_types, refuse_no_state, refuse_type, tied
from forgetless.edit.weight import Repaired, Settings, Versions
from forgetless.errors import ForgetlessError, quoted
from forgetless.measure.importance import Importance
from forgetless.model.parameters import listing

REPORT = "forgetless_repair.json"


def repair(
    base: str | Path,
    tuned: str | Path,
    out: str | Path,
    method: str = "dg-hard",
    *,
    importance: Importance | None = None,
    settings: Settings | None = None,
    resume: bool = False,
    progress: Told | None = None,
) -> dict[str, dict[str, Any]]:
    """Repair a checkpoint on disk, tensor by tensor.

        forgetless.edit.repair("SmolLM2-135M", "my-finetuned", "my-repaired")

    The result has the names, types, configuration and tokenizer of `tuned`, and loads as that does. What the base does
    not have (a new head) keeps its tuned values. Memory: three times the largest tensor, and `ΔᵀΔ` in float64 for
    methods with a spectrum (8 bytes for each pair of the shorter axis' elements; 32 without SciPy).

    Args:
        base: the folder of the model before fine-tuning, or its safetensors file.
        tuned: after it; or the folder of a LoRA adapter, which is merged weight by weight.
        out: the folder to be; `out.partial` until all is there.
        method: one of `forgetless.edit.REPAIRS`.
        importance: Ω of the base, for the methods that use it.
        settings: how much; by default what the methods' authors take.
        resume: whether to continue what was stopped.
        progress: told after each tensor its name, how many are done and how many there are.

    Returns:
        Weight → what was done to it, also in `out/forgetless_repair.json`.

    Raises:
        ForgetlessError: a checkpoint cannot be read, holds NaN or is of another architecture, the method or its
            settings are not known, an importance is missing or of another network, or `out` is there already.
    """
    settings = settings or Settings()
    edited = _method(method, importance)
    before = Checkpoint(base)
    after = Adapted(before, tuned) if is_adapter(tuned) else Checkpoint(tuned)
    if isinstance(after, Checkpoint) and after.files() == before.files():
        raise ForgetlessError(
            f"{base} and {tuned} are the same model; name the one before fine-tuning, then the other."
        )
    for each in (before, after):
        for name, held in each.layout.items():
            refuse_type(name, str(each.path), held.dtype, "repaired")
    refuse_other_architecture(before, after)
    omegas = Omegas(importance, before.layout)
    omegas.warn_elsewhere(before)
    ranks = after.ranks if isinstance(after, Adapted) else {}
    notes = _notes({str(base): before.layout, str(tuned): after.layout})
    for note in notes:
        warnings.warn(note, stacklevel=2)

    def made(name: str) -> tuple[Tensor, Any]:
        held = after.tensor(name)
        if name not in before.layout or not held.is_floating_point():
            return held, None
        versions = Versions(before.tensor(name), held, omegas.of(name), ranks.get(name))
        done = _done(edited, versions, settings, name)
        return done.tensor, done.facts or None

    asked = {"method": method, **_numbers(settings), "importance": omegas.mark()}
    facts = rewrite(
        out,
        after,
        [before, after],
        made,
        asked=asked,
        resume=resume,
        progress=progress,
        report=REPORT,
        notes=notes,
        first=() if importance is None else importance.sums.keys(),
    )
    if lost := [name for name in ranks if facts.get(name, {}).get("kept") == 0]:
        warnings.warn(
            f"nothing is left of the adapter in {len(lost)} of {len(ranks)} weights: the threshold lies above all of "
            "their singular values, as it does for most adapters; take wise-ft or importance.",
            stacklevel=2,
        )
    return facts


def repaired(
    base: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    method: str = "dg-hard",
    *,
    importance: Importance | None = None,
    settings: Settings | None = None,
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Repair a state dict in memory, as `repair` does on disk.

    Args:
        base: the state dict before fine-tuning.
        tuned: after it.
        method: one of `forgetless.edit.REPAIRS`.
        importance: Ω of the base, for the methods that use it.
        settings: how much.

    Returns:
        The repaired state dict, with the names and types of `tuned` and tensors of its own, and what was done to each
        weight.

    Raises:
        ForgetlessError: shapes differ, a tensor holds NaN, or as in `repair`.
    """
    settings = settings or Settings()
    edited = _method(method, importance)
    for title, state in (("base", base), ("tuned", tuned)):
        refuse_no_state(state, title)
        for name, each in state.items():
            refuse_type(name, title, each.dtype, "repaired")
    layout, after = (
        {name: files.Layout(each.dtype, tuple(each.shape)) for name, each in state.items()} for state in (base, tuned)
    )
    refuse_other_tensors("base", layout, "tuned", after)
    if broken := [
        name
        for each in (base, tuned)
        for name, value in each.items()
        if value.is_floating_point() and not finite(value)
    ]:
        raise ForgetlessError(f"{listing(broken)} hold NaN or Inf; edit a model that is finite.")
    omegas = Omegas(importance, layout)
    for note in _notes({"base": layout, "tuned": after}):
        warnings.warn(note, stacklevel=2)
    result: dict[str, Tensor] = {}
    facts: dict[str, dict[str, Any]] = {}
    measured = () if importance is None else importance.sums.keys()
    shared = tied([tuned], [name for name in measured if name in base] or base.keys())

    def stands(name: str) -> str:
        """What stands for a name: itself where the base holds two tensors, which are repaired apart."""
        other = shared(name)
        alike = name not in base or other not in base or torch.equal(base[name], base[other])
        return other if alike else name

    for name, held in tuned.items():
        if stands(name) != name:
            continue
        result[name] = held.detach().clone()
        if name in base and held.is_floating_point():
            done = _done(edited, Versions(base[name].detach(), held.detach(), omegas.of(name)), settings, name)
            if done.tensor.data_ptr() != held.data_ptr():
                result[name] = done.tensor
            refuse_overflow(name, result[name])
            facts |= {name: done.facts} if done.facts else {}
    return {name: result[stands(name)] for name in tuned}, facts


def _notes(models: Mapping[str, Mapping[str, files.Layout]]) -> list[str]:
    """What there is to say of the base's and the tuned model's tensors: where names or types differ."""
    (base, before), (tuned, after) = models.items()
    found = []
    if left_out := [name for name in before if name not in after]:
        found.append(f"{tuned} lacks {listing(left_out)} of {base}, and so does the result.")
    if new := [name for name in after if name not in before]:
        found.append(f"{base} lacks {listing(new)} of {tuned}: nothing is repaired there.")
    if what := mixed_types(models):
        found.append(
            f"{what}: their difference is computed in the wider type (float32 at least) and holds what rounding to the "
            f"narrower one has changed; the result has the types of {tuned}."
        )
    return found


def _done(
    edited: Callable[[Versions, Settings], Repaired], versions: Versions, settings: Settings, name: str
) -> Repaired:
    try:
        return edited(versions, settings)
    except ForgetlessError as error:
        raise ForgetlessError(f"{quoted(name)} cannot be repaired: {error}") from error


def _method(name: str, importance: Importance | None) -> Callable[[Versions, Settings], Repaired]:
    if name not in REPAIRS:
        raise ForgetlessError(f"there is no repair called {quoted(name)}; it may be {', '.join(REPAIRS)}.")
    if name.startswith("importance") and importance is None:
        raise ForgetlessError(f"{name} needs the importance of the base; measure it with `forgetless measure`.")
    if not isinstance(importance, Importance | None):
        raise ForgetlessError(
            f"importance is a {type(importance).__name__}, not an Importance; read a file with Importance.load."
        )
    return REPAIRS[name]


def _numbers(settings: Settings) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(settings).items() if name != "device"}

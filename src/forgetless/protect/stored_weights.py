"""θ* in the files that the model was loaded from, instead of in memory a second time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from forgetless import files
from forgetless.errors import ForgetlessError, quoted
from forgetless.model.parameters import canonical, fingerprint, listing, named
from forgetless.model.sharding import is_sharded


def stored_weights(
    path: str | Path, model: nn.Module, wanted: Iterable[str], marks: Mapping[str, str]
) -> tuple[dict[str, Tensor], list[files.Mapped]]:
    """The weights of `model` in its own safetensors files, mapped, and proven to be those that were measured.

    Args:
        path: `model.safetensors`, `model.safetensors.index.json` or their folder.
        model: the network; its weights may be others by now.
        wanted: the parameters that are asked for.
        marks: parameter → the fingerprint that its weights must have.

    Returns:
        The weights by parameter, in the files' dtype, and the files to look at before each use.

    Raises:
        ForgetlessError: the files lack a parameter, have it in another shape or with other values, no fingerprint says
            what its values must be, or the model is sharded or not on the CPU.
    """
    parameters, foreign = named(model), files.Foreign(path)
    called = _names_in(foreign.names, model, list(wanted))
    if unknown := [name for name in called if name not in marks]:
        raise ForgetlessError(
            f"the importance has no fingerprint of {listing(unknown)}, so that the weights in {path} cannot be told "
            "from others; anchor the model without base=."
        )
    if elsewhere := [name for name in called if is_sharded(parameters[name]) or not parameters[name].is_cpu]:
        raise ForgetlessError(
            f"base= reads θ* from its file in each step, for whole weights on the CPU, which {listing(elsewhere)} "
            "are not; anchor the model without it."
        )
    tensors, mapped = foreign.mapped(list(called.values()))
    found = {name: tensors[stored] for name, stored in called.items()}
    if shapes := [name for name, tensor in found.items() if tensor.shape != parameters[name].shape]:
        raise ForgetlessError(f"{path} is of another model: {listing(shapes)} have other shapes there.")
    if others := [name for name, tensor in found.items() if fingerprint(tensor) != marks[name]]:
        raise ForgetlessError(
            f"the weights in {path} are not those that the importance was measured at: {listing(others)} differ."
        )
    return found, mapped


def _names_in(stored: Iterable[str], model: nn.Module, wanted: list[str]) -> dict[str, str]:
    """Parameter → its name in the files, where a base model has no prefix ("layers.0" for "model.layers.0").

    Raises:
        ForgetlessError: the files have no such name.
    """
    there = set(stored)
    prefix = str(getattr(model, "base_model_prefix", "") or "model") + "."
    aliases: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(canonical(name))
    found = {}
    for name, parameter in named(model).items():
        if name not in wanted:
            continue
        names = [name, *aliases[id(parameter)]]
        tried = [each for one in names for each in (one, one.removeprefix(prefix), prefix + one)]
        match = next((each for each in tried if each in there), None)
        if match is None:
            raise ForgetlessError(f"the base model's files have no {quoted(name)}; name those of the anchored model.")
        found[name] = match
    return found

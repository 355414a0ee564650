"""Which tensors are protected, under which names: `dict[str, Tensor]` throughout the house."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from forgetless.errors import ForgetlessError
from forgetless.errors import listing as listing  # of names of parameters, for whoever has them from here

_WRAPPERS = (
    "module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "_forward_module.",
    "base_model.model.",
    "base_layer.",
)
_PROBED = 1024


def canonical(name: str) -> str:
    """The parameter's name without what DDP, FSDP, torch.compile, Fabric and PEFT put into it."""
    inside = "." + name
    for wrapper in _WRAPPERS:
        while "." + wrapper in inside:
            inside = inside.replace("." + wrapper, ".")
    return inside[1:]


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by canonical name, each tensor once, in the model's order.

    Raises:
        ForgetlessError: two parameters have the same canonical name, which happens where a model calls a part of its
            own as a wrapper does ("a.weight" beside "a.module.weight").
    """
    found: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if canonical(name) in found:
            raise ForgetlessError(
                f"two parameters of {type(model).__name__} are called {canonical(name)!r} once wrappers are left out "
                f"of their names, one of them {name!r}; rename that part of the model."
            )
        found[canonical(name)] = parameter
    return found


def trainable(model: nn.Module, exclude: str | Iterable[str] = ()) -> dict[str, nn.Parameter]:
    """The model's trainable parameters by canonical name, each tensor once, in the model's order.

    Those without elements are left out.

    Args:
        model: any module.
        exclude: names or patterns to leave out: a parameter's name, a module's name (everything under
            it) or a shell pattern ("head", "heads.*", "*.bias").

    Raises:
        ForgetlessError: a pattern that matches no parameter of the model, a parameter without a shape (lazy) or
            partitioned (ZeRO-3); all of `named`'s.
    """
    patterns = patterns_of(exclude)
    parameters = named(model)
    for name, parameter in parameters.items():
        if is_lazy(parameter):
            raise ForgetlessError(f"{name!r} is lazy and has no shape yet; run the model once on a batch first.")
        if hasattr(parameter, "ds_id") and not parameter.numel():
            raise ForgetlessError(
                f"{name!r} is partitioned by DeepSpeed ZeRO-3 (it has a ds_id and no values here); measure inside "
                "deepspeed.zero.GatheredParameters, or a copy of the model that is loaded without it."
            )
    for pattern in patterns:
        if not any(matches(name, pattern) for name in parameters):
            raise ForgetlessError(
                f"exclude={pattern!r} matches no parameter of {type(model).__name__}; "
                f"{_meant(pattern, parameters)}its parameters are {listing(parameters)}."
            )
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.requires_grad and parameter.numel() and not any(matches(name, pattern) for pattern in patterns)
    }


def _meant(pattern: str, names: Iterable[str]) -> str:
    """A suggestion: the modules inside of the model that the pattern would fit, where its name was given in part."""
    inside = [name for name in names if matches(name, f"*.{pattern}") or f".{pattern}." in f".{name}."]
    modules = dict.fromkeys(name[: f".{name}.".index(f".{pattern}.") + len(pattern)] for name in inside)
    return f"did you mean {' or '.join(map(repr, modules))}? " if 0 < len(modules) <= 3 else ""


def within(names: Iterable[str], of: Iterable[str]) -> str | None:
    """The prefix ("model.") under which a part's parameter names are found among those of a whole; None if none is.

    The one under which most of them are, where one stands out.
    """
    found: dict[str, int] = {}
    whole = set(of)
    for name in names:
        for each in whole:
            if each.endswith(f".{name}"):
                prefix = each[: -len(name)]
                found[prefix] = found.get(prefix, 0) + 1
    best = [prefix for prefix, count in found.items() if count == max(found.values())]
    return best[0] if len(best) == 1 else None


def patterns_of(exclude: str | Iterable[str]) -> list[str]:
    """The patterns of `exclude=` as a list.

    Raises:
        ForgetlessError: it is neither a string nor strings.
    """
    patterns = [exclude] if isinstance(exclude, str) else list(exclude) if isinstance(exclude, Iterable) else [exclude]
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ForgetlessError(
                f"exclude takes names or patterns of parameters as strings, not {short(pattern)} "
                f"({type(pattern).__name__})."
            )
    return patterns


def short(value: object, most: int = 80) -> str:
    """A value for an error message, in at most so many characters."""
    try:
        text = repr(value)
    except Exception:  # whatever its class does
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else text[: most - 1] + "…"


def matches(name: str, pattern: str) -> bool:
    """Whether `exclude=pattern` means the parameter: by its name, its module's name, or a shell pattern."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern) or name.startswith(pattern + ".")


def fingerprint(tensor: Tensor) -> str:
    """A short hash of a tensor's values: of at most 1,024 elements evenly spread, whatever its size.

    Tells weights that were trained further from the ones measured, at no cost; it is no proof against forgery. Of a
    DTensor every rank must ask for it.
    """
    with torch.no_grad():
        flat = (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().reshape(-1)
        step = max(1, flat.numel() // _PROBED)
        probed = flat[::step]
        real = torch.view_as_real(probed.resolve_conj()) if probed.is_complex() else probed
        values = real.to("cpu", torch.float32).clone(memory_format=torch.contiguous_format).view(torch.uint8)
    return hashlib.sha256(values.numpy().data).hexdigest()[:16]


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """`fingerprint` of every tensor, by name."""
    return {name: fingerprint(tensor) for name, tensor in tensors.items()}


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, without `torch.compile` and DataParallel-style wrappers around it."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(model, attribute, None)
        wrapper = type(model).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel")
        if wrapper and isinstance(inner, nn.Module):
            return unwrapped(inner)
    return model

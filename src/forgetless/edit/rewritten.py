"""A new checkpoint, made tensor by tensor from others: memory holds one at a time, and what was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.edit.checkpoint import Stored, finite, tied
from forgetless.errors import ForgetlessError, quoted

Made = Callable[[str], tuple[Tensor, Any]]
"""Tensor's name → the tensor, and what there is to say about it, which JSON can hold (None: nothing)."""

Told = Callable[[str, int, int], None]
"""Called with a tensor's name, how many are done and how many there are."""


def rewrite(
    out: str | Path,
    like: Stored,
    sources: Sequence[Stored],
    made: Made,
    *,
    asked: Mapping[str, str],
    dtype: torch.dtype | None = None,
    resume: bool = False,
    progress: Told | None = None,
    report: str | None = None,
    notes: Sequence[str] = (),
    first: Collection[str] = (),
) -> dict[str, Any]:
    """Write a checkpoint with the names, shapes and types of `like`, and its configuration and tokenizer.

    A parameter that is stored under two names (tied) is made once. Floats are written as `dtype`, by default as `like`
    has them.

    Args:
        out: the folder to be: `out.partial` until all is there.
        like: what gives the layout and the files beside the tensors.
        sources: every checkpoint that `made` reads, `like` among them: they tell one request from another.
        made: gives each tensor.
        asked: what else decides the numbers, by name.
        dtype: the type of all floats.
        resume: whether to continue what was stopped.
        progress: told after each tensor.
        report: a JSON file to write beside the tensors: what `made` said of each.
        notes: sentences for that file.
        first: of the names of a parameter that is stored twice, those to make it by, such as the ones that have Ω.

    Returns:
        Tensor → what `made` said of it.

    Raises:
        ForgetlessError: a tensor would hold NaN or Inf, `out` is there already, something else was stopped there,
            another process writes there, or the system does not let it be written; what is finished stays for `resume`.
    """
    layout = {
        name: replace(each, dtype=dtype) if dtype is not None and each.dtype.is_floating_point else each
        for name, each in like.layout.items()
    }
    marks = {f"checkpoint {number}": each.mark() for number, each in enumerate(sources, 1)}
    others = [each for each in sources if each is not like]
    with files.Streamed(Path(out), layout, {**marks, **asked, "--dtype": str(dtype)}, resume) as streamed:
        shared = tied(like, *others, first=first) if streamed.missing() else {}
        if progress and streamed.noted:
            progress("", len(streamed.noted), len(layout))
        for name in sorted(streamed.missing(), key=lambda name: name in shared):  # what stands for others before them
            if name in shared:
                streamed.put(name, streamed.get(shared[name]))
            else:
                tensor, said = made(name)
                tensor = tensor.to(layout[name].dtype)
                refuse_overflow(name, tensor)
                streamed.put(name, tensor, said)
                del tensor
            if progress:
                progress(name, len(streamed.noted), len(layout))
        said_of = {name: streamed.noted[name] for name in layout if streamed.noted[name] is not None}
        beside: dict[str, Path | bytes] = dict(like.beside())
        if dtype is not None and "config.json" in beside:
            beside["config.json"] = _typed(like.config, dtype)
        if report is not None:
            noted = {"notes": list(notes)} if notes else {}
            beside[report] = (files.written({**asked, **noted, "tensors": said_of}, report) + "\n").encode()
        streamed.finish(beside)
    return said_of


def _typed(config: Mapping[str, Any], dtype: torch.dtype) -> bytes:
    """The configuration with the type that the weights have now, under the names that it had."""
    called = {"dtype", "torch_dtype"} & config.keys()
    changed = {**config, **dict.fromkeys(called, str(dtype).removeprefix("torch."))}
    return (json.dumps(changed, indent=2) + "\n").encode()


def refuse_overflow(name: str, tensor: Tensor) -> None:
    """Refuse a result that is not finite.

    Raises:
        ForgetlessError: it holds NaN or Inf.
    """
    if tensor.is_floating_point() and not finite(tensor):
        raise ForgetlessError(
            f"{quoted(name)} would hold NaN or Inf as {str(tensor.dtype).removeprefix('torch.')}; edit checkpoints of "
            "a wider type, or with weaker settings."
        )

"""A new checkpoint, made tensor by tensor from others: memory holds one at a time, and what was stopped goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.edit.checkpoint import Stored, tied

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

    Returns:
        Tensor → what `made` said of it.

    Raises:
        ForgetlessError: `out` is there already, something else was stopped there, or the system does not let it be
            written; what is finished stays for `resume`.
    """
    layout = {
        name: replace(each, dtype=dtype) if dtype is not None and each.dtype.is_floating_point else each
        for name, each in like.layout.items()
    }
    marks = {f"checkpoint {number}": each.mark() for number, each in enumerate(sources, 1)}
    streamed = files.Streamed(Path(out), layout, {**marks, **asked, "--dtype": str(dtype)}, resume)
    shared = tied(*sources) if streamed.missing() else {}
    if progress and streamed.noted:
        progress("", len(streamed.noted), len(layout))
    for name in streamed.missing():
        if name in shared:
            streamed.put(name, streamed.get(shared[name]))
        else:
            tensor, said = made(name)
            streamed.put(name, tensor.to(layout[name].dtype), said)
            del tensor
        if progress:
            progress(name, len(streamed.noted), len(layout))
    said_of = {name: streamed.noted[name] for name in layout if streamed.noted[name] is not None}
    others: dict[str, Path | bytes] = dict(like.beside())
    if dtype is not None and "config.json" in others:
        others["config.json"] = _typed(like.config, dtype)
    if report is not None:
        others[report] = (files.written({**asked, "tensors": said_of}, report) + "\n").encode()
    streamed.finish(others)
    return said_of


def _typed(config: Mapping[str, Any], dtype: torch.dtype) -> bytes:
    """The configuration with the type that the weights have now, under the names that it had."""
    called = {"dtype", "torch_dtype"} & config.keys()
    changed = {**config, **dict.fromkeys(called, str(dtype).removeprefix("torch."))}
    return (files.written(changed, "config.json") + "\n").encode()

"""How long `forgetless learn` would take and how much memory, from one measured batch and one step that are tried."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import torch

from forgetless.lab.finetuning.training import Training
from forgetless.model.parameters import trainable

_COPIES = 3  # of what is trained: its gradients and Adam's two averages


def estimate(training: Training, *, compare: bool) -> dict[str, Any]:
    """Try a measured batch and a step; the model is of no use afterwards.

    Args:
        training: what would be done.
        compare: whether fine-tuning without protection would be run too.

    Returns:
        `steps`, `seconds`, `parameters`, and in bytes `memory` (weights, gradients, the optimizer's averages, and of
        protection θ* and Ω, or a copy of the model; without activations) and `peak`, what this process has needed while
        it tried.
    """
    plan = training.plan
    begun = time.perf_counter()
    training.figures()
    judging = time.perf_counter() - begun
    measuring = _measuring(training) if plan.method == "mas" and training.old is not None else 0.0
    weights, trained = list(training.network.parameters()), trainable(training.network).values()
    protected = 4 * sum(each.numel() for each in trained) * (1 if plan.lora else 2)
    if plan.method == "distillation":
        protected = 0 if plan.lora else _bytes([*weights, *training.network.buffers()])
    elif plan.method == "finetune":
        protected = 0
    step = training.try_step(plan.method)
    beside = training.try_step("finetune") if compare else 0.0
    if plan.lora:
        trained = trainable(training.network).values()
    runs = 2 if compare else 1
    return {
        "steps": training.steps,
        "seconds": round(measuring + training.steps * (step + beside) + runs * 2 * judging, 1),
        "parameters": sum(each.numel() for each in weights),
        "memory": _bytes(weights) + _COPIES * _bytes(trained) + protected,
        "peak": _peak(),
    }


def _measuring(training: Training) -> float:
    """The seconds to measure all: the first batch costs more than the others."""
    assert training.old is not None
    read = training.batches_of(training.old)
    seconds: list[float] = []
    with training.measurement() as measurement:
        for _, batch in zip(range(3), read, strict=False):
            begun = time.perf_counter()
            measurement.add(training.on_device(batch))
            seconds.append(time.perf_counter() - begun)
    return sum(seconds) + seconds[-1] * (len(read) - len(seconds))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _peak() -> int:
    """The most bytes that were in use: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource  # absent on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

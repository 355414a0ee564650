"""What `forgetless.mas` and the pull cost beside plain training: ratios of times, and peak memory.

Plain is one forward and backward pass of ‖F‖² over the same batch. Ours is the steady state of a measurement, a batch
at a time; its start (two samples in two ways, hashes of the weights) is a figure of its own. Both take turns, and the
figure is the median of the ratios of each turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import Anchor, Importance, Measurement
from scripts.on_gpu import networks
from scripts.on_gpu.checking import Check, Failed, Figures, Setting
from scripts.on_gpu.exactness import DTYPES

REPEATS = 12


def _repeats(setting: Setting) -> int:
    return 2 if setting.quick else REPEATS


def resnet(setting: Setting, channels_last: bool) -> tuple[nn.Module, Tensor]:
    """ResNet-18, 64 pictures of 224 × 224."""
    x = networks.images(setting, 4 if setting.quick else 64, 32 if setting.quick else 224)
    model = networks.settled(networks.resnet18().to(setting.device), x)
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    return model, x


def gpt(setting: Setting) -> tuple[nn.Module, Tensor]:
    """A GPT of 136 million parameters (12 layers of width 768, 65,536 tokens, tied head), 8 sequences of 512 tokens."""
    if setting.quick:
        return networks.small_gpt().to(setting.device).eval(), networks.tokens(setting, 2, 16, 97)
    model = networks.GPT(65_536, 768, 12, 12, 512).to(setting.device).eval()
    return model, networks.tokens(setting, 8, 512, 65_536)


NETWORKS: dict[str, Callable[[Setting], tuple[nn.Module, Tensor]]] = {
    "ResNet-18, 64 × 224 px": partial(resnet, channels_last=False),
    "ResNet-18, 64 × 224 px, channels_last": partial(resnet, channels_last=True),
    "GPT 136M, 8 × 512 tokens": gpt,
}


def measuring(setting: Setting, network: str, dtype: str, mode: str = "eager") -> Figures:
    """Time and peak memory of `Measurement.add` ÷ those of plain."""
    model, x = NETWORKS[network](setting)
    amp = partial(torch.autocast, setting.device.type, DTYPES[dtype], enabled=mode == "autocast")
    if mode == "eager":
        model = model.to(DTYPES[dtype])
        x = x.to(DTYPES[dtype]) if x.is_floating_point() else x
    parameters = list(model.parameters())

    def plain() -> None:
        with amp():
            output = model(x)
            wide = output if output.element_size() >= 4 else output.float()
            torch.autograd.grad(wide.square().sum(), parameters)

    figures: Figures = {"parameters": sum(p.numel() for p in parameters)}
    plain()
    figures["plain peak MiB"] = _peak(setting, plain)
    for title, size in (("", None), (" (whole batch)", len(x))):
        with Measurement(model, batch_size=size) as measurement:

            def ours(measurement: Measurement = measurement) -> None:
                with amp():
                    measurement.add(x)

            begin = time.perf_counter()
            started = _peak(setting, ours)
            start = time.perf_counter() - begin
            steady = _peak(setting, ours)
            plain()
            times = [(_seconds(setting, plain), _seconds(setting, ours)) for _ in range(_repeats(setting))]
        figures |= {
            f"time ÷ plain{title}": statistics.median(mine / theirs for theirs, mine in times),
            f"lowest{title}": min(mine / theirs for theirs, mine in times),
            f"highest{title}": max(mine / theirs for theirs, mine in times),
            "plain ms": 1000 * statistics.median(theirs for theirs, _ in times),
            f"start ms{title}": 1000 * start,
            f"start peak MiB{title}": started,
            f"peak MiB{title}": steady,
        }
        if size is None:
            figures["first batch ÷ plain"] = 1000 * start / figures["plain ms"]
    return figures


def stepping(setting: Setting, network: str, form: dict[str, Any], kind: str = "AdamW") -> Figures:
    """Time and memory of `optimizer.step()` with the pull ÷ without, and ÷ a whole training step."""
    model, x = NETWORKS[network](setting)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-6, **form)

    def backward() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()

    for _ in range(2):
        backward()
        optimizer.step()
    repeats = _repeats(setting)
    train = statistics.median(_seconds(setting, backward) for _ in range(repeats))
    without = statistics.median(_seconds(setting, optimizer.step) for _ in range(repeats))
    held = torch.cuda.memory_allocated() if setting.cuda else 0
    omega = {name: torch.rand_like(parameter) for name, parameter in model.named_parameters()}
    anchor = Anchor(model, Importance(omega, 1.0), 1e-3)
    del omega
    anchor.attach(optimizer)
    kept = torch.cuda.memory_allocated() - held if setting.cuda else 0
    optimizer.step()
    pulled = statistics.median(_seconds(setting, optimizer.step) for _ in range(repeats))
    temporary = _peak(setting, optimizer.step)
    anchor.detach()
    return {
        "step ms": 1000 * without,
        "with the pull ms": 1000 * pulled,
        "step ÷ step without": pulled / without,
        "training step ÷ without": (train + pulled) / (train + without),
        "kept MiB": kept / 2**20,
        "temporary MiB": temporary,
    }


def _seconds(setting: Setting, work: Callable[[], Any]) -> float:
    """By events on the device's own clock; on a CPU by the wall."""
    if not setting.cuda:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def _peak(setting: Setting, work: Callable[[], Any]) -> float:
    """MiB above what was held before; NaN on a CPU."""
    if not setting.cuda:
        work()
        return float("nan")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def flat(setting: Setting) -> Figures:
    """Nothing of a measurement stays on the device when it is gone."""
    setting.need_cuda("counting the device's memory")
    model, x = NETWORKS["ResNet-18, 64 × 224 px"](setting)
    x = x[:8]
    held = []
    for _ in range(3):
        measurement = Measurement(model)
        measurement.add(x)
        del measurement
        setting.wait()
        held.append(torch.cuda.memory_allocated())
    figures = {"MiB left over": (held[-1] - held[0]) / 2**20}
    if held[-1] > held[0]:
        raise Failed("memory is held after a measurement is gone", figures)
    return figures


def _measuring(network: str, dtype: str, mode: str = "eager") -> Check:
    run = partial(measuring, network=network, dtype=dtype, mode=mode)
    return Check(f"cost of mas, {network}, {dtype}, {mode}", run)


CHECKS = [
    _measuring("GPT 136M, 8 × 512 tokens", "bf16"),
    _measuring("GPT 136M, 8 × 512 tokens", "fp32"),
    _measuring("ResNet-18, 64 × 224 px", "fp32"),
    _measuring("ResNet-18, 64 × 224 px", "bf16"),
    _measuring("ResNet-18, 64 × 224 px, channels_last", "bf16"),
    _measuring("GPT 136M, 8 × 512 tokens", "bf16", "autocast"),
    *(
        Check(f"cost of the pull, {network}, {kind}, {title}", partial(stepping, network=network, form=form, kind=kind))
        for network in ("ResNet-18, 64 × 224 px", "GPT 136M, 8 × 512 tokens")
        for kind, title, form in (
            ("AdamW", "fused", {"fused": True}),
            ("SGD", "foreach", {"foreach": True, "momentum": 0.9}),
        )
    ),
    Check("memory after a measurement", flat),
]

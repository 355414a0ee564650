"""Where things are and when they run: streams, devices, memory of the host, FSDP2 on one process, `Measurement`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import forgetless
from forgetless import Anchor, Importance, Measurement
from scripts.on_gpu import networks
from scripts.on_gpu.checking import Check, Failed, Figures, NotRun, Setting
from scripts.on_gpu.exactness import exactly, worst
from scripts.on_gpu.pull import LAG, Quadratic, optimizer_of

SAME = 1e-5  # between two measurements of one network in float32 that only round differently


def _model(setting: Setting) -> nn.Module:
    torch.manual_seed(0)
    return networks.convnet().to(setting.device).eval()


def _mas(model: nn.Module, data: Any, **options: Any) -> dict[str, Tensor]:
    with exactly():
        return forgetless.mas(model, data, progress=False, **options).sums


def _alike(found: dict[str, Tensor], expected: dict[str, Tensor], what: str, tolerance: float = SAME) -> Figures:
    error = worst(found, {name: total.double() for name, total in expected.items()})
    if not error <= tolerance:
        raise Failed(what, {"error": error})
    return {"error": error}


def side_stream(setting: Setting) -> Figures:
    """Samples made late on a side stream, measured there, beside work on the default stream."""
    setting.need_cuda("a stream")
    model, x = _model(setting), networks.images(setting, 16, 16)
    expected = _mas(model, x)
    setting.wait()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(200_000_000)  # about 0.1 s
        late.copy_(x)
        found = _mas(model, late)
    stream.synchronize()
    return _alike(found, expected, "a measurement on a side stream reads samples before they are there")


def pull_on_side_stream(setting: Setting) -> Figures:
    """Steps whose gradients come late on a side stream: the pull must wait for them as the optimizer does."""
    setting.need_cuda("a stream")
    ends = []
    for late in (False, True):
        problem = Quadratic(setting.device)
        optimizer = optimizer_of("AdamW", problem, "fused")
        problem.anchor().attach(optimizer)
        setting.wait()
        with torch.cuda.stream(torch.cuda.Stream()) if late else contextlib.nullcontext():
            for _ in range(10):
                problem.differentiate()
                if late:
                    torch.cuda._sleep(5_000_000)
                optimizer.step()
        setting.wait()
        ends.append(problem.theta.detach())
    gap = float((ends[1] - ends[0]).abs().max())
    if not gap <= LAG:
        raise Failed("the pull on a side stream differs", {"max difference": gap})
    return {"max difference": gap}


def host_batches(setting: Setting) -> Figures:
    """Batches that lie on the CPU, in pageable and in pinned memory, for a model on the device."""
    model, x = _model(setting), networks.images(setting, 16, 16)
    expected, figures = _mas(model, x), {}
    for title, batch in {"pageable": x.cpu(), "pinned": x.cpu().pin_memory() if setting.cuda else x.cpu()}.items():
        found = _mas(model, batch)
        if any(total.device != setting.device for total in found.values()):
            raise Failed(f"Ω of a {title} batch is not on the model's device")
        figures[title] = _alike(found, expected, f"a {title} batch is measured otherwise")["error"]
    return figures


def refilled(setting: Setting) -> Figures:
    """A loader that fills one pinned buffer again and again, while the device lags behind."""
    model, x = _model(setting), networks.images(setting, 24, 16)
    buffer = torch.empty(4, *x.shape[1:], pin_memory=setting.cuda)
    pieces = x.cpu().split(4)

    def loader() -> Iterator[Tensor]:
        for piece in pieces:
            buffer.copy_(piece)
            if setting.cuda:
                torch.cuda._sleep(20_000_000)
            yield buffer

    found = _mas(model, loader())
    return _alike(found, _mas(model, x), "a pinned buffer that is filled again is read too late")


def other_device(setting: Setting) -> Figures:
    """A model on the second GPU while the first is the current one: measured, pulled, and its random state left."""
    setting.need_cuda("a second GPU")
    if torch.cuda.device_count() < 2:
        raise NotRun("there is one GPU")
    second = Setting(torch.device("cuda:1"), setting.quick)
    expected = _mas(_model(setting), networks.images(setting, 8, 16).cpu().fill_(0.5))
    found = _mas(_model(second), networks.images(second, 8, 16).fill_(0.5))
    if any(total.device != second.device for total in found.values()):
        raise Failed("Ω is on another device than the model")
    problem = Quadratic(second.device)
    optimizer = optimizer_of("AdamW", problem, "fused")
    problem.anchor().attach(optimizer)
    problem.differentiate()
    optimizer.step()
    return _alike({name: total.to(setting.device) for name, total in found.items()}, expected, "another Ω on cuda:1")


def as_found(setting: Setting) -> Figures:
    """Weights, buffers, modes, gradients and random states (the device's too) are bit for bit as before."""
    model = nn.Sequential(networks.convnet(), nn.Dropout(0.5), nn.Linear(10, 10)).to(setting.device).train()
    model[0][0].eval()
    model(networks.images(setting, 4, 16)).sum().backward()

    def state() -> list[Any]:
        tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
        random = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if setting.cuda else [])]
        return [each.detach().clone() for each in [*tensors, *random]]

    x = networks.images(setting, 8, 16)
    before, modes = state(), [module.training for module in model.modules()]
    forgetless.mas(model, x, progress=False)
    forgetless.local_mas(model, x, progress=False)
    unlike = sum(not torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    if unlike or modes != [module.training for module in model.modules()]:
        raise Failed("the model is not as it was found", {"tensors changed": unlike})
    return {"tensors compared": len(before)}


def autocast_cache(setting: Setting) -> Figures:
    """A training step in the same autocast region as a measurement has the gradients of one in a region of its own."""
    model, x = networks.mlp().to(setting.device), torch.randn(13, 32, device=setting.device)
    found = []
    for measured in (False, True):
        with torch.autocast(setting.device.type, torch.bfloat16):
            if measured:
                forgetless.mas(model, x, progress=False)
            value = model(x).float().square().sum()
        gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        found.append(gradients)
    lost = sum(gradient is None for gradient in found[1])
    if lost or not all(torch.equal(a, b) for a, b in zip(*found, strict=True)):
        raise Failed("after a measurement, a step in the same autocast region lacks gradients", {"parameters": lost})
    return {"gradients compared": len(found[0])}


def through_files(setting: Setting) -> Figures:
    """Ω and an anchor through their files, read on the CPU, used on the device."""
    model, x = _model(setting), networks.images(setting, 8, 16)
    measured = forgetless.mas(model, x, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        measured.save(Path(folder) / "omega")
        read = Importance.load(Path(folder) / "omega")
        Anchor(model, read, 3.0).save(Path(folder) / "anchor")
        anchor = Anchor.load(Path(folder) / "anchor", model)
    figures = _alike(
        {name: each.to(setting.device) for name, each in read.sums.items()}, measured.sums, "another Ω", 0.0
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    anchor.attach(optimizer)
    model(x).square().sum().backward()
    optimizer.step()
    if any(each.weights.device != setting.device for each in anchor.anchored().values()):
        raise Failed("θ* is not on the model's device")
    return figures


def streamed(setting: Setting) -> Figures:
    """`Measurement` over batches of unequal size is the measurement of all at once, at flat memory."""
    model, x = _model(setting), networks.images(setting, 40, 16)
    measurement, apart = Measurement(model), Measurement(model)
    with exactly():
        for piece in x.split([1, 7, 16, 2, 14]):
            apart.add(piece)
        with measurement:
            for piece in x.split(8):
                measurement.add(piece)
        figures = _alike(measurement.importance().sums, _mas(model, x), "a stream of batches is measured otherwise")
        _alike(apart.importance().sums, _mas(model, x), "batches of unequal size are measured otherwise")
    if setting.cuda:
        piece, held = x[:8].clone(), []
        with measurement:
            for _ in range(40):
                measurement.add(piece)
                held.append(torch.cuda.memory_allocated())
        figures["bytes gained in 30 batches"] = held[-1] - held[9]
        if held[-1] > held[9]:
            raise Failed("memory grows with every batch", figures)
    return figures


def fsdp(setting: Setting) -> Figures:
    """FSDP2 over one process: Ω, and three pulled steps, are those of the unsharded network."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with _process_group(setting):
        mesh = init_device_mesh(setting.device.type, (1,))
        whole, shards = (_gpt(setting) for _ in range(2))
        for layer in shards.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(shards, mesh=mesh)
        x = networks.tokens(setting, 6, 24, 97)
        expected = forgetless.mas(whole, x, progress=False)
        found = forgetless.mas(shards, x, progress=False)
        full = {name: total.full_tensor() for name, total in found.sums.items()}
        figures = _alike(full, expected.sums, "Ω of the sharded network is another")
        ways = []
        for model, importance in ((whole, expected), (shards, found)):
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            Anchor(model, importance, 1e-6).attach(optimizer)
            start = {name: whole_of(p).detach().clone() for name, p in model.named_parameters()}
            for _ in range(3):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
            ways.append({name: whole_of(p).detach() - start[name] for name, p in model.named_parameters()})
        # Adam divides rounding by rounding where a gradient is next to nothing.
        figures["way of 3 steps"] = _alike(ways[1], ways[0], "three pulled steps lead elsewhere", 1e-2)["error"]
        figures["way"] = float(torch.cat([way.flatten() for way in ways[0].values()]).abs().max())
        return figures


def whole_of(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def fsdp_local_mas(setting: Setting) -> Figures:
    """Local MAS of a sharded network is refused by a sentence."""
    from torch.distributed.fsdp import fully_shard

    with _process_group(setting):
        model = fully_shard(_gpt(setting))
        forgetless.local_mas(model, networks.tokens(setting, 4, 24, 97), progress=False)
    raise Failed("local_mas measured a sharded network, which it says it cannot")


def two_devices(setting: Setting) -> Figures:
    """A model that is on two devices is refused by a sentence."""
    setting.need_cuda("a model on two devices")
    model = nn.Sequential(nn.Linear(4, 4).to(setting.device), nn.Linear(4, 4))
    forgetless.mas(model, torch.randn(3, 4), progress=False)
    raise Failed("measured a model that is on two devices")


def _gpt(setting: Setting) -> networks.GPT:
    torch.manual_seed(0)
    return networks.small_gpt().to(setting.device).eval()


@contextlib.contextmanager
def _process_group(setting: Setting) -> Iterator[None]:
    """One process, without a network."""
    if not dist.is_available():
        raise NotRun("this torch has no torch.distributed")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if setting.cuda:
        torch.cuda.set_device(setting.device)
    dist.init_process_group("nccl" if setting.cuda else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


CHECKS = [
    Check("batches on the CPU", host_batches),
    Check("a pinned buffer filled again and again", refilled),
    Check("a measurement on a side stream", side_stream),
    Check("the pull on a side stream", pull_on_side_stream),
    Check("a model on the second GPU", other_device),
    Check("a model on two devices", two_devices, may_refuse=True),
    Check("the model is left as found", as_found),
    Check("gradients after a measurement in one autocast region", autocast_cache),
    Check("Ω and anchors through files", through_files),
    Check("Measurement, batches of unequal size", streamed),
    Check("FSDP2 on one process", fsdp),
    Check("FSDP2 on one process, local_mas", fsdp_local_mas, may_refuse=True),
]

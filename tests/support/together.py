"""What the processes of the tests of `forgetless.model.ranks` do; each function runs in every process."""

from __future__ import annotations

import copy
import itertools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import forgetless
from exactness import worst
from forgetless import Importance
from forgetless.measure.estimators.fisher import fisher
from forgetless.measure.estimators.local_mas import local_mas
from forgetless.model.sharding import resharded

# ---- networks


class Block(nn.Module):
    """A residual block with a scale, perhaps run again in the backward pass to save memory."""

    def __init__(self, width: int, again: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width + 1)
        self.outer = nn.Linear(width + 1, width)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, width))
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        if self.again:
            return checkpoint(self.compute, x, use_reentrant=False)
        return self.compute(x)

    def compute(self, x: Tensor) -> Tensor:
        return x + self.scale * self.outer(torch.relu(self.inner(self.norm(x))))


class Residual(nn.Module):
    """Blocks between two linear maps: one frozen bias, one parameter that takes no part, uneven shards."""

    def __init__(self, again: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(3, 7)
        self.blocks = nn.ModuleList([Block(7, again) for _ in range(2)])
        self.last = nn.Linear(7, 3)
        self.idle = nn.Parameter(torch.ones(3))
        self.first.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class Convolutional(nn.Sequential):
    """Convolutions with batch norm, whose statistics are not those of a new network."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        norm = nn.BatchNorm2d(5)
        norm.running_mean = torch.linspace(-0.3, 0.3, 5)
        norm.running_var = torch.linspace(0.5, 2.0, 5)
        self.body = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(5, 4, 3, stride=2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Language(nn.Module):
    """A small language model: a table of positions, a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.places = nn.Parameter(torch.randn(1, 5, 6) * 0.1)
        self.blocks = nn.ModuleList([Attention(6) for _ in range(2)])
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places[:, : ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Centers(nn.Module):
    """Distances to centers, by an operation that no rule serves, between layers that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = nn.ModuleList([Block(4)])
        self.centers = nn.Parameter(torch.randn(5, 4))
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cdist(self.blocks[0](self.first(x)), self.centers))


def vectors(samples: int) -> Tensor:
    return torch.randn(samples, 3, generator=torch.Generator().manual_seed(1))


def pictures(samples: int) -> Tensor:
    return torch.randn(samples, 2, 8, 8, generator=torch.Generator().manual_seed(2))


def texts(samples: int) -> Tensor:
    return torch.randint(0, 11, (samples, 5), generator=torch.Generator().manual_seed(3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "residual": (Residual, vectors),
    "checkpointed": (partial(Residual, True), vectors),
    "convolutional": (Convolutional, pictures),
    "language": (Language, texts),
    "centers": (Centers, vectors),
}
ESTIMATORS: dict[str, Callable[..., Importance]] = {
    "mas": forgetless.mas,
    "vector": partial(forgetless.mas, form="vector"),
    "local-mas": local_mas,
    "sampled": partial(fisher, labels="sampled"),
    "expected": partial(fisher, labels="expected"),
}


def network(name: str) -> nn.Module:
    """The same network in every process."""
    torch.manual_seed(0)
    return NETWORKS[name][0]()


def wrapped(model: nn.Module, how: str) -> nn.Module:
    if how == "ddp":
        return DistributedDataParallel(model, find_unused_parameters=True)
    for block in [*model.blocks, *getattr(model, "body", [])]:
        if len(list(block.parameters())):
            fully_shard(block)
    return fully_shard(model, reshard_after_forward=how == "fsdp, resharded")


# ---- data: what each rank has of the samples

SAMPLES = 15


def even(rank: int, samples: Tensor) -> Any:
    """Every other sample, as a DistributedSampler gives them."""
    return [*samples[rank::2].split(4)]


def uneven(rank: int, samples: Tensor) -> Any:
    cut = 3 * len(samples) // 4
    return [*(samples[:cut] if rank else samples[cut:]).split(3)]


def empty(rank: int, samples: Tensor) -> Any:
    """The second process has nothing; batches with nothing in them are between the first one's."""
    return [] if rank else [samples[:0], *samples.split(8), samples[:0]]


def one_batch(rank: int, samples: Tensor) -> Any:
    return samples[: len(samples) // 3] if rank else samples[len(samples) // 3 :]


def singles(rank: int, samples: Tensor) -> Any:
    """Batches of one sample, then larger ones."""
    return [samples[:1], samples[1:4]] if rank else [samples[4:5], samples[5:6], *samples[6:].split(5)]


SHARES = {"even": even, "uneven": uneven, "empty": empty, "one batch": one_batch, "singles": singles}


def compare(rank: int, name: str, how: str, share: str, estimator: str = "mas", **options: Any) -> dict[str, Any]:
    """How far what the processes find together is from what one finds alone, and what they leave behind."""
    samples = NETWORKS[name][1](SAMPLES if estimator == "mas" else 9)
    measure = partial(ESTIMATORS[estimator], progress=False)
    expected = measure(network(name), samples, **options)
    model = wrapped(network(name), how)
    with torch.no_grad():
        inner(model).eval()(samples[:2])  # FSDP sets its hooks for state dicts when it first runs
    before = state(resharded(model.train()))
    found = measure(model, SHARES[share](rank, samples), **options)
    after = state(model)
    changed = [what for what in before if before[what] != after[what]]
    whole = found.whole()
    return {
        "error": worst(whole, expected),
        "unused": found.unused == expected.unused,
        "weights": found.weights == expected.weights,
        "unchanged": changed == [] or changed,
        "placed": all(placed(found.sums[n], p) for n, p in forgetless.model.parameters.trainable(inner(model)).items()),
    }


def inner(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def placed(total: Tensor, parameter: Tensor) -> bool:
    """Whether Ω is where its parameter is."""
    if not isinstance(parameter, DTensor):
        return not isinstance(total, DTensor) and total.shape == parameter.shape
    same = isinstance(total, DTensor) and total.placements == parameter.placements
    return bool(same and total.to_local().shape == parameter.to_local().shape)


def state(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that measuring must leave as it was."""
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    local = {n: p.to_local() if isinstance(p, DTensor) else p.data for n, p in parameters.items()}
    return {
        "parameters": {n: (id(p), p.requires_grad, p.grad is None, sorted(vars(p))) for n, p in parameters.items()},
        "values": {name: tensor.detach().flatten().tolist() for name, tensor in local.items()},
        "buffers": {name: (id(tensor), tensor.flatten().tolist()) for name, tensor in model.named_buffers()},
        "modes": {name: module.training for name, module in modules.items()},
        "hooks": {n: [sorted(v) for k, v in vars(m).items() if k.endswith("_hooks")] for n, m in modules.items()},
        "random": torch.get_rng_state().tolist(),
    }


def trained(model: nn.Module, samples: Tensor, steps: int = 2) -> list[Any]:
    """The weights after a few steps."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(samples).square().mean().backward()
        optimizer.step()
    return [(p.full_tensor() if isinstance(p, DTensor) else p).detach().flatten().tolist() for p in model.parameters()]


def train_after(rank: int, name: str, how: str) -> list[bool]:
    """Whether training goes on after a measurement, and after one that was broken off, as if there had been none."""
    samples = NETWORKS[name][1](SAMPLES)
    mine = SHARES["uneven"](rank, samples)
    fresh = trained(wrapped(network(name), how), samples[rank::2])
    model = wrapped(network(name), how)
    forgetless.mas(model, mine, progress=False)
    same = trained(model, samples[rank::2]) == fresh
    model = wrapped(network(name), how)
    try:
        forgetless.mas(model, [*mine[:2], samples[:2, :2]], progress=False)  # too narrow: fails in the forward pass
    except RuntimeError:
        return [same, trained(model, samples[rank::2]) == fresh]
    return [same, False]


def said(rank: int, kind: str, how: str) -> str:
    """The sentence that each process refuses with when only one of them meets what cannot be measured."""
    samples = NETWORKS["residual"][1](SAMPLES)
    mine = [*samples.split(7)]
    model = wrapped(network("residual"), how)
    if kind == "NaN" and rank == 1:
        mine[1] = torch.full_like(mine[1], torch.nan)
    if kind == "overflow" and rank == 1:
        mine[2] = torch.full_like(mine[2], 1e30)
    if kind == "loader" and rank == 1:
        mine = (broken(batch, n) for n, batch in enumerate(mine))
    if kind == "weights" and rank == 1:
        with torch.no_grad():
            (model.module if how == "ddp" else model).last.weight.fill_(torch.nan)
    if kind == "no data":
        mine = []
    options = {"into": None if rank else forgetless.mas(network("residual"), samples)} if kind == "into" else {}
    try:
        forgetless.mas(model, mine, progress=False, **options)
    except (forgetless.ForgetlessError, OSError) as error:
        forgetless.mas(wrapped(network("residual"), how), samples, progress=False)  # the processes are still together
        return f"{error}"
    return "nothing"


def broken(batch: Tensor, number: int) -> Tensor:
    if number == 1:
        raise OSError("the disk is gone")
    return batch


class Routed(nn.Module):
    """Uses its parameters in an order, and by operations, that depend on how long its samples are."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.rare = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.centers = nn.Parameter(torch.randn(4, 3))
        self.blocks = nn.ModuleList([nn.Linear(3, 3)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](x)
        if x.shape[1] == 4:
            return self.left(self.right(x).tanh())
        x = self.right(self.left(x).tanh())
        if x.shape[1] == 5:
            x = self.rare(x) + self.centers.mean()
        if x.shape[1] == 6:
            x = torch.cdist(x, self.centers)
        return x


def packed(rank: int, how: str, estimator: str) -> dict[str, Any]:
    """The error where every process has packed rows, of other numbers of documents and of lengths."""
    ids = texts(7)[:, :3]
    rows = [[3, 1, 2], [2, 3], [3], [2, 2, 3]]
    data = []
    for row, lengths in enumerate(rows):
        documents = [ids[(row + k) % 7, :n] for k, n in enumerate(lengths)]
        positions = torch.cat([torch.arange(n) for n in lengths])
        data.append({"input_ids": torch.cat(documents)[None], "position_ids": positions[None]})
        data[-1]["attention_mask"] = torch.ones_like(data[-1]["input_ids"])
    options = {"forward": lambda model, batch: model(batch["input_ids"]), "mask": None, "progress": False}
    found = ESTIMATORS[estimator](wrapped(network("language"), how), data[rank::2], **options)
    return {"count": found.count, "error": gap(found, ESTIMATORS[estimator](network("language"), data, **options))}


def routed(rank: int, lengths: tuple[tuple[int, ...], ...]) -> float:
    """The error where the processes' batches take different ways through the network."""

    def batch(length: int, seed: int) -> Tensor:
        return torch.randn(3, length, 3, generator=torch.Generator().manual_seed(seed))

    batches = [[batch(length, 10 * r + n) for n, length in enumerate(each)] for r, each in enumerate(lengths)]
    torch.manual_seed(0)
    model = Routed()
    expected = forgetless.mas(copy.deepcopy(model), [*itertools.chain(*batches)], progress=False)
    found = forgetless.mas(wrapped(model, "fsdp"), batches[rank], progress=False)
    assert found.unused == expected.unused
    return worst(found.whole(), expected)


def sure(rank: int, how: str) -> dict[str, Any]:
    """How a pass over endless data ends, goes on, and is kept in a file."""

    def endless(seed: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randn(8 + 3 * rank, 3, generator=generator)

    model = wrapped(network("residual"), how)
    found = forgetless.mas(model, endless(rank), until=0.2, progress=False)
    further = forgetless.mas(model, endless(5 + rank), until=0.12, into=found, progress=False)
    return {
        "count": (found.count, further.count),
        "error": max(found.error().values()),
        "further": max(further.error().values()),
        "overlap": further.overlap(0.1),
        "same": all(abs(further.whole().error()[name] - error) < 1e-3 for name, error in further.error().items()),
    }


def gap(found: Importance, expected: Importance) -> float:
    """The largest error, in whatever order the parameters are."""
    sums = {name: found.whole().sums[name] for name in expected.sums}
    return worst(replace(found, sums=sums, confidence=None), replace(expected.whole(), confidence=None))


def kept(rank: int, how: str, folder: str) -> list[bool]:
    """Whether what was saved is what was measured, and a pass goes on from it."""
    samples = NETWORKS["residual"][1](SAMPLES)
    model = wrapped(network("residual"), how)
    mine = SHARES["even"](rank, samples)
    whole = forgetless.mas(model, mine, progress=False)
    part = forgetless.mas(model, mine[:1], until=0.9, progress=False)
    part.save(f"{folder}/i.safetensors")
    loaded = Importance.load(f"{folder}/i.safetensors")
    rest = forgetless.mas(model, mine[1:], into=loaded, progress=False)
    alone = forgetless.mas(network("residual"), torch.cat([samples[0::2][:4], samples[1::2][:4]]), progress=False)
    return [
        all(torch.equal(loaded.sums[name], part.whole().sums[name]) for name in part.sums),
        loaded.error() == part.error(),
        loaded.weights == part.weights,
        gap(loaded, alone) <= 1e-6,
        gap(rest, whole) <= 1e-6,
        all(placed(rest.sums[name], whole.sums[name]) for name in rest.sums),
        gap(part.merge(part), loaded.merge(loaded)) == 0,
        gap(loaded.sharded_like(model), loaded) == 0,
    ]


def refused(rank: int, kind: str) -> str:
    """The sentence for a model that cannot be measured by several processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    model = network("residual")
    samples = NETWORKS["residual"][1](SAMPLES)
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("dp", "tp"))
    if kind == "ddp inside":
        model.last = DistributedDataParallel(model.last)
    if kind == "fsdp1":
        model = FullyShardedDataParallel(nn.Linear(3, 2), device_id=torch.device("cpu"))
    if kind in ("tensor parallel", "both"):
        parallelize_module(model, mesh["tp"], {"last": ColwiseParallel()})
    if kind == "both":
        fully_shard(model, mesh=mesh["dp"])
    if kind == "merge":
        found = forgetless.mas(wrapped(model, "fsdp"), samples, progress=False)
    try:
        if kind == "merge":
            found.merge(found.whole()) if rank else found.whole().merge(found)
        forgetless.mas(model, samples, progress=False)
    except forgetless.ForgetlessError as error:
        return str(error)
    return "nothing"


def anchored(rank: int, how: str, found: bool) -> float:
    """How far an anchored training by processes is from the same training by one, λ given or found."""
    samples = NETWORKS["residual"][1](SAMPLES)
    alone, shared = network("residual"), wrapped(network("residual"), how)
    results = []
    for model, mine in ((alone, samples), (shared, SHARES["even"](rank, samples))):
        importance = forgetless.mas(model, mine, progress=False)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
        with torch.no_grad():
            model(samples)  # leaves the root's weights gathered
        strength = forgetless.HoldShare(0.5, steps=3) if found else 1.0
        anchor = forgetless.Anchor(model, importance, strength).attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(samples).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            model(samples)
        drift = torch.tensor(anchor.drift())
        resharded(model)
        results.append(
            [drift, *((p.full_tensor() if isinstance(p, DTensor) else p).detach() for p in model.parameters())]
        )
    return max(float((one - other).abs().max()) for one, other in zip(*results, strict=True))


def agreeing(rank: int, how: str, same: bool) -> list[float] | str:
    """λ after every asking of a training by processes whose batches are of different sizes; or what was refused."""
    probes = vectors(40)
    model = wrapped(network("residual"), how)
    importance = forgetless.mas(model, vectors(8), progress=False)
    dial = forgetless.KeepAgreement(0.98, probes if same or not rank else probes + 1, start=1e-3)
    try:
        anchor = forgetless.Anchor(model, importance, dial)
    except forgetless.ForgetlessError as error:
        return str(error)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    anchor.attach(optimizer)
    samples = vectors(40)[rank * 20 : rank * 20 + (20 if rank else 8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            optimizer.zero_grad()
            (model(samples) - rank).square().mean().backward()
            optimizer.step()
    weights = [p.full_tensor() if isinstance(p, DTensor) else p for p in resharded(model).parameters()]
    seen = [each.strength for each in dial.history]
    return [*seen, float(sum(weight.double().sum() for weight in weights))]


def hybrid(rank: int) -> float:
    """The error for a model of which every process holds a replica by FSDP's hybrid sharding."""
    from torch.distributed.device_mesh import init_device_mesh

    samples = NETWORKS["residual"][1](SAMPLES)
    model = network("residual")
    expected = forgetless.mas(network("residual"), samples, progress=False)
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard")))
    return worst(forgetless.mas(model, SHARES["uneven"](rank, samples), progress=False).whole(), expected)


def lonely(rank: int, how: str, forever: bool) -> str:
    """The second process dies in the middle of its data; what the first one says."""

    def batches() -> Iterator[Tensor]:
        for n in itertools.count():
            if rank == 1 and n == 3:
                os.kill(os.getpid(), signal.SIGSTOP if forever else signal.SIGKILL)
            yield NETWORKS["residual"][1](4)

    try:
        forgetless.mas(wrapped(network("residual"), how), batches(), progress=False)
    except (forgetless.ForgetlessError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"

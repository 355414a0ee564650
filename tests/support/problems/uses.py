"""Uses of parameters that no layer of `torch.nn` has: by hand, through views, tied, reused, in part."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import linear
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from problems.problem import Batch, Problem, ids, module

Part = tuple[int, ...] | Callable[[], nn.Module]  # a parameter of this shape, or a module


class Uses(nn.Module):
    """`function(module, x)` over named parameters and modules."""

    def __init__(self, function: Callable[[Any, Any], Any], **parts: Part) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(torch.randn(part)) if isinstance(part, tuple) else part())

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def use(name: str, function: Callable[[Any, Any], Any], batch: Batch, **parts: Part) -> Problem:
    """`function(module, x)` on a batch."""
    return module(name, "use", lambda: Uses(function, **parts), batch)


def frozen(build: Callable[[], nn.Module]) -> nn.Module:
    """A module without trainable parameters."""
    return build().requires_grad_(False)


def concatenated(m: Any, x: Tensor) -> Tensor:
    """A class token before the others."""
    return m.lin(torch.cat([m.token.expand(len(x), -1, -1), x], 1)).tanh()


def rms(m: Any, x: Tensor) -> Tensor:
    """RMS norm by hand."""
    return (x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * m.gamma).tanh()


def standardized(m: Any, x: Tensor) -> Tensor:
    """A convolution by a function of the parameter."""
    centered = m.weight - m.weight.mean((1, 2, 3), keepdim=True)
    return functional.conv2d(x, centered / (centered.square().mean() + 0.1).sqrt()).tanh()


def normalized(m: Any, x: Tensor) -> Tensor:
    """Batch norm by its function."""
    return functional.batch_norm(
        x, torch.full_like(x[0, :, 0], 0.1), torch.ones_like(x[0, :, 0]), m.gamma, m.beta
    ).tanh()


def two_views(m: Any, x: Tensor) -> Tensor:
    """One backbone over two views of every sample, stacked into a batch of 2·N."""
    first, second = m.backbone(torch.cat([x, x.flip(1)])).chunk(2)
    return first * second.sin()


def partly(m: Any, x: Tensor) -> Tensor:
    """Parameters that take no part, that are frozen, and that only a detached path reads."""
    return m.frozen(m.used(x).tanh()) * m.detached.detach()


class Several(nn.Module):
    """Several inputs, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, left: Tensor, right: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {"loss": scale, "logits": self.left(left).tanh() * self.right(right) * scale, "extra": self.left(left)}


def given() -> dict[str, Tensor]:
    """Inputs of `Several`, one without a sample axis, and labels."""
    scale, labels = torch.tensor(0.5), torch.zeros(5)
    return {"left": torch.randn(5, 3), "right": torch.randn(5, 2), "scale": scale, "labels": labels}


def backbone() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))


lin = partial(nn.Linear, 3, 4)
square = partial(nn.Linear, 3, 3)
rows = partial(nn.Embedding, 6, 3)
positions = partial(nn.Embedding, 9, 4)

ELEMENTWISE = [
    use("a scale per feature", lambda m, x: (m.lin(x) * m.gamma).tanh(), (5, 3), lin=lin, gamma=(4,)),
    use("a scale per feature, 3-D", lambda m, x: x + (m.lin(x) * m.gamma).tanh(), (5, 2, 3), lin=square, gamma=(3,)),
    use("a scale per channel", lambda m, x: (x.sin() * m.gamma).tanh(), (5, 3, 4, 4), gamma=(3, 1, 1)),
    use("a scalar without axes", lambda m, x: (m.lin(x) * m.scale).tanh(), (5, 3), lin=lin, scale=()),
    use("a temperature", lambda m, x: (m.lin(x) / m.scale.exp()).softmax(-1), (5, 3), lin=lin, scale=(1,)),
    use("a power", lambda m, x: (m.lin(x).abs() + 1) ** m.power, (5, 3), lin=lin, power=(4,)),
    use("an offset per channel", lambda m, x: (x + m.shift.view(1, -1, 1)).tanh(), (5, 3, 4), shift=(3,)),
    use("an offset, subtracted from", lambda m, x: (m.shift - m.lin(x)).tanh(), (5, 3), lin=lin, shift=(4,)),
    use(
        "a gate between two paths",
        lambda m, x: torch.lerp(m.a(x), m.b(x), m.gate.sigmoid()),
        (5, 3),
        a=lin,
        b=lin,
        gate=(4,),
    ),
    use("a norm's scale by hand", rms, (5, 2, 3), gamma=(3,)),
    use("batch norm by its function", normalized, (4, 3, 5), gamma=(3,), beta=(3,)),
    use("addcmul", lambda m, x: torch.addcmul(m.shift, x, m.gamma).tanh(), (5, 3), shift=(3,), gamma=(3,)),
    use(
        "in-place scaling",
        lambda m, x: m.lin(x).mul_(m.gamma).add_(m.shift).tanh(),
        (5, 3),
        lin=lin,
        gamma=(4,),
        shift=(4,),
    ),
]

WITHOUT_SAMPLES = [
    use("a position table, batch 1", lambda m, x: (m.lin(x) + m.table).tanh(), (5, 6, 3), lin=lin, table=(1, 6, 4)),
    use(
        "a position table, cut",
        lambda m, x: (m.lin(x) + m.table[: x.shape[1]]).tanh(),
        (5, 6, 3),
        lin=lin,
        table=(9, 4),
    ),
    use(
        "a position table of one position",
        lambda m, x: (m.lin(x) + m.table).tanh(),
        (5, 1, 3),
        lin=lin,
        table=(1, 1, 4),
    ),
    use(
        "a position embedding",
        lambda m, x: (m.lin(x) + m.table(torch.arange(6))).tanh(),
        (5, 6, 3),
        lin=lin,
        table=positions,
    ),
    use(
        "as many positions as samples",
        lambda m, x: (m.lin(x) + m.table(torch.arange(5))).tanh(),
        (5, 5, 3),
        lin=lin,
        table=positions,
    ),
    use("a table as long as the batch", lambda m, x: (m.lin(x) + m.table).tanh(), (5, 5, 3), lin=lin, table=(5, 4)),
    use("a class token, expanded", concatenated, (5, 2, 3), lin=lin, token=(1, 1, 3)),
    use("a layer over a parameter", lambda m, x: (x * m.lin(m.code)).tanh(), (5, 4), lin=lin, code=(3,)),
    use(
        "a layer over as many parameters as samples",
        lambda m, x: (x @ m.lin(m.code)).tanh(),
        (5, 5),
        lin=lin,
        code=(5, 3),
    ),
    use("learned queries", lambda m, x: (m.lin(m.query) @ x.mT).tanh(), (5, 4, 3), lin=square, query=(2, 3)),
    use(
        "learned queries, as many as samples",
        lambda m, x: (m.lin(m.query) @ x.mT).tanh(),
        (5, 4, 3),
        lin=square,
        query=(5, 3),
    ),
    use(
        "a norm over a parameter",
        lambda m, x: (x * m.norm(m.code)).tanh(),
        (5, 3),
        norm=partial(nn.LayerNorm, 3),
        code=(3,),
    ),
    use("samples in the second axis", lambda m, x: m.lin(x.transpose(0, 1)).tanh().transpose(0, 1), (5, 2, 3), lin=lin),
    use(
        "as many steps as samples, samples second",
        lambda m, x: m.lin(x.transpose(0, 1)).tanh().transpose(0, 1),
        (5, 5, 3),
        lin=lin,
    ),
    use("samples folded with positions", lambda m, x: m.lin(x.flatten(0, 1)).tanh().view(-1, 2, 4), (5, 2, 3), lin=lin),
    use("two views stacked into the batch", two_views, (5, 3), backbone=backbone),
]


def queried(m: Any, x: Tensor) -> Tensor:
    """Queries that are parameters, at the same place in every sample."""
    return functional.scaled_dot_product_attention(m.queries.expand(len(x), -1, -1), x, m.lin(x)).tanh()


def decoded(m: Any, x: Tensor) -> Tensor:
    """As a detector's decoder: queries attend to each other, then to the sample."""
    queries = m.queries.unsqueeze(0).repeat(len(x), 1, 1)
    queries = queries + functional.scaled_dot_product_attention(m.mix(queries), queries, queries)
    return functional.scaled_dot_product_attention(queries, x, m.lin(x)).tanh()


def queried_by_bmm(m: Any, x: Tensor) -> Tensor:
    scores = torch.bmm(m.queries.expand(len(x), -1, -1), x.transpose(1, 2)).softmax(-1)
    return torch.bmm(scores, m.lin(x)).tanh()


MATRICES = [
    use("a matrix by @", lambda m, x: (x @ m.weight).tanh(), (5, 3), weight=(3, 4)),
    use("a matrix by @, transposed, 3-D", lambda m, x: (x @ m.weight.T).tanh(), (5, 2, 3), weight=(4, 3)),
    use("a matrix by addmm", lambda m, x: torch.addmm(m.bias, x, m.weight).tanh(), (5, 3), weight=(3, 4), bias=(4,)),
    use(
        "a matrix by addmm, samples folded (GPT-2)",
        lambda m, x: torch.addmm(m.bias, x.flatten(0, 1), m.weight).view(-1, 2, 4).tanh(),
        (5, 2, 3),
        weight=(3, 4),
        bias=(4,),
    ),
    use("a matrix by einsum", lambda m, x: torch.einsum("nti,oi->nto", x, m.weight).tanh(), (5, 2, 3), weight=(4, 3)),
    use(
        "a matrix per head by einsum", lambda m, x: torch.einsum("nhi,hoi->nho", x, m.w).tanh(), (5, 2, 3), w=(2, 4, 3)
    ),
    use(
        "a matrix per expert by einsum, of two axes each",
        lambda m, x: torch.einsum("ntegi,egio->ntego", x, m.w).tanh(),
        (5, 2, 3, 2, 3),
        w=(3, 2, 3, 4),
    ),
    use("a scale per head by einsum", lambda m, x: torch.einsum("nhi,hi->nhi", x, m.w).tanh(), (5, 2, 3), w=(2, 3)),
    use("a number per head by einsum", lambda m, x: torch.einsum("nhi,hi->nh", x, m.w).tanh(), (5, 2, 3), w=(2, 3)),
    use("a matrix per head by @", lambda m, x: (x @ m.w).tanh(), (5, 2, 4, 3), w=(2, 3, 4)),
    use("a matrix per head on the left", lambda m, x: (m.w @ x).tanh(), (5, 2, 3, 4), w=(2, 4, 3)),
    use(
        "a matrix per head by bmm, heads first",
        lambda m, x: torch.bmm(x.transpose(0, 1), m.w).transpose(0, 1).tanh(),
        (5, 2, 3),
        w=(2, 3, 4),
    ),
    use(
        "a matrix per head by bmm on the left",
        lambda m, x: torch.bmm(m.w, x.transpose(0, 1).mT).mT.transpose(0, 1).tanh(),
        (5, 2, 3),
        w=(2, 4, 3),
    ),
    use("learned queries by attention", queried, (5, 4, 3), queries=(2, 3), lin=square),
    use("learned queries that attend to themselves first", decoded, (5, 4, 3), queries=(2, 3), lin=square, mix=square),
    use("learned queries by bmm", queried_by_bmm, (5, 4, 3), queries=(2, 3), lin=square),
    use("a matrix on the left", lambda m, x: (m.weight @ x).tanh(), (5, 3, 2), weight=(4, 3)),
    use(
        "a matrix by baddbmm",
        lambda m, x: torch.baddbmm(m.b, x, m.w.expand(len(x), -1, -1)).tanh(),
        (5, 2, 3),
        w=(3, 4),
        b=(4,),
    ),
    use("a vector by @", lambda m, x: (x @ m.weight).tanh().unsqueeze(1), (5, 3), weight=(3,)),
    use("F.linear to one number", lambda m, x: linear(x, m.weight).tanh().unsqueeze(1), (5, 3), weight=(3,)),
    use(
        "a kernel by F.conv2d",
        lambda m, x: functional.conv2d(x, m.weight, padding=1).tanh(),
        (4, 3, 5, 5),
        weight=(2, 3, 3, 3),
    ),
    use(
        "a kernel by F.conv2d without a sample axis",
        lambda m, x: torch.stack([functional.conv2d(one, m.weight) for one in x]).tanh(),
        (4, 3, 5, 5),
        weight=(2, 3, 3, 3),
    ),
    use("a kernel standardized", standardized, (4, 3, 5, 5), weight=(2, 3, 3, 3)),
    use("rows by index", lambda m, x: m.table[x].tanh(), ids(5, 4, 3), table=(5, 3)),
    use(
        "rows by index_select",
        lambda m, x: m.table.index_select(0, x.flatten()).view(*x.shape, 3).tanh(),
        ids(5, 4, 3),
        table=(5, 3),
    ),
    use("rows by gather", lambda m, x: m.table.expand(len(x), -1).gather(1, x).tanh(), ids(5, 4, 3), table=(1, 5)),
]

VIEWS = [
    use("F.linear by a transposed parameter", lambda m, x: linear(x, m.weight.t()).tanh(), (5, 3), weight=(3, 4)),
    use("F.linear by a slice", lambda m, x: linear(x, m.weight[1:]).tanh(), (5, 3), weight=(5, 3)),
    use("F.linear by a strided slice", lambda m, x: linear(x, m.weight[::2, 1:]).tanh(), (5, 2), weight=(5, 3)),
    use("F.linear by a row", lambda m, x: linear(x, m.stack[1]).tanh(), (5, 3), stack=(2, 4, 3)),
    use(
        "three matrices in one", lambda m, x: sum(linear(x, w).sin() for w in m.weight.chunk(3)), (5, 3), weight=(6, 3)
    ),
    use(
        "overlapping slices",
        lambda m, x: linear(x, m.weight[:3]).sin() * linear(x, m.weight[1:]),
        (5, 3),
        weight=(4, 3),
    ),
    use(
        "a vector read as two matrices",
        lambda m, x: linear(linear(x, m.flat[:12].view(4, 3)).tanh(), m.flat[4:].view(2, 4)),
        (5, 3),
        flat=(12,),
    ),
    use(
        "two parameters in one matrix", lambda m, x: linear(x, torch.cat([m.a, m.b])).tanh(), (5, 3), a=(2, 3), b=(1, 3)
    ),
    use(
        "a low-rank pair",
        lambda m, x: linear(x, m.base.weight + m.b @ m.a).tanh(),
        (5, 3),
        base=lambda: frozen(lin),
        a=(2, 3),
        b=(4, 2),
    ),
    use("weight norm", lambda m, x: m.lin(x).tanh(), (5, 3), lin=lambda: parametrizations.weight_norm(lin())),
    use("spectral norm", lambda m, x: m.lin(x).tanh(), (5, 3), lin=lambda: parametrizations.spectral_norm(lin())),
    use("orthogonal", lambda m, x: m.lin(x).tanh(), (5, 3), lin=lambda: parametrizations.orthogonal(square())),
    use("a clone", lambda m, x: linear(x, m.lin.weight.clone()).tanh(), (5, 3), lin=lin),
    use("another precision on the way", lambda m, x: linear(x.double(), m.lin.weight.double()).tanh(), (5, 3), lin=lin),
    use("a parameter's data", lambda m, x: m.lin(x) * m.gain.data, (5, 3), lin=lin, gain=(4,)),
    use("under no_grad as well", lambda m, x: m.lin(x) * torch.no_grad()(m.lin)(x).tanh(), (5, 3), lin=lin),
]

REUSE = [
    use("a layer twice in a row", lambda m, x: m.lin(m.lin(x).tanh()), (5, 3), lin=square),
    use("a layer at two lengths", lambda m, x: m.lin(m.lin(x).tanh()).sum(1) + m.lin(x[:, 0]), (5, 4, 3), lin=square),
    use("a layer with and without its bias", lambda m, x: m.lin(x).sin() + linear(x, m.lin.weight), (5, 3), lin=lin),
    use(
        "a layer on samples and on a parameter",
        lambda m, x: m.lin(x) * m.lin(m.code).tanh(),
        (5, 3),
        lin=lin,
        code=(3,),
    ),
    use(
        "one bias of two layers",
        lambda m, x: linear(linear(x, m.a, m.bias).tanh(), m.b, m.bias),
        (5, 3),
        a=(3, 3),
        b=(3, 3),
        bias=(3,),
    ),
    use(
        "a convolution twice",
        lambda m, x: m.conv(m.conv(x).tanh()),
        (4, 2, 5, 5),
        conv=partial(nn.Conv2d, 2, 2, 3, padding=1),
    ),
    use(
        "a kernel and its transpose",
        lambda m, x: functional.conv_transpose2d(functional.conv2d(x, m.weight).tanh(), m.weight),
        (4, 2, 6, 6),
        weight=(3, 2, 3, 3),
    ),
    use(
        "layer norm twice", lambda m, x: m.norm(m.lin(m.norm(x))), (4, 2, 3), norm=partial(nn.LayerNorm, 3), lin=square
    ),
    use("batch norm twice", lambda m, x: m.norm(m.norm(x).tanh()), (4, 3, 4, 4), norm=partial(nn.BatchNorm2d, 3)),
    use("an embedding twice", lambda m, x: m.table(x).sin() * m.table(x.flip(1)), ids(6, 5, 3), table=rows),
    use("tied embedding and head", lambda m, x: linear(m.table(x).tanh(), m.table.weight), ids(6, 5, 4), table=rows),
    use("a tied autoencoder", lambda m, x: linear(linear(x, m.weight).tanh(), m.weight.T), (5, 4), weight=(2, 4)),
    use("a matrix as layer and as scale", lambda m, x: (m.lin(x) * m.lin.weight.sum(1)).tanh(), (5, 3), lin=lin),
    use("siamese halves", lambda m, x: m.backbone(x[:, :3]) * m.backbone(x[:, 3:]).tanh(), (5, 6), backbone=backbone),
    use("uses that cancel", lambda m, x: m.lin(x) - m.lin(x) + m.other(x), (5, 3), lin=lin, other=lin),
    use("a use whose gradient is zero", lambda m, x: m.lin(x) + 0 * m.lin(x.sin()), (5, 3), lin=lin),
    use("a use that the output ignores", lambda m, x: (m.lin(x.sin()), m.lin(x))[1], (5, 3), lin=lin),
    use(
        "unused, frozen and detached parameters",
        partly,
        (5, 3),
        used=lin,
        frozen=lambda: frozen(partial(nn.Linear, 4, 4)),
        unused=lin,
        detached=(4,),
    ),
    use(
        "activation checkpointing",
        lambda m, x: checkpoint(m.backbone, m.lin(x).tanh(), use_reentrant=False),
        (5, 3),
        lin=square,
        backbone=backbone,
    ),
]

BATCHES = [
    use("a branch per sample", lambda m, x: torch.where(x[:, :1] > 0, m.a(x), m.b(x)).tanh(), (5, 3), a=lin, b=lin),
    use("a batch of two", lambda m, x: m.lin(x).tanh(), (2, 3), lin=lin),
    use("a batch of one", lambda m, x: m.lin(x).tanh(), (1, 3), lin=lin),
    use(
        "sequences of different length",
        lambda m, x: m.lin(x).tanh(),
        lambda: [torch.randn(2, t, 3) for t in (4, 1, 6)],
        lin=lin,
    ),
    use(
        "pictures of different size",
        lambda m, x: m.conv(x).mean((2, 3)).tanh(),
        lambda: [torch.randn(2, 2, s, 5) for s in (4, 7)],
        conv=partial(nn.Conv2d, 2, 3, 3),
    ),
    module("keywords, one without a sample axis", "use", Several, given),
    module("several outputs", "use", Several, given, output=["logits", "extra"]),
    module(
        "an output by a callable",
        "use",
        partial(nn.LSTM, 3, 4, batch_first=True),
        (4, 5, 3),
        output=lambda result: result[1][1].transpose(0, 1),
    ),
    module("without the head", "use", backbone, (5, 3), exclude="2"),
]

USES = [*ELEMENTWISE, *WITHOUT_SAMPLES, *MATRICES, *VIEWS, *REUSE, *BATCHES]

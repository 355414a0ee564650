"""Operations that compute along some axes and treat all in front alike: layers, products, elementwise ones.

A layer of k *core* axes (1 of `linear`, 3 of `conv2d`) works on the last k axes of its input; those before them stay
where they are. Where several tensors meet, each says to which axis of the result its samples go, and all must agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.provenance.rows import BLANK, Rows, lost, rows_of, same, simplified

Place = tuple[Tensor, "int | None"]  # a tensor, and where its samples' axis is in the result; None if it is gone


def met(name: str, places: Iterable[Place], result: Tensor, samples: int) -> Rows:
    """What is known of a result in which these tensors meet."""
    found: Rows | None = None
    single: Rows | None = None
    for tensor, axis in places:
        rows = rows_of(tensor)
        if rows is None or rows is BLANK:
            continue
        if rows.lost is not None:
            return rows
        if rows.axis is None:  # one sample's alone
            if single is not None and not same(single, rows):
                return lost(name)
            single = rows
            continue
        if axis is None or not 0 <= axis < result.dim() or result.shape[axis] != tensor.shape[rows.axis]:
            return lost(name)
        if found is None or (found.axis == axis and same(found, rows)):
            found = rows.at(axis)
            continue
        merged = _merged(found, rows, result.shape[axis], samples) if found.axis == axis else None
        if merged is None:
            return lost(name)
        found = simplified(axis, merged, samples)
    if found is None or single is None:
        return found or single or BLANK
    assert found.axis is not None
    assert single.of is not None
    numbers = found.numbers(result.shape[found.axis], samples)
    alike = numbers is not None and bool((numbers == single.of[0]).all())
    return found if alike else lost(name)


def _merged(some: Rows, other: Rows, length: int, samples: int) -> Tensor | None:
    """Each entry's sample by two tensors, of which one may know more; None where they contradict each other."""
    one, two = some.numbers(length, samples), other.numbers(length, samples)
    if one is None or two is None or not bool(((one == two) | (one < 0) | (two < 0)).all()):
        return None
    return torch.maximum(one, two)


def axis_of(tensor: Any) -> int | None:
    """The samples' axis, counted from the left; None where there is none."""
    rows = rows_of(tensor)
    return None if rows is None else rows.axis


def broadcast(tensors: Iterable[Tensor], result: Tensor, core: int = 0, core_after: int | None = None) -> list[Place]:
    """Every tensor's last `core` axes are worked on; those before them are aligned from the right."""
    core_after = core if core_after is None else core_after
    places = []
    for tensor in tensors:
        axis = axis_of(tensor)
        behind = 0 if axis is None else tensor.dim() - core - axis  # axes from it to the core
        places.append((tensor, result.dim() - core_after - behind if behind > 0 else None))
    return places


def product(name: str, a: Tensor, b: Tensor, result: Tensor) -> list[Place]:
    """`a @ b`: rows of `a` are rows of the result, columns of `b` its columns."""
    flat_a, flat_b = a.dim() == 1, b.dim() == 1
    core_after = 2 - flat_a - flat_b
    (_, left), (_, right) = (
        broadcast([a], result, 2 - flat_a, core_after)[0],
        broadcast([b], result, 2 - flat_b, core_after)[0],
    )
    if not flat_a and axis_of(a) == a.dim() - 2:
        left = result.dim() - core_after
    if not flat_b and axis_of(b) == b.dim() - 1:
        right = result.dim() - 1
    return [(a, left), (b, right)]


def einsum(equation: str, operands: Sequence[Tensor]) -> list[Place] | None:
    """By the letters; None where the equation does not say what is left."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow:
        return None
    terms = left.split(",")
    deep = max(
        (x.dim() - len(term.replace("...", "")) for term, x in zip(terms, operands, strict=True) if "..." in term),
        default=0,
    )
    after = _labels(right, len(right.replace("...", "")) + deep)
    places: list[Place] = []
    for term, x in zip(terms, operands, strict=True):
        axis = axis_of(x)
        label = None if axis is None else _labels(term, x.dim())[axis]
        places.append((x, after.index(label) if label in after else None))
    return places


def _labels(term: str, dims: int) -> list[str]:
    """A label of every axis; those of "..." are counted from its right end."""
    before, dots, behind = term.partition("...")
    wide = dims - len(before) - len(behind) if dots else 0
    return [*before, *[f"...{k}" for k in range(wide, 0, -1)], *behind]


def tensordot(a: Tensor, b: Tensor, dims_a: Sequence[int], dims_b: Sequence[int]) -> list[Place]:
    """The axes of `a` that are left, then those of `b`."""
    left, right = (
        [d for d in range(x.dim()) if d - x.dim() not in dims and d not in dims]
        for x, dims in ((a, dims_a), (b, dims_b))
    )
    one, two = axis_of(a), axis_of(b)
    return [
        (a, left.index(one) if one in left else None),
        (b, len(left) + right.index(two) if two in right else None),
    ]


# -- layers: how many of the last axes they work on, of the input and of its arguments after it


def _but_the_first(x: Tensor, rest: Sequence[Any], kwargs: Any) -> int:
    return x.dim() - 1


def _normalized(x: Tensor, rest: Sequence[Any], kwargs: Any) -> int:
    shape = rest[0] if rest else kwargs["normalized_shape"]
    return 1 if isinstance(shape, int) else len(shape)


def _padded(x: Tensor, rest: Sequence[Any], kwargs: Any) -> int:
    by = list(rest[0] if rest else kwargs["pad"])
    return math.ceil(max((k + 1 for k, size in enumerate(by) if size), default=0) / 2)


def _axes(count: int) -> Callable[[Tensor, Sequence[Any], Any], int]:
    return lambda x, rest, kwargs: count


_POOLS = (
    "fn max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d lp_pool3d fractional_max_pool2d fractional_max_pool3d"
)
_RESIZED = (
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa im2col col2im"
)
LAYERS: dict[str, Callable[[Tensor, Sequence[Any], Any], int]] = {
    **dict.fromkeys((*_POOLS.split(), *_RESIZED.split()), _but_the_first),
    **dict.fromkeys(("group_norm", "instance_norm", "channel_shuffle", "native_channel_shuffle"), _but_the_first),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized),
    **dict.fromkeys(("pad", "constant_pad_nd"), _padded),
    **dict.fromkeys(("linear", "view_as_complex", "embedding_bag"), _axes(1)),
    **dict.fromkeys(("conv1d", "conv_transpose1d", "affine_grid_generator"), _axes(2)),
    **dict.fromkeys(("conv2d", "conv_transpose2d", "pixel_shuffle", "pixel_unshuffle"), _axes(3)),
    **dict.fromkeys(("conv3d", "conv_transpose3d"), _axes(4)),
    **dict.fromkeys(("view_as_real", "one_hot", "batch_norm", "prelu", "bucketize"), _axes(0)),
    **dict.fromkeys(("inverse", "linalg_inv", "linalg_pinv", "linalg_cholesky", "cholesky"), _axes(2)),
    **dict.fromkeys(("matrix_exp", "linalg_matrix_exp", "matrix_power", "linalg_matrix_power"), _axes(2)),
}
#: Layers on several tensors, whose axes in front are broadcast.
SEVERAL = {
    "scaled_dot_product_attention": 2,
    "bilinear": 1,
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), 1),
}
PRODUCTS = frozenset({"matmul", "__matmul__", "mm", "bmm", "mv", "linalg_matmul"})
PRODUCTS_ADDED = frozenset({"addmm", "addmv", "baddbmm"})
#: Along one axis, which mixes what is on it: where `dim` is among the arguments after the tensor, and what if not.
ALONG = {
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax", "glu"), (0, -1)),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"), (0, 0)),
    **dict.fromkeys(("diff", "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft"), (1, -1)),
    **dict.fromkeys(("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2"), (1, (-2, -1))),
    **dict.fromkeys(("fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn"), (1, None)),
    **dict.fromkeys(("fft_fftshift", "fft_ifftshift"), (0, None)),
}

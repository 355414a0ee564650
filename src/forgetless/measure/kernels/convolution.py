"""`F.conv1d/2d/3d` and their transposes: a matrix over patches; positions of one sample sum before the modulus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from forgetless.measure.kernels.parts import native
from forgetless.measure.kernels.parts.rule import Call, Operation, Rule, Samples
from forgetless.measure.kernels.parts.terms import Dense, Outer, added, modulus_, portion, widened

_MANY_POSITIONS = 700  # from here on a sample fills torch's own weight-gradient kernel (measured, CPU)
_PATCHES, _PATCHES_ELSEWHERE = 1 << 22, 1 << 27  # elements of unfolded patches at a time: on a CPU, on other devices


@dataclass(frozen=True)
class Geometry:
    """How a convolution slides: per-axis numbers, as `aten::convolution` takes them."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    def backward(self, d: Tensor, x: Tensor, weight: Tensor, mask: list[bool]) -> tuple[Any, ...]:
        """∂x and ∂weight (summed over the batch given), where `mask` asks for them."""
        return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
            d, x, weight, None, self.stride, self.padding, self.dilation,
            self.transposed, self.output_padding, self.groups, mask,
        )  # fmt: skip


@dataclass(frozen=True)
class Patches:
    """`g_n[o, c, k] = Σ_t d[n, o, t] x[n, c, patch(t, k)]`: a convolution's per-sample weight gradients.

    Attributes:
        d: gradient of the output, `[N·k, O, *out]`, k rows (frames of a video, say) a sample.
        x: the input, `[N·k, C, *in]`.
        weight: only its shape, dtype and device matter.
        geometry: how it slides.
        samples: N.
    """

    d: Tensor
    x: Tensor
    weight: Tensor
    geometry: Geometry
    samples: int

    def modulus_sum(self, power: int, into: Tensor | None = None) -> Tensor:
        """By the cheapest exact way for this shape."""
        if self._pointwise:
            return self._tokens().modulus_sum(power, into)
        if self.x.dim() == 4 and not self.geometry.transposed and len(self.x) == self.samples:
            if self.geometry.groups == self.x.shape[1] == self.d.shape[1] > 1:
                return added(self._depthwise(power), into)
            if native.serves(self.d, self.x):
                return self._compiled(power, into)
            if self.d[0, 0].numel() < _MANY_POSITIONS or not self.d.is_cpu:
                return self._unfolded(power, into)
        total = torch.zeros_like(widened(self.weight)) if into is None else into
        for n in range(self.samples):
            total += modulus_(self.sample(n), power)
        return total

    def sample(self, n: int) -> Tensor:
        """`g_n` by torch's own kernel on the rows of one sample."""
        rows = len(self.x) // self.samples
        one = slice(n * rows, (n + 1) * rows)
        gradient: Tensor = self.geometry.backward(self.d[one], self.x[one], self.weight, [False, True, False])[1]
        return gradient

    @property
    def _pointwise(self) -> bool:
        g = self.geometry
        one = all(size == 1 for size in self.weight.shape[2:]) and set(g.stride) == {1}
        return one and set(g.padding) == {0} and g.groups == 1 and not g.transposed

    def _tokens(self) -> Outer:
        return Outer(self._positions(self.d), self._positions(self.x), self.weight.shape)

    def _positions(self, values: Tensor) -> Tensor:
        """`[N·k, C, *space]` as `[N, T, C]`."""
        tokens = values.flatten(2).transpose(1, 2)
        return tokens if len(tokens) == self.samples else tokens.reshape(self.samples, -1, values.shape[1])

    def _depthwise(self, power: int) -> Tensor:
        """One convolution of x by d, a group a channel and sample: stride and dilation change places."""
        g, (samples, channels) = self.geometry, self.x.shape[:2]
        x = self.x.reshape(1, samples * channels, *self.x.shape[2:])
        d = self.d.reshape(samples * channels, 1, *self.d.shape[2:])
        full = functional.conv2d(x, d, None, g.dilation, g.padding, g.stride, samples * channels)
        height, width = self.weight.shape[2:]
        gradients = full[0, :, :height, :width].reshape(samples, *self.weight.shape)
        return modulus_(gradients, power).sum(0)

    def _compiled(self, power: int, into: Tensor | None) -> Tensor:
        """By the compiled kernel, which unfolds while it multiplies."""
        g = self.geometry
        total = torch.zeros_like(self.weight, memory_format=torch.channels_last) if into is None else into
        native.convolution(self.x, self.d, total, g.stride, g.padding, g.dilation, g.groups, power)
        return total

    def _unfolded(self, power: int, into: Tensor | None) -> Tensor:
        """As a matrix over unfolded patches, a few samples at a time."""
        g, kernel, groups = self.geometry, self.weight.shape[2:], self.geometry.groups
        total = torch.zeros_like(widened(self.weight), memory_format=torch.contiguous_format) if into is None else into
        out, inner = self.weight.shape[0] // groups, self.weight[0].numel()
        positions = self.d[0, 0].numel()
        chunk = max(1, portion(self.x, _PATCHES, _PATCHES_ELSEWHERE) // max(1, positions * inner * groups))
        for start in range(0, self.samples, chunk):
            x, d = self.x[start : start + chunk], self.d[start : start + chunk]
            patches = functional.unfold(x, kernel, g.dilation, g.padding, g.stride)
            patches = patches.view(len(x), groups, inner, positions).transpose(2, 3)
            deltas = d.reshape(len(x), groups, out, positions).transpose(2, 3)
            for k in range(groups):
                rows = total[k * out : (k + 1) * out]
                Outer(deltas[:, k], patches[:, k], rows.shape).modulus_sum(power, rows)
        return total


def convolution(
    axes: int,
    transposed: bool,
    samples: Samples,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    output_padding: Any,
    groups: int,
) -> Call | None:
    """Rule of a convolution over x `[N, C, *in]` in 1, 2 or 3 axes."""
    if input.dim() != axes + 2 or not samples.lead(input):
        return None
    stride, dilation = _each(stride, axes), _each(dilation, axes)
    if padding == "valid":
        padding = 0
    if padding == "same":
        spans = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        if any(span % 2 for span in spans):  # torch pads the odd one at the end; no symmetric number says so
            return None
        padding = [span // 2 for span in spans]
    geometry = Geometry(stride, _each(padding, axes), dilation, transposed, _each(output_padding, axes), groups)

    def forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        g = geometry  # by the functions that autocast knows
        if transposed:
            return _TRANSPOSED[axes](x, w, b, g.stride, g.padding, g.output_padding, g.groups, g.dilation)
        return _PLAIN[axes](x, w, b, g.stride, g.padding, g.dilation, g.groups)

    def input_gradient(d: Tensor, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        gradient: Tensor = geometry.backward(d, x.to(d.dtype), w.to(d.dtype), [True, False, False])[0]
        return gradient.to(x.dtype)

    return Call(
        input,
        (weight, bias),
        forward,
        input_gradient,
        terms=(
            lambda d, x: Patches(d, x.to(d.dtype), weight.detach().to(d.dtype), geometry, samples.count),
            lambda d, x: Dense(widened(d).flatten(2).sum(2).view(samples.count, -1, d.shape[1]).sum(1)),
        ),
    )


_PLAIN = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


def _each(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _plain(axes: int) -> Rule:
    def rule(
        samples: Samples, input: Tensor, weight: Tensor, bias: Tensor | None = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Call | None:  # fmt: skip
        return convolution(axes, False, samples, input, weight, bias, stride, padding, dilation, 0, groups)

    return rule


def _transposed(axes: int) -> Rule:
    def rule(
        samples: Samples, input: Tensor, weight: Tensor, bias: Tensor | None = None,
        stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Call | None:  # fmt: skip
        return convolution(axes, True, samples, input, weight, bias, stride, padding, dilation, output_padding, groups)

    return rule


RULES: dict[Operation, Rule] = {
    torch.conv1d: _plain(1),
    torch.conv2d: _plain(2),
    torch.conv3d: _plain(3),
    torch.conv_transpose1d: _transposed(1),
    torch.conv_transpose2d: _transposed(2),
    torch.conv_transpose3d: _transposed(3),
}

"""Local Memory Aware Synapses: every layer on its own, by Hebb's rule; no gradient passes from layer to layer.

Aljundi et al., "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from forgetless.errors import ForgetlessError
from forgetless.measure.accumulator import Estimator, Until, measure
from forgetless.measure.engine.bodies import body_of
from forgetless.measure.engine.derived import SHAPED_LIKE
from forgetless.measure.engine.target import Quantity
from forgetless.measure.importance import Importance
from forgetless.measure.kernels import mark_of_samples, of_samples
from forgetless.model import batches
from forgetless.model.collation import Collate
from forgetless.model.masks import Mask, positions, refuse_unknown
from forgetless.model.network import Network
from forgetless.model.outputs import Forward, Output, Select


def local_mas(
    model: nn.Module,
    data: Any,
    *,
    into: Importance | None = None,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
    exclude: str | Iterable[str] = (),
    collate_fn: Collate | None = None,
    batch_size: int | None = None,
    until: Until = None,
    prove: bool = True,
    progress: bool = True,
) -> Importance:
    """Measure the local importance of every parameter on unlabeled data (l-MAS), modulus per sample.

        Ω = 1/N Σ_n |∂‖F_l(y_ln; θ_l)‖² / ∂θ_l|,  y_ln the input of layer l, held fixed

    After a ReLU this is Hebb's rule, what fires together matters together: `Ω_ij = 2 · 1/N Σ_n y_i y_j` for the weight
    between y_i and y_j, and `2 · 1/N Σ_n y_j` for a bias; convolutions sum over positions inside a sample first. Costs
    a forward pass and one product per layer.

    What a layer is: every operation in which parameters meet what was computed from the samples (a linear map, a
    convolution, a norm, an embedding, a scale, a whole recurrent layer, …). If the first operation that reads its
    result is a batch norm in eval mode, the two are one layer; if the first to read the result of these is a ReLU, F_l
    is what comes out of it. Dropout in eval mode, and what only gives the result another shape, is passed over.
    Otherwise F_l is the layer's own result, and the modulus matters. Of a layer with several results, F_l is the first.
    A parameter of several layers (tied, reused) sums over them inside a sample.

    Args:
        model: a trained network.
        data: as for `forgetless.mas`.
        into: an earlier measurement of the same network to pool with; it is left unchanged.
        output: as for `forgetless.mas`; it only serves to check that samples do not influence each other.
        forward: (model, batch) → output, where `model(inputs)` is not the way.
        mask: which positions of every F_l count, where it has the positions of the samples; see `forgetless.mas`.
        exclude: parameters to leave out: names, module names ("head") or patterns ("*.bias").
        collate_fn: a list of samples → a batch; see `forgetless.mas`.
        batch_size: samples at a time, for memory; it never changes the numbers.
        until: stop early; see `forgetless.mas`.
        prove: check samples against themselves alone; see `forgetless.mas`.
        progress: show a progress bar on a terminal.

    Returns:
        Sums and count over the samples, float32 or wider; `.mean()` is Ω.

    Raises:
        ForgetlessError: all that `forgetless.mas` refuses; a model sharded by `fully_shard`; padding in an
            encoder-decoder, or where a layer's result does not show which of its rows are whose positions.
    """
    network = Network.of(model, exclude)
    made = estimator(network, output=output, forward=forward, mask=mask)
    data = batches.of(data, batch_size, collate_fn)
    return measure(network, data, made, into=into, batch_size=batch_size, until=until, prove=prove, progress=progress)


def estimator(
    network: Network, *, output: Select = None, forward: Forward | None = None, mask: Mask = "auto"
) -> Estimator:
    """What `local_mas` sums over samples.

    Raises:
        ForgetlessError: a model sharded by `fully_shard`.
    """
    if network.ranks is not None and network.ranks.sharded:
        raise ForgetlessError(
            "local MAS cannot follow a model that fully_shard has sharded: no gradient passes between its layers, by "
            "which FSDP knows when to gather their weights; measure with forgetless.mas, which can, or on one process."
        )
    refuse_unknown(mask)
    function = Output(output, forward, None)  # the output itself has no gradient here

    def scalars(model: nn.Module, batch: Any) -> Tensor:
        with Layers(batch, positions(mask, model, batch)) as layers:
            norms = function.squared_norms(model, batch)
        total = layers.total()
        # The value of the network's own output, and the gradient of what the layers add up to.
        return norms if total is None else norms + total / len(norms)

    return Estimator("local-mas", Quantity(scalars), pads=False)


class Layers(TorchFunctionMode):
    """Cuts a forward pass into layers, whose inputs are constants, and adds up `‖F_l‖²`.

    Args:
        batch: what goes through; a layer is where parameters meet what is computed from it.
        counts: which positions of the samples count, `[N, T]`, bool; None: all do.
    """

    def __init__(self, batch: Any, counts: Tensor | None = None) -> None:
        super().__init__()
        self._counts = counts
        self._open: dict[int, _Layer] = {}  # by result: layers that a batch norm or ReLU may still join
        self._done: dict[int, Tensor] = {}  # results that the rest of the network sees as constants
        self._ends: list[Tensor] = []  # F_l of every layer, not to be written to, or what stands for its squared norm
        self._memory: dict[int, int] = {}  # whose memory is whose: F_l's address → its place in `_ends`
        for tensor in batches.tensors(batch):
            mark_of_samples(tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func` with every finished layer's result as a constant; see whether it begins or ends a layer."""
        kwargs = kwargs or {}
        if func in _TELLING:
            return func(*args, **kwargs)
        tensors = list(batches.tensors((args, kwargs)))
        if any(tensor.requires_grad for tensor in tensors) and getattr(func, "__module__", "") != "torch._tensor":
            body = body_of(func)
            if body is not None:  # a Python function: the operations inside it must stay visible
                with self:
                    return body(*args, **kwargs)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        layer = self._open.get(id(first))
        if first is not None and layer is not None and layer.goes_on(func, args):
            self._leave(first)
            result = func(*args, **kwargs)
            if func in _RELUS:
                return self._close(result)
            self._open[id(result)] = _Layer(result, layer.normed or func is torch.batch_norm)
            mark_of_samples(result)
            return result
        for tensor in tensors:
            if id(tensor) in self._open:
                self._leave(tensor)
                self._close(tensor)
        if first is not None and _in_place(func):
            self._keep(first)
        args, kwargs = batches.mapped((args, kwargs), self._constant)
        result = func(*args, **kwargs)
        if any(of_samples(tensor) for tensor in tensors) and not (func in SHAPED_LIKE and not of_samples(first)):
            self._begin(func, result)
        return result

    def total(self) -> Tensor | None:
        """What has the gradients of `Σ_l Σ_n ‖F_l(y_ln)‖²` and the value 0, or nothing where there is no layer."""
        for layer in self._open.values():
            self._close(layer.result)
        self._open.clear()
        norms = [end if end.dim() == 0 else _SquaredNorm.apply(end) for end in self._ends]
        return torch.stack(norms).sum() if norms else None

    def _begin(self, func: Callable[..., Any], result: Any) -> None:
        found = list(batches.tensors(result))
        for tensor in found:
            mark_of_samples(tensor)
        of_parameters = [tensor for tensor in found if tensor.requires_grad]
        if self._counts is not None:
            for tensor in of_parameters:
                _leave_out(tensor, self._counts)
        for tensor in of_parameters[1:]:
            self._done[id(tensor)] = tensor
        if of_parameters:
            self._open[id(of_parameters[0])] = _Layer(of_parameters[0], func is torch.batch_norm)

    def _leave(self, tensor: Tensor) -> None:
        self._done[id(tensor)] = self._open.pop(id(tensor)).result

    def _close(self, end: Tensor) -> Tensor:
        self._memory[end.untyped_storage().data_ptr()] = len(self._ends)
        self._ends.append(end if end.dim() else _SquaredNorm.apply(end))
        self._done[id(end)] = end
        return self._constant(end)

    def _keep(self, written: Tensor) -> None:
        """Take the norm of an F_l whose memory is about to be written to, of a copy."""
        place = self._memory.pop(written.untyped_storage().data_ptr(), None)
        if place is not None and self._ends[place].dim():
            self._ends[place] = _SquaredNorm.apply(self._ends[place].clone())

    def _constant(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._done:
            return tensor
        constant = tensor.detach()
        mark_of_samples(constant)
        return constant


@dataclass(frozen=True)
class _Layer:
    """A layer that is not closed yet: its result so far, and whether a batch norm is part of it."""

    result: Tensor
    normed: bool

    def goes_on(self, func: Callable[..., Any], args: Any) -> bool:
        """Whether `func`, the first to read the result, is part of the layer."""
        if func is torch.batch_norm:
            return not self.normed and not args[5]  # in eval mode
        return func in _RELUS or func in _DROPOUTS or func in _RESHAPING


def _leave_out(result: Tensor, counts: Tensor) -> None:
    """Let no gradient through a layer's result at positions that do not count: what follows it in F_l mixes none.

    Args:
        result: `[N, T, …]`, `[T, N, …]`, `[N · T, …]`, or without positions, `[N, …]` or `[N, 1, …]`.
        counts: `[N, T]`, bool.

    Raises:
        ForgetlessError: another shape.
    """
    samples, length = counts.shape
    if result.dim() > 2 and result.shape[:2] == counts.shape:
        fitting = counts
    elif result.dim() > 2 and result.shape[:2] == counts.T.shape:
        fitting = counts.T
    elif result.dim() and length > 1 and result.shape[0] == samples * length:
        fitting = counts.flatten()
    elif result.dim() and result.shape[0] == samples and (result.dim() < 3 or result.shape[1] == 1):
        return
    else:
        raise ForgetlessError(
            f"a layer's result has the shape {tuple(result.shape)}, which does not show where the positions are that "
            f"do not count, of {samples} samples with {length}; measure samples without padding, one at a time "
            "(batch_size=1), or with mask=None, by which all positions count."
        )
    shape = (*fitting.shape, *[1] * (result.dim() - fitting.dim()))

    def counted(gradient: Tensor) -> Tensor:
        return torch.where(fitting.view(shape), gradient, 0)

    result.register_hook(counted)  # type: ignore[no-untyped-call]


class _SquaredNorm(torch.autograd.Function):
    """`‖F‖²` for the sake of its gradient, `2 F`; its value, which nobody asks for, would cost a pass over F."""

    @staticmethod
    def forward(ctx: Any, end: Tensor) -> Tensor:
        ctx.save_for_backward(end)
        return end.new_zeros((), dtype=torch.promote_types(end.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (end,) = ctx.saved_tensors
        return (2 * gradients[0]).to(end.dtype) * end  # type: ignore[no-any-return]


_RELUS = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_DROPOUTS = {torch.dropout, torch.feature_dropout, torch.alpha_dropout, torch.feature_alpha_dropout}
_RESHAPING = {
    *(Tensor.view, Tensor.reshape, Tensor.flatten, Tensor.unflatten, Tensor.squeeze, Tensor.unsqueeze, Tensor.permute),
    *(Tensor.transpose, Tensor.t, Tensor.movedim, Tensor.swapaxes, Tensor.contiguous, Tensor.view_as),
    *(torch.reshape, torch.flatten, torch.unflatten, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose),
    *(torch.t, torch.movedim, torch.swapaxes, Tensor.T.__get__, Tensor.mT.__get__),  # type: ignore[attr-defined]
}
# What tells about a tensor, rather than computing from it: it neither ends a layer nor is part of one.
_TELLING = {
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.nelement, Tensor.stride, Tensor.element_size, Tensor.__len__),
    *(Tensor.ndimension, Tensor.is_contiguous, Tensor.is_floating_point, Tensor.is_complex, Tensor.data_ptr),
    *(Tensor.get_device, Tensor.storage_offset, Tensor.untyped_storage, Tensor.__hash__, Tensor.__repr__),
    *(torch.is_floating_point, torch.is_complex, torch.numel, Tensor.is_signed, torch.is_signed),
    *(
        getattr(Tensor, name).__get__
        for name in (
            *("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "grad_fn", "grad", "_version"),
            *("is_cuda", "is_sparse", "is_quantized", "is_meta", "is_nested", "is_mkldnn", "is_mps", "is_xpu"),
            *("itemsize", "nbytes", "output_nr", "retains_grad"),
        )
    ),
}


def _in_place(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    return name.startswith("__i") or name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))

"""Local Memory Aware Synapses: every layer on its own, by Hebb's rule; no gradient passes from layer to layer.

Aljundi et al., "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from forgetless import data as batching
from forgetless.engine.derived import SHAPED_LIKE
from forgetless.engine.tape import body_of
from forgetless.importance import Importance
from forgetless.kernels import mark_of_samples, of_samples
from forgetless.measure.measurement import Until, measure
from forgetless.output import Forward, Output, Select


def hebbian(
    model: nn.Module,
    data: Any,
    *,
    into: Importance | None = None,
    output: Select = None,
    forward: Forward | None = None,
    exclude: str | Iterable[str] = (),
    batch_size: int | None = None,
    until: Until = None,
    progress: bool = True,
) -> Importance:
    """Measure the local importance of every parameter on unlabelled data (l-MAS), modulus per sample.

        Ω = 1/N Σ_n |∂‖F_l(y_ln; θ_l)‖² / ∂θ_l|,  y_ln the input of layer l, held fixed

    After a ReLU this is Hebb's rule, what fires together matters together: `Ω_ij = 2 · 1/N Σ_n y_i y_j` for the weight
    between y_i and y_j, and `2 · 1/N Σ_n y_j` for a bias; convolutions sum over positions inside a sample first. Costs
    a forward pass and one product per layer.

    What a layer is: every operation in which parameters meet what was computed from the samples (a linear map, a
    convolution, a norm, an embedding, a scale, a whole recurrent layer, …). If the first operation that reads its
    result is a batch norm in eval mode, the two are one layer; if the first to read the result of these is a ReLU
    (`torch.relu`; dropout in eval mode is passed over), F_l is what comes out of it. Otherwise F_l is the layer's own
    result, and the modulus matters. Of a layer with several results, F_l is the first.

    Args:
        model: a trained network.
        data: as for `forgetless.mas`.
        into: an earlier measurement of the same network to pool with; it is left unchanged.
        output: as for `forgetless.mas`; it only serves to check that samples do not influence each other.
        forward: (model, batch) → output, where `model(inputs)` is not the way.
        exclude: parameters to leave out: names, module names ("head") or patterns ("*.bias").
        batch_size: samples at a time, for memory; it never changes the numbers.
        until: stop early; see `forgetless.mas`.
        progress: show a progress bar on a terminal.

    Returns:
        Sums and count over the samples, float32 or wider; `.mean()` is Ω.

    Raises:
        ForgetlessError: all that `forgetless.mas` refuses.
    """
    function = Output(output, forward)

    def scalars(model: nn.Module, batch: Any) -> Tensor:
        with Layers(batch) as layers:
            norms = function.squared_norms(model, batch)
        total = layers.total()
        # The value of the network's own output, and the gradient of what the layers add up to.
        return norms if total is None else norms + (total - total.detach()) / len(norms)

    return measure(
        model,
        data,
        scalars,
        "hebbian",
        into=into,
        exclude=exclude,
        batch_size=batch_size,
        until=until,
        progress=progress,
    )


class Layers(TorchFunctionMode):
    """Cuts a forward pass into layers, whose inputs are constants, and adds up `‖F_l‖²`.

    Args:
        batch: what goes through; a layer is where parameters meet what is computed from it.
    """

    def __init__(self, batch: Any) -> None:
        super().__init__()
        self._open: dict[int, Tensor] = {}  # results of layers that a batch norm or ReLU may still join
        self._done: dict[int, Tensor] = {}  # results that the rest of the network sees as constants
        self._norms: list[Tensor] = []
        for tensor in batching.tensors(batch):
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
        tensors = list(batching.tensors((args, kwargs)))
        body = body_of(func) if any(tensor.requires_grad for tensor in tensors) else None
        if body is not None:  # a Python function: the operations inside it must stay visible
            with self:
                return body(*args, **kwargs)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and id(first) in self._open:
            if func in _RELUS:
                self._leave(first)
                return self._close(func(*args, **kwargs))
            if func in _DROPOUTS or (func is torch.batch_norm and not args[5]):
                result = func(*args, **kwargs)
                if result is not first:
                    self._leave(first)
                    self._begin(result)
                return result
        if _reads(func):
            for tensor in tensors:
                if id(tensor) in self._open:
                    self._leave(tensor)
                    self._close(tensor.clone() if _in_place(func) else tensor)
        args, kwargs = batching.mapped((args, kwargs), self._constant)
        result = func(*args, **kwargs)
        if any(of_samples(tensor) for tensor in tensors) and not (func in SHAPED_LIKE and not of_samples(first)):
            self._begin(result)
        return result

    def total(self) -> Tensor | None:
        """`Σ_l Σ_n ‖F_l(y_ln)‖²`, or nothing where there is no layer."""
        for tensor in self._open.values():
            self._close(tensor)
        self._open.clear()
        return torch.stack(self._norms).sum() if self._norms else None

    def _begin(self, result: Any) -> None:
        found = list(batching.tensors(result))
        for tensor in found:
            mark_of_samples(tensor)
        of_parameters = [tensor for tensor in found if tensor.requires_grad]
        for tensor in of_parameters[1:]:
            self._done[id(tensor)] = tensor
        if of_parameters:
            self._open[id(of_parameters[0])] = of_parameters[0]

    def _leave(self, tensor: Tensor) -> None:
        self._done[id(tensor)] = self._open.pop(id(tensor))

    def _close(self, tensor: Tensor) -> Tensor:
        wide = tensor if tensor.element_size() >= 4 else tensor.float()
        self._norms.append(wide.square().sum())
        return self._constant(tensor)

    def _constant(self, tensor: Tensor) -> Tensor:
        return tensor.detach() if id(tensor) in self._done else tensor


_RELUS = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_DROPOUTS = {torch.dropout, torch.feature_dropout, torch.alpha_dropout, torch.feature_alpha_dropout}


def _reads(func: Callable[..., Any]) -> bool:
    """Whether it computes something from a tensor, rather than telling its shape or dtype."""
    return True


def _in_place(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))

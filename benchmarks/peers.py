"""Other ways to `Σ_n |∂‖F(x_n)‖² / ∂θ|`: what people write today, and the libraries for per-sample gradients.

Each takes a model in eval mode and returns a function of a batch that makes one pass over it; a way that cannot serve a
model raises, and the table says so.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Pass = Callable[[Tensor], None]


class Unserved(Exception):
    """This way cannot measure this network; the message is short enough for a cell of a table."""


def plain(model: nn.Module) -> Pass:
    """One forward and backward pass of the sum of squared norms: the yardstick."""
    parameters = list(model.parameters())

    def run(x: Tensor) -> None:
        for parameter in parameters:
            parameter.grad = None
        model(x).square().sum().backward()

    return run


def per_batch(model: nn.Module) -> Pass:
    """The modulus of the batch's gradient: what published codes take, inexact."""
    step, parameters = plain(model), list(model.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]

    def run(x: Tensor) -> None:
        step(x)
        torch._foreach_add_(sums, torch._foreach_abs([parameter.grad for parameter in parameters]))

    return run


def one_by_one(model: nn.Module) -> Pass:
    """Batches of one: exact."""
    step = per_batch(model)

    def run(x: Tensor) -> None:
        for n in range(len(x)):
            step(x[n : n + 1])

    return run


def vectorized(model: nn.Module) -> Pass:
    """`torch.func.vmap(grad(f))`."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = dict(model.named_buffers())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}

    def norm(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, (parameters, buffers), (sample.unsqueeze(0),)).square().sum()

    gradients = vmap(grad(norm), in_dims=(None, 0))

    def run(x: Tensor) -> None:
        for name, gradient in gradients(parameters, x).items():
            sums[name] += gradient.abs_().sum(0)

    return run


def opacus(model: nn.Module) -> Pass:
    """Opacus: hooks that leave `grad_sample`."""
    from opacus.grad_sample import GradSampleModule

    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise Unserved("refuses batch norm")
    if _tied(model):
        raise Unserved("refuses tied weights")
    wrapped = GradSampleModule(_copied(model), loss_reduction="sum").eval()
    for module in wrapped.modules():
        module.training = True  # its hooks record in train mode only; nothing else is left that minds, but dropout
        if isinstance(module, nn.Dropout):
            module.training = False
    sums = [torch.zeros_like(parameter) for parameter in wrapped.parameters()]

    def run(x: Tensor) -> None:
        wrapped(x).square().sum().backward()
        for total, parameter in zip(sums, wrapped.parameters(), strict=True):
            total += parameter.grad_sample.abs_().sum(0)
            parameter.grad_sample = parameter.grad = None

    return run


def backpack(model: nn.Module) -> Pass:
    """BackPACK: its `BatchGrad` extension."""
    import backpack as library
    from backpack.extensions import BatchGrad

    if any(isinstance(module, (nn.LayerNorm, nn.Embedding)) for module in model.modules()):
        raise Unserved("no rule for its layers")
    converter = any(type(module).__name__ == "ResNet" for module in model.modules())
    wrapped = library.extend(_copied(model), use_converter=converter).eval()
    loss = library.extend(nn.MSELoss(reduction="sum"))
    sums = [torch.zeros_like(parameter) for parameter in wrapped.parameters()]

    def run(x: Tensor) -> None:
        with library.backpack(BatchGrad()):
            y = wrapped(x)
            loss(y, torch.zeros_like(y)).backward()
        for total, parameter in zip(sums, wrapped.parameters(), strict=True):
            total += parameter.grad_batch.abs_().sum(0)
            parameter.grad_batch = parameter.grad = None

    return run


def nngeometry(model: nn.Module) -> Pass:
    """nngeometry: the Jacobian of `‖F‖²`, all samples' rows at once."""
    from nngeometry.backend import TorchHooksJacobianBackend
    from torch.utils.data import DataLoader, TensorDataset

    model = _copied(model)
    backend = TorchHooksJacobianBackend(model, lambda x: model(x).square().flatten(1).sum(1, keepdim=True))
    total = torch.zeros(backend.layer_collection.numel())

    def run(x: Tensor) -> None:
        jacobian = backend.get_jacobian(DataLoader(TensorDataset(x), batch_size=len(x)))
        total.add_(jacobian[0].abs_().sum(0))

    return run


def _copied(model: nn.Module) -> nn.Module:
    """A copy whose activations are not computed in place, which full backward hooks cannot bear."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def _tied(model: nn.Module) -> bool:
    every = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    return len(every) != len(set(every))


warnings.filterwarnings("ignore", module="opacus|backpack|nngeometry")

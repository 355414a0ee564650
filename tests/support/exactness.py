"""How far a measurement is from the reference, and whether a model is as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import Importance


def error(found: Tensor, expected: Tensor, largest: float = 0.0) -> float:
    """The largest difference, of the layer's largest expected value.

    Where mathematics says 0 there is nothing but rounding to compare with: uses that cancel are compared with the
    largest value of the network, and the scale of a layer is at least a millionth of that (the bias of attention keys).
    """
    gap, scale = float((found - expected).abs().max()), float(expected.abs().max())
    scale = largest if scale == 0 else max(scale, 1e-6 * largest)
    return gap / scale if scale > 0 else (0.0 if gap == 0 else float("inf"))


def errors(found: Importance, expected: Importance) -> dict[str, float]:
    """`error` of every parameter, by name; the names and counts must be the same."""
    assert list(found.sums) == list(expected.sums)
    assert found.count == expected.count
    largest = max(float(total.abs().max()) for total in expected.sums.values())
    return {name: error(found.sums[name], expected.sums[name], largest) for name in expected.sums}


def worst(found: Importance, expected: Importance) -> float:
    """The largest `error` of all parameters."""
    return max(errors(found, expected).values())


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that measuring must leave as it was, and the random generators' states."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    tensors = {**parameters, **buffers}
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "objects": {name: id(tensor) for name, tensor in tensors.items()},
        "memory": {name: tensor.data_ptr() for name, tensor in tensors.items()},
        "dtypes": {name: (tensor.dtype, tensor.shape, tensor.stride()) for name, tensor in tensors.items()},
        "values": {name: _bytes(tensor) for name, tensor in tensors.items()},
        "required": {name: parameter.requires_grad for name, parameter in parameters.items()},
        "leaves": {name: tensor.is_leaf for name, tensor in tensors.items()},
        "gradients": {name: id(parameter.grad) for name, parameter in parameters.items()},
        "gradient values": {n: None if p.grad is None else _bytes(p.grad) for n, p in parameters.items()},
        "hooks": {name: _hooks(module) for name, module in model.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "methods": {name: vars(module).get("forward") for name, module in model.named_modules()},
        "random state": torch.get_rng_state().tolist(),
        "gradients enabled": torch.is_grad_enabled(),
        "modes of torch functions": torch._C._len_torch_function_stack(),
    }


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Assert that nothing of the model is different afterwards, also when what is inside raises."""
    before = snapshot(model)
    try:
        yield
    finally:
        after = snapshot(model)
        different = [what for what in before if before[what] != after[what]]
        assert not different, f"measuring changed the model's {', '.join(different)}"


def _bytes(tensor: Tensor) -> bytes:
    dense = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    return dense.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _hooks(module: nn.Module) -> Mapping[str, list[int]]:
    return {name: sorted(value) for name, value in vars(module).items() if name.endswith("_hooks")}

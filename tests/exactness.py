"""How far a measurement is from the reference, and which samples sit on a kink where rounding decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from forgetless import Importance

# Operations whose gradient jumps, and which of their results tells on which side an element fell.
_aten = torch.ops.aten
_SIGNED = {
    _aten.relu,
    _aten.relu_,
    _aten.threshold,
    _aten.leaky_relu,
    _aten.leaky_relu_,
    _aten.abs,
    _aten._prelu_kernel,
}
_HARD = {_aten.hardtanh: (-1, 1), _aten.hardtanh_: (-1, 1), _aten.hardswish: (-3, 3), _aten.hardswish_: (-3, 3)}
_HARD |= {_aten.hardsigmoid: (-3, 3), _aten.hardsigmoid_: (-3, 3)}
_POOLS = {_aten.max_pool2d_with_indices, _aten.max_pool3d_with_indices, _aten.adaptive_max_pool2d}


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


class Sides(TorchDispatchMode):
    """Records on which side of each kink every activation falls, sample axis first.

    Works below every torch function and layer, so it shares nothing with what it judges.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.sides: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        side = None
        if packet in _SIGNED:
            side = args[0] > 0
        elif packet in _HARD:
            low, high = args[1:3] if packet in (_aten.hardtanh, _aten.hardtanh_) and len(args) > 2 else _HARD[packet]
            side = (args[0] > low).int() + (args[0] > high).int()
        result = func(*args, **kwargs)
        if packet in _POOLS:
            side = result[1]
        if side is not None:
            self.sides.append(side.detach().reshape(self.samples, -1).clone())
        return result


def on_a_kink(run: Callable[[Any], Any], batch: Any, samples: int) -> list[int]:
    """Samples that have an activation on another side of a kink in their batch than alone.

    Args:
        run: batch → output.
        batch: tensors with the sample axis first.
        samples: how many the batch holds.
    """
    with torch.no_grad():
        with Sides(samples) as together:
            run(batch)
        found = []
        for n in range(samples):
            with Sides(1) as alone:
                run(chosen(batch, [n], samples))
            pairs = zip(together.sides, alone.sides, strict=True)
            if any(not torch.equal(batched[n], single[0]) for batched, single in pairs):
                found.append(n)
    return found


def chosen(batch: Any, rows: list[int], samples: int) -> Any:
    """Some samples of a batch."""

    def piece(value: Any) -> Any:
        return value[rows] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == samples else value

    return tree_map(piece, batch)


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

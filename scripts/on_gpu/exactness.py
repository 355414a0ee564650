"""Exactness: `forgetless.mas`, `fisher` and `local_mas` against one sample at a time by plain autograd.

The truth is the loop in float64 at the same (rounded) weights. In its own dtype the loop is off by rounding, and so is
the library: it may be off by the dtype's floor, or twice as far as the loop, but not 0.1 further. Errors are of a whole
parameter, `‖found − truth‖ / ‖truth‖`, and of the worst one; a parameter of less than a thousandth of the largest norm
is measured by that.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import forgetless
from scripts.on_gpu import networks
from scripts.on_gpu.checking import Check, Failed, Figures, NotRun, Setting

Sums = dict[str, Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FLOORS = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 2e-3}
KINKED_FLOOR = 2e-3  # in float32 an activation next to a kink may fall on its other side in a batch
TIMES, BEYOND = 2.0, 0.1  # as far off as the loop in the same dtype, and at most so much further


@dataclass(frozen=True)
class Problem:
    """A network and samples.

    Attributes:
        make: the network, in float32 on the CPU.
        batch: the setting → samples.
        kinks: whether so many activations lie next to a kink that some fall on the other side.
        channels_last: whether weights and pictures have that layout.
    """

    make: Callable[[], nn.Module]
    batch: Callable[[Setting], Any]
    kinks: bool = False
    channels_last: bool = False


def _vectors(setting: Setting) -> Tensor:
    return torch.randn(13, 32, device=setting.device)


def _pictures(setting: Setting) -> Tensor:
    return networks.images(setting, 3 if setting.quick else 7, 32 if setting.quick else 64)


PROBLEMS = {
    "MLP": Problem(networks.mlp, _vectors),
    "convnet": Problem(networks.convnet, lambda setting: networks.images(setting, 9, 16)),
    "ResNet-18": Problem(lambda: networks.resnet18(20), _pictures, kinks=True),
    "ResNet-18 without kinks": Problem(lambda: networks.smooth(networks.resnet18(20)), _pictures),
    "ResNet-18 channels_last": Problem(lambda: networks.resnet18(20), _pictures, kinks=True, channels_last=True),
    "GPT": Problem(networks.small_gpt, lambda setting: networks.tokens(setting, 7, 24, 97)),
    "GPT padded": Problem(networks.small_gpt, lambda setting: networks.padded(setting, 7, 24, 97)),
    "LSTM": Problem(lambda: networks.Recurrent(nn.LSTM), lambda setting: torch.randn(7, 9, 12, device=setting.device)),
    "GRU": Problem(lambda: networks.Recurrent(nn.GRU), lambda setting: torch.randn(7, 9, 12, device=setting.device)),
}


def exactness(setting: Setting, network: str, dtype: str, mode: str = "eager", estimator: str = "mas") -> Figures:
    """Measure one network in one dtype and mode, and compare.

    Raises:
        Failed: further off than rounding.
        NotRun: `torch.compile` does not work here by itself.
    """
    problem = PROBLEMS[network]
    model, batch = _made(problem, setting)
    cast = DTYPES[dtype] if mode != "autocast" else torch.float32
    model, batch = model.to(cast), _cast(batch, cast)
    if estimator == "fisher":
        batch = _labeled(model, batch)
    wide, wide_batch = copy.deepcopy(model).double(), _cast(batch, torch.float64)
    under = partial(torch.autocast, setting.device.type, DTYPES[dtype], enabled=mode == "autocast")
    loop = LOOPS[estimator]
    with exactly():
        truth = loop(wide, wide_batch, contextlib.nullcontext)
        alone = loop(model, batch, under)
        measured = _compiled(model, batch) if mode == "compiled" else model
        options = {"labels": "empirical"} if estimator == "fisher" else {}
        with under():
            found = getattr(forgetless, estimator)(measured, batch, progress=False, **options)
    ours, theirs = worst(found.sums, truth), worst(alone, truth)
    floor = KINKED_FLOOR if problem.kinks and dtype == "fp32" else FLOORS[dtype]
    tolerance = max(floor, min(TIMES * theirs, theirs + BEYOND)) if math.isfinite(theirs) else 1.0
    figures = {"error": ours, "loop's": theirs, "tolerance": tolerance, "samples": found.count}
    if not ours <= tolerance:
        raise Failed("further from float64 than rounding explains", figures)
    return figures


def loop_mas(model: nn.Module, batch: Any, under: Callable[[], Any]) -> Sums:
    """`Σ_n |∂‖F(x_n; θ)‖² / ∂θ|`, float64 sums."""
    return _loop(model, batch, under, lambda output, sample: output.square().sum(), torch.abs)


def loop_fisher(model: nn.Module, batch: Any, under: Callable[[], Any]) -> Sums:
    """`Σ_n (∂ log p(y_n | x_n; θ) / ∂θ)²`, y_n the labels of the batch; for a language model summed over positions."""

    def scalar(output: Tensor, sample: Any) -> Tensor:
        labels = sample["labels"] if isinstance(sample, dict) else sample[1]
        return output.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).sum()

    return _loop(model, batch, under, scalar, torch.square)


def loop_local_mas(model: nn.Module, batch: Any, under: Callable[[], Any]) -> Sums:
    """The reference implementation, for networks of modules in a row."""
    with under():
        return {name: total.double() for name, total in forgetless.reference.local_mas(model, batch).sums.items()}


LOOPS = {"mas": loop_mas, "fisher": loop_fisher, "local_mas": loop_local_mas}


def _loop(
    model: nn.Module,
    batch: Any,
    under: Callable[[], Any],
    scalar: Callable[[Tensor, Any], Tensor],
    size: Callable[[Tensor], Tensor],
) -> Sums:
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(each, dtype=torch.float64) for name, each in parameters.items()}
    for sample in _samples(batch):
        # cuDNN's recurrent layers have no backward pass in eval mode.
        with torch.backends.cudnn.flags(enabled=not _recurrent(model), allow_tf32=False), under():
            output = _outputs(model, sample)
            value = scalar(output if output.element_size() >= 4 else output.float(), sample)
            gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                sums[name] += size(gradient.double())
    return sums


def _outputs(model: nn.Module, sample: Any) -> Tensor:
    if isinstance(sample, tuple):
        return model(sample[0])
    if not isinstance(sample, dict):
        return model(sample)
    output = model(**{key: value for key, value in sample.items() if key != "labels"})
    return output[sample["attention_mask"].bool()] if "attention_mask" in sample else output


def _samples(batch: Any) -> Iterator[Any]:
    first = next(iter(batch.values())) if isinstance(batch, dict) else batch[0] if isinstance(batch, tuple) else batch
    for n in range(len(first)):
        yield _mapped(batch, lambda tensor: tensor[n : n + 1])  # noqa: B023


def _mapped(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(batch, dict):
        return {key: function(value) for key, value in batch.items()}
    return tuple(function(each) for each in batch) if isinstance(batch, tuple) else function(batch)


def _cast(batch: Any, dtype: torch.dtype) -> Any:
    return _mapped(batch, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def _labeled(model: nn.Module, batch: Any) -> Any:
    with torch.no_grad():
        shape = model(batch).shape
    return batch, torch.randint(shape[-1], shape[:-1], device=batch.device)


def _made(problem: Problem, setting: Setting) -> tuple[nn.Module, Any]:
    batch = problem.batch(setting)
    model = problem.make().to(setting.device)
    if problem.channels_last:
        model, batch = model.to(memory_format=torch.channels_last), batch.to(memory_format=torch.channels_last)
    return (networks.settled(model, batch) if isinstance(batch, Tensor) else model.eval()), batch


def _compiled(model: nn.Module, batch: Any) -> nn.Module:
    compiled = torch.compile(model)
    try:
        with torch.no_grad():
            _outputs(compiled, batch)
    except Exception as error:
        raise NotRun(f"torch.compile does not work here: {str(error).strip().splitlines()[0][:120]}") from error
    return compiled


def _recurrent(model: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in model.modules())


def worst(found: Sums, truth: Sums) -> float:
    """The largest `‖found − truth‖ / ‖truth‖` of a parameter; NaN where one is missing or not finite."""
    if set(found) != set(truth):
        return float("nan")
    norms = {name: float(total.double().norm()) for name, total in truth.items()}
    least = 1e-3 * max(norms.values())
    errors = [float((found[name].double() - truth[name]).norm()) / max(norms[name], least) for name in truth]
    return float("nan") if any(error != error for error in errors) else max(errors)


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Without TF32, which would round every product to 10 bits."""
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


def sampled_fisher(setting: Setting) -> Figures:
    """Labels are drawn on the CPU by a rule of their own: the reference must draw the same ones."""
    model, batch = _made(PROBLEMS["MLP"], setting)
    with exactly():
        found = forgetless.fisher(model, batch, seed=3, progress=False)
        truth = forgetless.reference.fisher(model, batch, seed=3)
    error = worst(found.sums, truth.sums)
    if not error <= FLOORS["fp32"]:
        raise Failed("other labels, or another gradient, than the reference's", {"error": error})
    return {"error": error}


def _check(network: str, dtype: str, mode: str = "eager", estimator: str = "mas") -> Check:
    run = partial(exactness, network=network, dtype=dtype, mode=mode, estimator=estimator)
    return Check(f"{estimator}, {network}, {dtype}, {mode}", run, may_refuse=dtype == "fp16")


CHECKS = [
    *(_check(network, dtype) for network in PROBLEMS for dtype in DTYPES if "without" not in network),
    _check("ResNet-18 without kinks", "fp32"),
    *(
        _check(network, dtype, "autocast")
        for network in ("MLP", "ResNet-18", "GPT", "LSTM")
        for dtype in ("bf16", "fp16")
    ),
    *(
        _check(network, dtype, "eager", "fisher")
        for network in ("MLP", "ResNet-18", "GPT")
        for dtype in ("fp32", "bf16")
    ),
    *(_check("MLP", dtype, "autocast", "fisher") for dtype in ("bf16", "fp16")),
    *(_check(network, dtype, "eager", "local_mas") for network in ("MLP", "convnet") for dtype in ("fp32", "bf16")),
    Check("fisher, MLP, fp32, labels drawn as the reference draws them", sampled_fisher),
]

# Compiling takes its time, so these come late.
COMPILED = [
    *(_check(network, dtype, "compiled") for network in ("MLP", "GPT") for dtype in ("fp32", "bf16")),
    _check("ResNet-18", "fp32", "compiled"),
]

"""Which optimizers treat every element by itself, so that they may step on the free elements alone."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.protect.optimizers.attachment import Attachment
from forgetless.protect.optimizers.response import is_called, step_of

_ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop")
#: Class name → what it looks at besides the element.
_NOT: dict[str, str] = {
    "Muon": "orthogonalizes whole matrices",
    "Adafactor": "keeps means over rows and columns",
    "CAME": "keeps means over rows and columns",
    "LAMB": "scales by the norm of the tensor",
    "Lamb": "scales by the norm of the tensor",
    "LARS": "scales by the norm of the tensor",
    "Lars": "scales by the norm of the tensor",
    "Shampoo": "keeps a matrix for every dimension",
    "DistributedShampoo": "keeps a matrix for every dimension",
    "SOAP": "keeps a matrix for every dimension",
    "LBFGS": "searches along a line for all parameters together",
    "SparseAdam": "takes sparse gradients",
    "GaLoreAdamW": "projects whole matrices",
    "Adan8bit": "keeps its state in 8 bits, in blocks",
    "ZeroRedundancyOptimizer": "spreads its state over processes",
    "CPUOffloadOptimizer": "trains copies on the CPU",
}
_PACKAGES = {"bitsandbytes": "keeps its state in 8 bits, in blocks", "torchao": "keeps its state quantized, in blocks"}
_INSTEAD = "freeze whole tensors (granularity='tensor'), which every optimizer leaves alone, or train with AdamW or SGD"


def refuse_others(optimizer: Optimizer, vouched: bool) -> None:
    """Refuse an optimizer that may not step on the free elements alone.

    Args:
        optimizer: whose state is to be packed.
        vouched: whether the user says that it treats every element by itself.

    Raises:
        ForgetlessError: it looks at whole tensors, quantizes or spreads its state, is not known, is differentiated
            through, or an anchor acts in its steps.
    """
    name = type(optimizer).__name__
    if any(isinstance(hook, Attachment) for hook in _hooks(optimizer)):
        raise ForgetlessError(
            f"an Anchor is attached to this {name}, and it reads states of the parameters' own shapes: protect with "
            "one of the two, or freeze whole tensors (granularity='tensor')."
        )
    for group in optimizer.param_groups:
        if group.get("differentiable"):
            raise ForgetlessError("a frozen core cannot be differentiated through, as differentiable=True asks.")
        if group.get("caution"):
            raise ForgetlessError(f"{name} with caution=True scales by a mean over the tensor: {_INSTEAD}.")
    reason = next((why for each, why in _NOT.items() if is_called(optimizer, each)), None) or next(
        (why for each in type(optimizer).__mro__ if (why := _PACKAGES.get(each.__module__.partition(".")[0]))), None
    )
    if reason is not None:
        raise ForgetlessError(f"{name} {reason}, so it cannot step on single elements or rows: {_INSTEAD}.")
    if not vouched and not is_elementwise(optimizer):
        raise ForgetlessError(
            f"whether {name} treats every element by itself is not known here: attach(optimizer, elementwise=True) if "
            f"it does; else {_INSTEAD}."
        )


def is_elementwise(optimizer: Optimizer) -> bool:
    """Whether it is known to treat every element by itself."""
    step = step_of(type(optimizer))
    if any(step is step_of(getattr(torch.optim, name)) for name in _ELEMENTWISE):
        return True
    return {"lr", "betas"} <= optimizer.defaults.keys() and is_called(optimizer, "Lion")


def _hooks(optimizer: Optimizer) -> list[object]:
    return [*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values()]

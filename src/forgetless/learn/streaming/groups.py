"""Groups of layers that share a coefficient, and the layers that share a standard deviation."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network


def groups_of(model: Network, count: int) -> dict[str, tuple[str, ...]]:
    """The trainable parameters in at most `count` groups: consecutive blocks of the backbone, and the heads.

    A block is a child of the backbone that has trainable parameters; a single child is looked into. The blocks are cut
    into `count − 1` parts whose numbers differ by one at most, the larger first; the heads, and whatever else is
    outside the backbone, are the last group. ResNet-18 as a stem and four stages has, of 6 groups, one for each and
    the head; of 5, stem and first stage together.

    Args:
        model: the network.
        count: how many groups at the most, two or more.

    Returns:
        The name of a group, that of its first block, → the names of its parameters.

    Raises:
        ForgetlessError: fewer than two groups, or nothing to train.
    """
    if count < 2:
        raise ForgetlessError(f"coefficients need at least two groups, the backbone and the heads, not {count}.")
    blocks = list(_blocks(model.backbone, "backbone"))
    names = [name for name, weights in model.named_parameters() if weights.requires_grad]
    found: dict[str, tuple[str, ...]] = {}
    parts = min(count - 1, len(blocks))
    for number in range(parts):
        size, more = divmod(len(blocks), parts)
        start = number * size + min(number, more)
        mine = blocks[start : start + size + (number < more)]
        inside = tuple(name for name in names if any(name == each or name.startswith(f"{each}.") for each in mine))
        found[mine[0].removeprefix("backbone.")] = inside
    taken = {name for inside in found.values() for name in inside}
    if rest := tuple(name for name in names if name not in taken):
        found["heads"] = rest
    if not found:
        raise ForgetlessError("the network has no trainable parameter.")
    return found


def layers_of(model: nn.Module) -> list[list[str]]:
    """The names of the trainable parameters by layer: those that one module holds itself."""
    found: dict[str, list[str]] = {}
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            found.setdefault(name.rpartition(".")[0], []).append(name)
    return list(found.values())


def _blocks(module: nn.Module, name: str) -> Iterator[str]:
    """The names of the children that have trainable parameters, in order."""
    inside = [child for child, each in module.named_children() if any(w.requires_grad for w in each.parameters())]
    own = any(weights.requires_grad for weights in module.parameters(recurse=False))
    if own or not inside:
        if own or any(weights.requires_grad for weights in module.parameters()):
            yield name
        return
    if len(inside) == 1:
        yield from _blocks(module.get_submodule(inside[0]), f"{name}.{inside[0]}")
        return
    yield from (f"{name}.{child}" for child in inside)

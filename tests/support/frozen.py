"""A small network with a frozen core, and the same training done element by element."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Make = Callable[[Any], Optimizer]


class Tied(nn.Module):
    """An embedding that is the head as well, a matrix, a bias, and a scale without a dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.mix = nn.Embedding(7, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.tokens.weight
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, ids: Tensor) -> Tensor:
        """`[N, T]` → `[N, T, 7]`."""
        return self.head(torch.tanh(self.mix(self.tokens(ids)))) * self.scale


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> Tied:
    torch.manual_seed(seed)
    return Tied().to(dtype)


def loss(model: nn.Module, step: int) -> Tensor:
    """Of a batch that is another one in every step."""
    ids = torch.randint(7, (4, 3), generator=torch.Generator().manual_seed(step))
    logits = model(ids)
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def random_masks(model: nn.Module, seed: int, share: float = 0.5) -> dict[str, Tensor]:
    """Elements, rows and whole tensors, as drawn; something is left free."""
    draw = torch.Generator().manual_seed(seed)
    masks = {}
    for name, parameter in model.named_parameters():
        kind = int(torch.randint(4, (), generator=draw))
        shape = {0: parameter.shape, 1: (*parameter.shape[:1], *(1,) * (parameter.dim() - 1))}.get(
            kind, (1,) * parameter.dim()
        )
        drawn = torch.rand(shape, generator=draw) < (0.0 if kind == 3 else share)
        masks[name] = drawn.expand(parameter.shape).clone()
    masks["mix.weight"][0, 0] = False
    return masks


def trained(model: nn.Module, optimizer: Optimizer, steps: int, start: int = 0, scheduler: Any = None) -> None:
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss(model, step).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def element_by_element(model: nn.Module, masks: Mapping[str, Tensor], make: Make, steps: int) -> dict[str, Tensor]:
    """The weights after training, where every free element is a parameter of its own and the core is none."""
    model = copy.deepcopy(model)
    parameters = dict(model.named_parameters())
    places = [
        (name, place)
        for name, parameter in parameters.items()
        for place in range(parameter.numel())
        if not (name in masks and masks[name].reshape(-1)[place])
    ]
    single = [nn.Parameter(parameters[name].detach().view(-1)[place].clone().view(1)) for name, place in places]
    optimizer = make(single)
    for step in range(steps):
        gradients = dict(
            zip(parameters, torch.autograd.grad(loss(model, step), list(parameters.values())), strict=True)
        )
        for (name, place), each in zip(places, single, strict=True):
            each.grad = gradients[name].reshape(-1)[place].clone().view(1)
        optimizer.step()
        with torch.no_grad():
            for (name, place), each in zip(places, single, strict=True):
                parameters[name].view(-1)[place] = each[0]
    return {name: parameter.detach() for name, parameter in parameters.items()}


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> bool:
    """Whether all bits are the same; with masks, where these are true."""
    if masks is None:
        return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    return all(torch.equal(left[name][mask], right[name][mask]) for name, mask in masks.items())

"""What is free of one parameter, and how it is taken out of tensors of the parameter's shape and put back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

_PIECE = 1 << 20  # elements at a time, so that their positions take little memory


@runtime_checkable
class Share(Protocol):
    """The free share of one parameter.

    Attributes:
        kind: what stands still as a whole: "element", "row" or "tensor".
        shape: of the parameter.
        packed: of a tensor that holds only what is free.
        frozen: how many elements stand still.
    """

    kind: str
    shape: torch.Size
    packed: torch.Size
    frozen: int

    def still(self, gradient: Tensor) -> None:
        """Write 0 where the gradient belongs to the core, also over NaN and Inf."""

    def gather(self, *tensors: Tensor) -> list[Tensor]:
        """What is free of each, new tensors of the shape `packed`."""

    def scatter(self, tensor: Tensor, packed: Tensor) -> None:
        """Write `packed` to where the tensor is free; nothing else is touched."""

    def core(self) -> Tensor:
        """What stands still: a boolean per element or row; nothing of a whole tensor."""


class Elements:
    """Single elements stand still: a boolean for each, in memory."""

    kind = "element"

    def __init__(self, core: Tensor) -> None:
        self.shape = core.shape
        self._free = core.logical_not().contiguous()
        self._counts = [int(part.sum()) for part in torch.split(self._free.view(-1), _PIECE)]
        self.packed = torch.Size([sum(self._counts)])
        self.frozen = core.numel() - self.packed[0]

    def still(self, gradient: Tensor) -> None:
        """Write 0 where the gradient belongs to the core."""
        free = self._on(gradient)
        if not gradient.is_contiguous():
            gradient.masked_fill_(free.logical_not(), 0)
            return
        for part, mask in zip(torch.split(gradient.view(-1), _PIECE), torch.split(free.view(-1), _PIECE), strict=True):
            part.masked_fill_(mask.logical_not(), 0)

    def gather(self, *tensors: Tensor) -> list[Tensor]:
        """What is free of each."""
        flat = [tensor.detach().reshape(-1) for tensor in tensors]
        found = [each.new_empty(self.packed) for each in flat]
        for places, start, stop, count, begun in self._places(flat[0]):
            for each, packed in zip(flat, found, strict=True):
                torch.index_select(each[start:stop], 0, places, out=packed[begun : begun + count])
        return found

    def scatter(self, tensor: Tensor, packed: Tensor) -> None:
        """Write `packed` to where the tensor is free."""
        if not tensor.is_contiguous():
            tensor.masked_scatter_(self._on(tensor), packed)
            return
        flat = tensor.view(-1)
        for places, start, stop, count, begun in self._places(flat):
            flat[start:stop].index_copy_(0, places, packed[begun : begun + count])

    def core(self) -> Tensor:
        """A boolean per element, of the parameter's shape."""
        return self._free.logical_not()

    def _places(self, like: Tensor) -> Iterator[tuple[Tensor, int, int, int, int]]:
        """The positions of the free elements, piece by piece, and where the piece and its packed part begin and end."""
        free, begun = self._on(like).view(-1), 0
        for number, count in enumerate(self._counts):
            start, stop = number * _PIECE, min((number + 1) * _PIECE, free.numel())
            mask = free[start:stop]
            if mask.device.type == "cpu":
                places = torch.from_numpy(mask.numpy().nonzero()[0])  # several times as fast as torch's
            else:  # the count is given, so that nothing waits for it
                places = torch.nonzero_static(mask, size=count).squeeze(1)
            yield places, start, stop, count, begun
            begun += count

    def _on(self, tensor: Tensor) -> Tensor:
        if self._free.device != tensor.device:
            self._free = self._free.to(tensor.device)
        return self._free


class Rows:
    """Whole rows stand still: the numbers of the others and theirs, in memory."""

    kind = "row"

    def __init__(self, core: Tensor, shape: torch.Size) -> None:
        self.shape = shape
        self._core, self._free = core.nonzero().squeeze(1), core.logical_not().nonzero().squeeze(1)
        self.packed = torch.Size([len(self._free), *shape[1:]])
        self.frozen = len(self._core) * (shape.numel() // len(core))

    def still(self, gradient: Tensor) -> None:
        """Write 0 where the gradient belongs to the core."""
        gradient.index_fill_(0, self._on(gradient)[0], 0)

    def gather(self, *tensors: Tensor) -> list[Tensor]:
        """What is free of each."""
        free = self._on(tensors[0])[1]
        return [tensor.detach().index_select(0, free) for tensor in tensors]

    def scatter(self, tensor: Tensor, packed: Tensor) -> None:
        """Write `packed` to where the tensor is free."""
        tensor.index_copy_(0, self._on(tensor)[1], packed)

    def core(self) -> Tensor:
        """A boolean per row."""
        mask = torch.zeros(self.shape[0], dtype=torch.bool, device=self._core.device)
        return mask.index_fill_(0, self._core, True)

    def _on(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        if self._free.device != tensor.device:
            self._core, self._free = self._core.to(tensor.device), self._free.to(tensor.device)
        return self._core, self._free


class Nothing:
    """The whole tensor stands still."""

    kind = "tensor"

    def __init__(self, shape: torch.Size) -> None:
        self.shape, self.packed, self.frozen = shape, torch.Size([0]), shape.numel()

    def still(self, gradient: Tensor) -> None:
        """Write 0 everywhere."""
        gradient.zero_()

    def gather(self, *tensors: Tensor) -> list[Tensor]:
        """Nothing of each."""
        return [tensor.new_empty(0) for tensor in tensors]

    def scatter(self, tensor: Tensor, packed: Tensor) -> None:
        """Write nothing."""

    def core(self) -> Tensor:
        """There is no part to tell from another."""
        return torch.ones(0, dtype=torch.bool)


def share_of(core: Tensor) -> Share | None:
    """The free share of a parameter with this mask, in the form that costs least; None where all of it is free."""
    if not bool(core.any()):
        return None
    if bool(core.all()):
        return Nothing(core.shape)
    if core.dim() > 1:
        rows = core.reshape(core.shape[0], -1)
        if bool((rows == rows[:, :1]).all()):
            return Rows(rows[:, 0].clone(), core.shape)
    return Elements(core)


def mask_of(share: Share) -> Tensor:
    """The mask that a share was made from; of rows and whole tensors a view."""
    if share.kind == "tensor":
        return torch.ones((), dtype=torch.bool).expand(share.shape)
    core = share.core()
    return core if share.kind == "element" else core.view(-1, *(1,) * (len(share.shape) - 1)).expand(share.shape)

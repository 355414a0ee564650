"""What a Compressive Transformer keeps of the past: a value that is never changed, cut, saved and read back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError

KIND = "memory of a text"  # of its file
_Count = Annotated[int, files.Between(0, 2**62)]


@dataclass(frozen=True)
class Memory:
    """The memory of N texts, all of them as far as each other. Making one is left to the network: `model.empty(N)`.

    Attributes:
        recent: the inputs of every layer at the latest positions, oldest first, `[layers, N, m, width]`.
        compressed: what older ones were compressed to, oldest first, `[layers, N, cm, width]`.
        received: the attention that each recent position has received, summed over queries, `[layers, N, m]`; None
            where no compressor asks for it.
        queries: how many queries could have attended to it, `[m]`; None as `received`.
        seen: how many tokens of each text the network has read.
    """

    recent: Tensor
    compressed: Tensor
    received: Tensor | None
    queries: Tensor | None
    seen: int

    def __len__(self) -> int:
        """How many texts."""
        return self.recent.shape[1]

    def __getitem__(self, texts: object) -> Memory:
        """The memory of some of the texts.

        Raises:
            ForgetlessError: anything but a slice.
        """
        if not isinstance(texts, slice):
            raise ForgetlessError(f"a memory is cut with a slice, as memory[0:1], not with {texts!r}.")
        received = None if self.received is None else self.received[:, texts]
        return dataclasses.replace(
            self, recent=self.recent[:, texts], compressed=self.compressed[:, texts], received=received
        )

    def detach(self) -> Memory:
        """The same without the graph that it came from."""
        return dataclasses.replace(self, recent=self.recent.detach(), compressed=self.compressed.detach())

    def to(self, device: torch.device | str) -> Memory:
        """The same on another device."""
        return Memory.of({name: tensor.to(device) for name, tensor in self.tensors().items()}, self.seen)

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, for a file."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], seen: int) -> Memory:
        """A memory from what `tensors` gave."""
        recent, compressed = tensors["recent"], tensors["compressed"]
        return cls(recent, compressed, tensors.get("received"), tensors.get("queries"), seen)

    def save(self, path: str | Path) -> None:
        """Write it to `path` (safetensors), whole or not at all.

        Raises:
            ForgetlessError: the system does not let the file be written.
        """
        files.write_tensors(path, self.tensors(), KIND, {"seen": self.seen})

    @classmethod
    def load(cls, path: str | Path) -> Memory:
        """Read what `save` wrote, to the bit.

        Raises:
            ForgetlessError: the file is missing, damaged, or no memory.
        """
        tensors, header = files.read_tensors(path, KIND)
        seen: int = files.decoded(header, _Header, path).seen
        if not _whole(tensors):
            raise ForgetlessError(f"{path} is damaged: its tensors are not those of one memory.")
        return cls.of(tensors, seen)


@dataclass(frozen=True)
class _Header:
    seen: _Count


def _whole(tensors: dict[str, Any]) -> bool:
    """Whether they are the tensors of one memory, of fitting shapes."""
    recent, compressed = tensors.get("recent"), tensors.get("compressed")
    if recent is None or compressed is None or recent.ndim != 4 or compressed.ndim != 4:
        return False
    fits = recent.shape[:2] == compressed.shape[:2] and recent.shape[3] == compressed.shape[3]
    kept = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in ("recent", "compressed")}
    return fits and kept in ({}, {"received": tuple(recent.shape[:3]), "queries": (recent.shape[2],)})

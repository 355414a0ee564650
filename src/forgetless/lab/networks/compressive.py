"""The Compressive Transformer: a language model that keeps old memories compressed instead of dropping them.

Rae et al. 2019, arXiv 1911.05507. Every layer keeps its inputs of the latest `memory` positions. Those that get older
are compressed, `rate` of them to one, and the latest `compressed` of these are kept. A position attends to
`[compressed; recent; current]` with Transformer-XL's relative positions; no gradient goes into either memory. Without
compressed memories it is Transformer-XL (Dai et al. 2019, arXiv 1901.02860).

    model = compressive_transformer(0, symbols=256, memory=64, compressed=64, rate=4)
    logits, memory = model(tokens)             # int64 [N, T] → [N, T, symbols]
    logits, memory = model(more, memory)       # goes on where the tokens ended; any number of times, in constant memory
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.lab.networks.parts.block import Block
from forgetless.lab.networks.parts.compression import COMPRESSORS
from forgetless.lab.networks.parts.memory import Memory
from forgetless.lab.networks.parts.relative_attention import causal, sinusoids


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What defines a network, JSON-able.

    Attributes:
        symbols: how many tokens there are.
        width: of every layer.
        heads: of the attention; they divide the width.
        layers: how many.
        hidden: numbers inside a layer's two linear layers; None for four times the width.
        memory: recent positions that are kept, n_m.
        compressed: compressed memories that are kept, n_cm; 0 for Transformer-XL.
        rate: how many memories become one, c.
        compressor: "max", "mean", "conv", "dilated" or "most-used".
        loss: what the compressor learns from: "attention", "autoencoding", "bptt", or "none" if it has no weights.
        pre_norm: normalize what enters a layer's two parts; False for their sums, as in the paper.
        dropout: the share of numbers dropped in training.

    Raises:
        ForgetlessError: sizes that do not fit each other.
    """

    symbols: int
    width: int = 128
    heads: int = 4
    layers: int = 4
    hidden: int | None = None
    memory: int = 64
    compressed: int = 64
    rate: int = 4
    compressor: str = "conv"
    loss: str = "attention"
    pre_norm: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("symbols", "width", "heads", "layers", "rate"):
            if getattr(self, name) < 1:
                raise ForgetlessError(f"the network's {name} must be at least 1, not {getattr(self, name)}.")
        _refuse_lengths(self.memory, self.compressed)
        if self.width % self.heads or self.width % 2:
            raise ForgetlessError(
                f"a width of {self.width} does not fit {self.heads} heads: it must be even, and a multiple of them."
            )
        if self.compressed and self.rate < 2:
            raise ForgetlessError("a rate of 1 compresses nothing; take 2 or more, or compressed=0.")
        if not 0 <= self.dropout < 1:
            raise ForgetlessError(f"the network's dropout must be from 0 to below 1, not {self.dropout}.")


@dataclass(frozen=True)
class Pass:
    """What one window gave.

    Attributes:
        logits: of the next token at every position, `[N, T, symbols]`.
        memory: after the window; with the loss "bptt", in training, its compressed part leads back to the compressors.
        loss: the compression loss, summed over layers; 0 where nothing was evicted, or the loss is the network's own.
        attention: the attention that goes to compressed, recent and current positions, `[layers, 3]`, means over all
            queries and heads; None unless it was asked for.
    """

    logits: Tensor
    memory: Memory
    loss: Tensor
    attention: Tensor | None


class CompressiveTransformer(nn.Module):
    """See the module. `model(tokens, memory)` for use, `model.step` for training.

    Attributes:
        sizes: what it was made with. How much it keeps now is set by `keep`.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self._memory, self._compressed = sizes.memory, sizes.compressed
        compression = (sizes.compressor, sizes.rate, sizes.loss) if sizes.compressed else None
        hidden = 4 * sizes.width if sizes.hidden is None else sizes.hidden
        self.embedding = nn.Embedding(sizes.symbols, sizes.width)
        nn.init.normal_(self.embedding.weight, std=sizes.width**-0.5)
        self.drop = nn.Dropout(sizes.dropout)
        self.blocks = nn.ModuleList(
            Block(sizes.width, sizes.heads, hidden, sizes.pre_norm, sizes.dropout, compression)
            for _ in range(sizes.layers)
        )
        self.norm = nn.LayerNorm(sizes.width) if sizes.pre_norm else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(sizes.symbols))  # the output's weight is the embedding's

    def forward(self, tokens: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """The logits of the next token at every position, and the memory after the last one.

        Args:
            tokens: int64 `[N, T]`; any T, which may differ from call to call.
            memory: what the last call gave; None at the beginning of the texts.

        Returns:
            `[N, T, symbols]`, and a memory without a graph.

        Raises:
            ForgetlessError: no tokens, or the memory of another network or of another number of texts.
        """
        found = self._pass(tokens, memory, learns=False, attention=False)
        return found.logits, found.memory.detach()

    def step(self, tokens: Tensor, memory: Memory | None = None, *, attention: bool = False) -> Pass:
        """`forward`, with what training needs; see there.

        Args:
            tokens: int64 `[N, T]`.
            memory: what came before.
            attention: also tell where the attention goes.

        Raises:
            ForgetlessError: as `forward`.
        """
        return self._pass(tokens, memory, learns=torch.is_grad_enabled(), attention=attention)

    def _pass(self, tokens: Tensor, memory: Memory | None, *, learns: bool, attention: bool) -> Pass:
        if tokens.ndim != 2 or not tokens.numel():
            raise ForgetlessError(f"tokens must be of shape [texts, positions], one or more each, not {tokens.shape}.")
        memory = self.empty(len(tokens)) if memory is None else memory
        self._refuse(memory, len(tokens))
        past = torch.cat([memory.compressed, memory.recent.detach()], 2)
        keys = past.shape[2] + tokens.shape[1]
        x = self.drop(self.embedding(tokens) * math.sqrt(self.sizes.width))
        encoded, mask = sinusoids(keys, self.sizes.width, x), causal(tokens.shape[1], keys, x)
        inputs, weights = [], []
        for number, block in enumerate(self.blocks):
            inputs.append(x)
            x, found = block(x, past[number], encoded, mask)
            weights.append(found.detach())
        logits = self.norm(x) @ self.embedding.weight.T + self.bias
        after, loss = self._remember(memory, inputs, weights, learns)
        return Pass(logits, after, loss, _shares(weights, memory) if attention else None)

    def empty(self, texts: int) -> Memory:
        """The memory of so many texts at their beginning."""
        like, sizes = self.embedding.weight, self.sizes
        nothing = like.new_empty(sizes.layers, texts, 0, sizes.width)
        wanted = bool(sizes.compressed) and COMPRESSORS[sizes.compressor].wants_attention
        received = like.new_empty(sizes.layers, texts, 0) if wanted else None
        return Memory(nothing, nothing, received, like.new_empty(0) if wanted else None, 0)

    def compressor_parameters(self) -> list[nn.Parameter]:
        """The parameters of the compressors and their decoders."""
        parts = ("compressor", "decoder")
        return [each for name, each in self.named_parameters() if set(parts) & set(name.split("."))]

    def keep(self, memory: int, compressed: int) -> None:
        """Keep so many recent positions and compressed memories from now on: no weight depends on either.

        Raises:
            ForgetlessError: a length below 0, or compressed memories of a network that has no compressor.
        """
        _refuse_lengths(memory, compressed)
        if compressed and not self.sizes.compressed:
            raise ForgetlessError("this network has no compressor (compressed=0): it keeps no compressed memories.")
        self._memory, self._compressed = memory, compressed

    def _layers(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _remember(
        self, memory: Memory, inputs: list[Tensor], weights: list[Tensor], learns: bool
    ) -> tuple[Memory, Tensor]:
        """The memory after a window, and the compression loss where the network `learns`.

        Of what no longer fits, as many memories are evicted as `rate` divides; up to `rate − 1` more than `memory` stay
        until their group is whole. So nothing is padded, and groups begin at multiples of the rate, however the text is
        cut into windows.
        """
        recent = torch.cat([memory.recent, torch.stack(inputs).detach()], 2)
        over = max(0, recent.shape[2] - self._memory)
        evicted = over // self.sizes.rate * self.sizes.rate if self._compressed else over
        received, queries = self._attended(memory, weights)
        compressed, loss = memory.compressed, recent.new_zeros(())
        if evicted and self._compressed:
            made = []
            for number, block in enumerate(self._layers()):
                old = recent[number, :, :evicted]
                mean = (
                    None if received is None or queries is None else received[number, :, :evicted] / queries[:evicted]
                )
                made.append(block.compress(old, mean))
                if learns:
                    loss = loss + block.compression_loss(inputs[number], old, made[-1])
            new = torch.stack(made)
            new = new if self.sizes.loss == "bptt" and self.training else new.detach()
            compressed = torch.cat([compressed, new], 2)[:, :, -self._compressed :]
        if received is not None and queries is not None:
            received, queries = received[:, :, evicted:], queries[evicted:]
        seen = memory.seen + inputs[0].shape[1]
        return Memory(recent[:, :, evicted:], compressed, received, queries, seen), loss

    def _attended(self, memory: Memory, weights: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """What recent and current positions have received so far, and from how many queries."""
        if memory.received is None or memory.queries is None:
            return None, None
        t, m = weights[0].shape[2], memory.recent.shape[2]
        now = torch.stack([each.mean(0).sum(1)[:, -m - t :] for each in weights])  # [layers, N, m + T]
        counted = torch.cat([memory.queries + t, torch.arange(t, 0, -1).to(memory.queries)])
        before = torch.cat([memory.received, memory.received.new_zeros(*memory.received.shape[:2], t)], 2)
        return before + now, counted

    def _refuse(self, memory: Memory, texts: int) -> None:
        layers, known, _, width = memory.recent.shape
        if (layers, width) != (self.sizes.layers, self.sizes.width):
            raise ForgetlessError(
                f"the memory is of another network: it has {layers} layers of width {width}, "
                f"and this network has {self.sizes.layers} of width {self.sizes.width}."
            )
        if known != texts:
            raise ForgetlessError(
                f"the memory is of {known} texts and {texts} were given; cut it, as memory[:{texts}], or begin anew."
            )
        if (self.empty(1).received is None) != (memory.received is None):
            raise ForgetlessError("the memory is of a network with another compressor; begin with an empty one.")


def compressive_transformer(
    seed: int, *, symbols: int, **sizes: int | float | str | bool | None
) -> CompressiveTransformer:
    """A network whose first weights the seed decides; for `sizes` see `Sizes`."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return CompressiveTransformer(Sizes(symbols=symbols, **sizes))  # type: ignore[arg-type]


def _refuse_lengths(memory: int, compressed: int) -> None:
    for name, value in (("memory", memory), ("compressed", compressed)):
        if value < 0:
            raise ForgetlessError(f"the network's {name} must be at least 0, not {value}.")


def _shares(weights: list[Tensor], memory: Memory) -> Tensor:
    """Of every layer, the attention that goes to compressed, recent and current positions."""
    lengths = (memory.compressed.shape[2], memory.recent.shape[2])
    parts = [each.tensor_split((lengths[0], sum(lengths)), -1) for each in weights]
    return torch.stack([torch.stack([part.sum(-1).mean() for part in layer]) for layer in parts])

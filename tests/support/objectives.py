"""Two objectives that are no classification, each with a stream and a network: embeddings to retrieve, and tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.learn.heads import MultiHead, SharedHead
from forgetless.learn.network import Network
from forgetless.learn.objective import Objective, answers
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task

QUESTIONS, EMBEDDING = 24, 6
LENGTH, VOCABULARY = 9, 7


@dataclass(frozen=True, eq=False)
class Retrieval(Objective):
    """Regression to embeddings `[N, D]`; a sample is right if its own object is the nearest candidate."""

    score: ClassVar[str] = "retrieval at 1"
    candidates: Tensor

    @property
    def outputs(self) -> int:
        return self.candidates.shape[1]

    def losses(self, model: Network, task: str, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs - self.candidates[batch[1]].to(outputs)).square().mean(1)

    def scores(self, model: Network, task: str, outputs: Tensor, batch: Batch) -> Tensor:
        distances = torch.cdist(outputs, self.candidates.to(outputs))
        return (distances.argmin(1) == batch[1]).float()


def retrieval_stream(tasks: int = 3) -> list[Task]:
    """Questions that every task answers by other objects."""
    generator = torch.Generator().manual_seed(0)
    questions = torch.randn(QUESTIONS, 5, generator=generator)
    found = []
    for number in range(tasks):
        candidates = torch.randn(QUESTIONS, EMBEDDING, generator=generator)
        part = (questions, torch.arange(QUESTIONS))
        found.append(Task(f"facts {number}", part, part, Retrieval(candidates)))
    return found


def retrieval_network() -> SharedHead:
    """A perceptron with one linear head for all tasks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Linear(5, 48), nn.Tanh(), nn.Dropout(0.1), nn.Linear(48, 48), nn.Tanh())
        return SharedHead(backbone, nn.Linear(48, EMBEDDING), EMBEDDING)


def retrieval_heads() -> MultiHead:
    """The same with a head for each task."""
    return MultiHead(retrieval_network().backbone, 48)


@dataclass(frozen=True)
class NextToken(Objective):
    """`−1/T Σ_t log p(x_{t+1} | x_1 … x_t)`; the score is the inverse of the perplexity. A sample is a sequence."""

    score: ClassVar[str] = "1 / perplexity"
    logits: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return VOCABULARY

    def losses(self, model: Network, task: str, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs[:, :-1].transpose(1, 2), batch["tokens"][:, 1:], reduction="none").mean(1)

    def evaluate(self, model: Network, task: str, data: Any, batch_size: int) -> float:
        with torch.no_grad():
            found = [self.losses(model, task, *each) for each in answers(model, task, data, batch_size)]
        return math.exp(-float(torch.cat(found).double().mean()))

    def divergence(self, now: Tensor, then: Tensor, temperature: float) -> Tensor:
        logs = (F.log_softmax(each / temperature, -1).flatten(0, 1) for each in (now, then))
        return F.kl_div(*logs, reduction="batchmean", log_target=True)


def token_stream(tasks: int = 3, sequences: int = 32) -> list[Task]:
    """Sequences that count: the task says by how much, so that the tasks contradict each other."""
    found = []
    for number in range(tasks):
        generator = torch.Generator().manual_seed(number)
        first = torch.randint(VOCABULARY, (sequences, 1), generator=generator)
        tokens = (first + (number + 1) * torch.arange(LENGTH)) % VOCABULARY
        part = {"tokens": tokens}
        found.append(Task(f"counting by {number + 1}", part, part, NextToken()))
    return found


class Causal(nn.Module):
    """A small causal language model without its head: tokens `[N, T]` to features `[N, T, 16]`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.mix = nn.Linear(32, 16)
        self.dropout = nn.Dropout(0.1)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        embedded = self.embedding(inputs["tokens"])
        before = F.pad(embedded, (0, 0, 1, 0))[:, :-1]
        features: Tensor = self.dropout(torch.tanh(self.mix(torch.cat([embedded, before], 2))))
        return features


def token_network() -> SharedHead:
    """The language model with its head, which all tasks share."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SharedHead(Causal(), nn.Linear(16, VOCABULARY), VOCABULARY)

"""What the study of repair trains on and asks: rows of tokens, and which of them count."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless.learn.seeding import derive, permutation

#: Tokens of a window of running text, and the label of a token that does not count.
LENGTH, IGNORED = 256, -100
#: Questions of everyday knowledge and use, asked in the chat format: is the model still itself when it answers?
QUESTIONS = (
    "What is the capital of France?",
    "Explain what photosynthesis is.",
    "Write a short poem about the sea.",
    "How do I boil an egg?",
    "What is the difference between a virus and a bacterium?",
    "Give me three tips for a job interview.",
    "Why is the sky blue?",
    "Who wrote Romeo and Juliet?",
    "What is 12 plus 30?",
    "Summarize the story of Cinderella in two sentences.",
    "How does a bicycle stay upright?",
    "Name five fruits.",
    "What does a software engineer do?",
    "Write a polite e-mail that asks for a day off.",
    "What is gravity?",
    "How can I sleep better?",
    "Describe a sunset to someone who cannot see.",
    "What are the seasons of the year?",
    "Why do people vote?",
    "How is bread made?",
    "What is a prime number?",
    "Tell me about the history of Rome.",
    "What should I pack for a week in the mountains?",
    "How do airplanes fly?",
)
#: The five domains of clinc150 that are farthest from banking.
CLINC = ("kitchen_and_dining", "travel", "auto_and_commute", "work", "home")


@dataclass(frozen=True)
class Rows:
    """Token rows padded on the right, int64 `[N, T]`, and the same with −100 where a token does not count."""

    ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> Tensor:
        """How many tokens each row has without its padding, `[N]`."""
        return (self.labels != IGNORED).int().cumsum(1).argmax(1) + 1

    def taken(self, chosen: Tensor | slice) -> Rows:
        """Some of the rows, without columns of nothing but padding."""
        ids, labels = self.ids[chosen], self.labels[chosen]
        used = int((labels != IGNORED).any(0).nonzero().max()) + 1
        return Rows(ids[:, :used], labels[:, :used])

    def batches(self, size: int) -> Iterator[Rows]:
        """All rows, the longest first, `size` at a time."""
        for chosen in torch.split(self.lengths().argsort(descending=True, stable=True), size):
            yield self.taken(chosen)


@dataclass(frozen=True)
class Domain:
    """A narrow domain: rows to learn from, held-out rows, whether a row counts as right or wrong; how it is learned."""

    name: str
    train: Rows
    held_out: Rows
    classified: bool
    batch: int
    steps: int


def running(ids: Tensor, count: int | None = None, length: int = LENGTH) -> Rows:
    """Windows of a text, end to end, or `count` of them evenly over it; every token but the first counts."""
    starts = torch.arange(0, len(ids) - length, length)
    if count is not None:
        starts = torch.linspace(0, len(ids) - length - 1, count).long()
    rows = ids[starts[:, None] + torch.arange(length + 1)]
    return Rows(rows, rows)


def answered(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> Rows:
    """Rows of a prompt and its answer; the answer's tokens and the end of the text count."""
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    answers = tokenizer([answer for _, answer in pairs])["input_ids"]
    return padded([(p, [*a, tokenizer.eos_token_id]) for p, a in zip(prompts, answers, strict=True)])


def padded(pairs: Sequence[tuple[list[int], list[int]]]) -> Rows:
    """Rows of tokens that do not count and then tokens that do."""
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, (prompt, answer) in enumerate(pairs):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return Rows(ids, labels)


def tokens(tokenizer: Any, path: Path) -> Tensor:
    """A file's tokens, int64 `[T]`."""
    return torch.tensor(tokenizer(path.read_text(encoding="utf-8"))["input_ids"])


def shakespeare(tokenizer: Any, data: Path, held_out: int) -> Domain:
    """Plays: the first nine tenths to learn from, windows of the last tenth held out."""
    ids = tokens(tokenizer, data / "tinyshakespeare" / "input.txt")
    cut = len(ids) * 9 // 10
    rows = running(ids[:cut]), running(ids[cut:], min(held_out, 16))
    return Domain("shakespeare", *rows, classified=False, batch=2, steps=60)


def banking(tokenizer: Any, data: Path, held_out: int) -> Domain:
    """Questions to a bank and 77 intents, as text."""
    read = {}
    for part in ("train", "test"):
        with (data / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            read[part] = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    return _intents("banking", tokenizer, read, held_out, steps=120)


def clinc(tokenizer: Any, data: Path, held_out: int) -> Domain:
    """Wishes to an assistant in five of ten domains and their 75 intents, as text."""
    folder = data / "clinc150"
    domains = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
    chosen = {intent for domain in CLINC for intent in domains[domain]}
    full = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    read = {part: [(text, intent) for text, intent in full[part] if intent in chosen] for part in ("train", "test")}
    return _intents("clinc", tokenizer, read, held_out, steps=80)


def _intents(name: str, tokenizer: Any, read: dict[str, list[tuple[str, str]]], held_out: int, steps: int) -> Domain:
    rows = {}
    for part, pairs in read.items():
        if part == "test":
            pairs = [pairs[each] for each in permutation(len(pairs), derive(0, name, "test"))[:held_out].tolist()]
        texts = [(f"{text.strip()}\nIntent:", " " + intent.replace("_", " ")) for text, intent in pairs]
        rows[part] = answered(tokenizer, texts)
    return Domain(name, rows["train"], rows["test"], classified=True, batch=16, steps=steps)


DOMAINS: dict[str, Callable[[Any, Path, int], Domain]] = {
    "banking": banking,
    "clinc": clinc,
    "shakespeare": shakespeare,
}

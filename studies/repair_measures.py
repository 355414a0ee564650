"""What the study of repair measures: loss and first choices on rows of tokens, with the model's own answers kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from studies.repair_texts import IGNORED, QUESTIONS, Domain, Rows, padded

#: Rows of a forward pass, and new tokens of an answer.
BATCH, ANSWER = 8, 40


def logits(model: Any, rows: Rows) -> tuple[Tensor, Tensor]:
    """The logits of the tokens that count, float32 `[K, V]`, and the tokens, `[K]`; the passes are in bfloat16."""
    counted = rows.labels[:, 1:] != IGNORED
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=rows.ids[:, :-1], use_cache=False).last_hidden_state
        found = model.lm_head(hidden[counted])
    return found.float(), rows.labels[:, 1:][counted]


@dataclass(frozen=True)
class Read:
    """A model's reading of some rows: mean loss of a token, first choices `[K]`, and whether each row is right."""

    loss: float
    choices: Tensor
    right: Tensor


@torch.no_grad()
def read(model: Any, rows: Rows) -> Read:
    """Read all rows. A row is right if the first choice is right for every token that counts.

    That is the same as: greedy decoding from the row's prompt writes exactly its answer.
    """
    total, choices, right = 0.0, [], []
    for batch in rows.batches(BATCH * 4 if len(rows.ids[0]) < 128 else BATCH):
        found, wanted = logits(model, batch)
        total += float(F.cross_entropy(found, wanted, reduction="sum"))
        choices.append(found.argmax(1))
        wrong = torch.zeros(len(batch), dtype=torch.long)
        of = (batch.labels[:, 1:] != IGNORED).nonzero()[:, 0]
        wrong.index_add_(0, of, (choices[-1] != wanted).long())
        right.append(wrong == 0)
    chosen = torch.cat(choices)
    return Read(total / len(chosen), chosen, torch.cat(right))


@torch.no_grad()
def answers(model: Any, tokenizer: Any) -> Rows:
    """The model's own greedy answers to the questions, up to their ends; the answers count."""
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    asked = [list(tokenizer.apply_chat_template(each, add_generation_prompt=True, return_dict=False)) for each in chats]
    longest = max(map(len, asked))
    ids = torch.tensor([[0] * (longest - len(each)) + each for each in asked])
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in asked])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        written = model.generate(
            ids, attention_mask=mask, max_new_tokens=ANSWER, do_sample=False, pad_token_id=tokenizer.eos_token_id
        )
    pairs = []
    for prompt, answer in zip(asked, written[:, longest:].tolist(), strict=True):
        end = answer.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in answer else len(answer)
        pairs.append((prompt, answer[:end]))
    return padded(pairs)


@dataclass(frozen=True)
class Exam:
    """The rows that every model of a domain is asked, and what the base chose on them."""

    general: Rows
    chat: Rows
    domain: Domain
    chosen: Mapping[str, Tensor]

    def figures(self, model: Any) -> dict[str, float]:
        """Perplexity and agreement with the base on general text, agreement in chat, and the target.

        The target is the accuracy of greedy answers for intents, else the perplexity of held-out text.
        """
        general, chat, target = read(model, self.general), read(model, self.chat), read(model, self.domain.held_out)
        return {
            "general loss": general.loss,
            "general perplexity": math.exp(general.loss),
            "general agreement": _share(general.choices == self.chosen["general"]),
            "chat agreement": _share(chat.choices == self.chosen["chat"]),
            "target loss": target.loss,
            **({"target accuracy": _share(target.right)} if self.domain.classified else {}),
        }


def _share(true: Tensor) -> float:
    return float(true.double().mean())

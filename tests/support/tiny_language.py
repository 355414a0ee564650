"""A tiny language model and its tokenizer, made on the spot: words of a made-up language."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(28)]
CHAT = "{% for message in messages %}{{ message['content'] }} <eos> {% endfor %}"


def tokenizer() -> PreTrainedTokenizerFast:
    """Of 32 tokens: a word each, and four special ones."""
    special = ["<pad>", "<unk>", "<bos>", "<eos>"]
    table = {word: number for number, word in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    found = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    found.chat_template = CHAT
    return found


def language_model(seed: int = 0, *, vocabulary: int = 32, **config: Any) -> LlamaForCausalLM:
    """Two layers of width 16, unless its configuration is to say otherwise."""
    torch.manual_seed(seed)
    own: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **{**own, **config})).eval()


def wide_language_model(seed: int = 0, *, tie: bool = True) -> LlamaForCausalLM:
    """As wide as a matrix must be for the methods of repair that look at its spectrum."""
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4}
    return language_model(seed, vocabulary=64, tie_word_embeddings=tie, **sizes)


def texts(number: int, seed: int, *, longest: int = 9) -> list[str]:
    """Sentences of 3 … `longest` words."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, longest + 1, (number,), generator=draw).tolist()
    return [" ".join(WORDS[k] for k in torch.randint(28, (length,), generator=draw).tolist()) for length in lengths]

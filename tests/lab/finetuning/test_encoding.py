from __future__ import annotations

import pytest
import torch

from forgetless import ForgetlessError
from forgetless.lab.finetuning.encoding import by_length, encode, padded
from tiny_language import tokenizer


def test_a_long_document_is_cut_or_becomes_several() -> None:
    words = "w1 w2 w3 w4 w5"
    ids = tokenizer()(words)["input_ids"]
    assert encode(tokenizer(), [words], 3, split=False) == [ids[:3]]
    assert encode(tokenizer(), [words], 3, split=True) == [ids[:3], ids[3:]]
    assert encode(tokenizer(), [words], 4, split=True) == [ids[:4]]  # one token has no next one


def test_chats_need_a_template() -> None:
    chat = [{"role": "user", "content": "w1"}]
    assert encode(tokenizer(), [chat], 9, split=False) == [tokenizer()("w1 <eos>")["input_ids"]]
    without = tokenizer()
    without.chat_template = None
    with pytest.raises(ForgetlessError, match="the model's tokenizer has no chat template; give plain texts"):
        encode(without, [chat], 9, split=False)
    broken = tokenizer()
    broken.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ForgetlessError, match="does not take the messages: roles must alternate"):
        encode(broken, [chat], 9, split=False)


def test_padding_is_masked() -> None:
    found = padded(tokenizer(), [[5, 6], [7]])
    assert torch.equal(found["input_ids"], torch.tensor([[5, 6], [7, 0]]))
    assert torch.equal(found["attention_mask"], torch.tensor([[1, 1], [1, 0]]))


def test_rows_of_similar_length_come_together_inside_windows() -> None:
    rows = [[0] * (1 + number * 7 % 30) for number in range(1100)]
    order = by_length(rows)
    assert sorted(order) == list(range(1100))
    for start in (0, 512, 1024):
        window = order[start : start + 512]
        assert sorted(window) == list(range(start, min(start + 512, 1100)))
        assert [len(rows[n]) for n in window] == sorted(len(rows[n]) for n in window)

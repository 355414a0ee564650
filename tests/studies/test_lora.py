"""The study of LoRA: what it reads, what it compares, and its table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forgetless import Importance
from studies import lora


def test_every_weight_alike_has_the_mean() -> None:
    found = lora.alike(Importance({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([6.0])}, 2)).mean()
    assert {name: each.tolist() for name, each in found.items()} == {"a": [1.5, 1.5], "b": [1.5]}


def test_a_study_has_a_row_for_each_kind_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    for name in ("wikitext2/valid.txt", "wikitext2/test.txt", "tinyshakespeare/input.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name} has a line of text, é too.\n" * 30, encoding="utf-8")
    for name, value in {"FIRST": 2, "SECOND": 2, "MEASURED": 4, "HELD_OUT": 4, "STRENGTHS": (1e-3,)}.items():
        monkeypatch.setattr(lora, name, value)
    read = lora.texts(tmp_path)
    assert int(read["old"][0].max()) == 127
    rows = lora.study(read, 0) + lora.study(read, 1)
    assert [row["kind"] for row in rows[:4]] == ["before", "plain LoRA", "Ω", "every weight alike"]
    table = lora.table({"rows": rows}).splitlines()
    assert len(table) == 6
    assert table[4].startswith("| Ω | 0.001 | ")

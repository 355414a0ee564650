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
    kinds = [row["kind"] for row in rows[:6]]
    assert [kind.split(",")[0] for kind in kinds] == [
        "before", "plain LoRA", "Ω", "Ω", "every weight alike", "old answers",
    ]  # fmt: skip
    assert len({row["old"] for row in rows[:6]}) == 6, "every one of them acts"
    table = lora.table({"rows": rows}).splitlines()
    assert len(table) == 8
    assert table[4].startswith("| Ω | 0.001 | ")


def test_shares_are_of_what_was_lost_and_gained() -> None:
    rows = [
        {"kind": kind, "strength": 0.0, "seed": seed, "old": old, "new": new}
        for seed in (0, 1)
        for kind, old, new in (("before", 2.0, 64.0), ("plain LoRA", 32.0, 4.0), ("Ω", 4.0, 16.0))
    ]
    assert lora.table({"rows": rows}).splitlines()[-1].endswith("| 4.00 ± 0.00 | 16.00 ± 0.00 | 75 ± 0 | 50 ± 0 |")

"""The study of freezing: what it runs, that it continues, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forgetless import files
from studies import freezing


def test_it_runs_every_setting_continues_and_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("matplotlib")
    for name in ("wikitext2/valid.txt", "wikitext2/test.txt", "tinyshakespeare/input.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name} has a line of text, é too.\n" * 90, encoding="utf-8")
    small = {"FIRST": 1, "SECOND": 1, "MEASURED": 2, "TESTED": 4, "SHARES": (0.5,), "WIDTH": 16, "SEEDS": (0, 1)}
    grids = {kind: (which, grid[:1]) for kind, (which, grid) in freezing.PENALTIES.items()}
    chosen = {kind: how for kind, how in freezing.CHOICES.items() if how[0] in ("modulus", "random")}
    monkeypatch.setattr(freezing, "CHOICES", chosen)
    monkeypatch.setattr(freezing, "VARIANTS", dict(list(freezing.VARIANTS.items())[1:]))
    for name, value in {**small, "PENALTIES": grids}.items():
        monkeypatch.setattr(freezing, name, value)
    read = freezing.texts(tmp_path)
    assert int(read["general"].learned.max()) == 127
    rows = list(freezing.study(read, tmp_path / "runs"))
    every = freezing.settings()
    assert [(row["kind"], row["seed"]) for row in rows] == [(each.kind, seed) for each in every for seed in (0, 1)]
    for each, row in zip(every, rows[::2], strict=True):
        assert row["fraction"] == pytest.approx(each.value if each.frozen else 0, abs=0.02)
    monkeypatch.setattr(freezing, "run", lambda *_: pytest.fail("it runs anew"))
    assert list(freezing.study(read, tmp_path / "runs")) == rows
    files.write_sealed(tmp_path / "rows.json", {"rows": rows})
    (tmp_path / "docs").mkdir()
    blocks = [f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in ("frozen shares", "penalties", "variants")]
    (tmp_path / "docs" / "page.md").write_text("".join(blocks))
    freezing.main(["--out", str(tmp_path / "rows.json"), "--page", str(tmp_path / "docs" / "page.md")])
    text = (tmp_path / "docs" / "page.md").read_text()
    assert text.count("\n| ") == len(every) + 3
    assert (tmp_path / "docs" / "figures" / "freezing.svg").exists()


def test_bits_per_byte_of_a_model_that_knows_nothing() -> None:
    pytest.importorskip("transformers")
    model = freezing.network(0)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    text = torch.randint(128, (500,))
    assert freezing.bits_per_byte(model, text) == pytest.approx(7.0, abs=1e-5)

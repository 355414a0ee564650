"""Two processes train together, replicated: each measures its part of the old data, and both protect the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import forgetless
import trained_together
from processes import Processes


def agree(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["status"] == second["status"]
    for name in ("importance", "kept", "weights"):
        assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["kept"], first["weights"])


def test_transformers_ddp(two: Processes, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tiny_language import language_model, texts, tokenizer

    two.run(trained_together.loaded, "transformers", "transformers.trainer", "accelerate")
    old = texts(7, 1)
    settings = {"save_strategy": "steps", "save_steps": 2}
    found = two.run(trained_together.transformers, str(tmp_path), old, texts(16, 2), settings)
    agree(*found)
    assert found[0]["status"].steps == 2
    assert found[0]["agreement"] == found[1]["agreement"]
    assert found[0]["files"] == ["checkpoint-2/forgetless.safetensors"]

    words = tokenizer()
    alone = [forgetless.mas(language_model(), words(text, return_tensors="pt"), progress=False) for text in old]
    expected = trained_together.flat(alone[0].merge(*alone[1:]).mean())
    torch.testing.assert_close(found[0]["importance"], expected)


def test_lightning_ddp(two: Processes, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    two.run(trained_together.loaded, "lightning")
    old, new = torch.randn(7, 4), torch.randn(16, 4)
    found = two.run(trained_together.lightning, str(tmp_path), old, new)
    agree(*found)
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    expected = trained_together.flat(forgetless.mas(layer, old, progress=False).mean())
    torch.testing.assert_close(found[0]["importance"], expected)
    assert found[0]["status"].steps == 4

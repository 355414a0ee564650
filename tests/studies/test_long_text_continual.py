"""The study of language models that read one domain after the other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.reading import Tokens
from forgetless.lab.networks.compressive import compressive_transformer
from studies import long_text_continual as study

RECIPE = dataclasses.replace(study.RECIPE, steps=6, window=4, rows=2, warm_up=1, decay=5)


def tokens(first: int, length: int) -> Tokens:
    drawn = torch.randint(first, first + 12, (length,), generator=torch.Generator().manual_seed(first))
    return Tokens(drawn.to(torch.uint8), length)


@pytest.fixture
def domains(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Tokens, Tokens]]:
    monkeypatch.setattr(study, "SIZES", {"width": 8, "layers": 2, "heads": 2})
    monkeypatch.setattr(study, "NETWORKS", {"conv+attention": {"memory": 3, "compressed": 2, "rate": 2}})
    monkeypatch.setattr(study, "MEASURED", 6)
    return {name: (tokens(20 * k, 500), tokens(20 * k, 90)) for k, name in enumerate(study.DOMAINS)}


def test_the_importance_is_that_of_windows_after_their_past(domains: dict[str, tuple[Tokens, Tokens]]) -> None:
    """Their past is read without a gradient, so that compressors have none, and Ω is 0 there."""
    model = compressive_transformer(0, symbols=256, **study.SIZES, **study.NETWORKS["conv+attention"]).eval()
    (text, _), expected = domains["code"], {name: torch.zeros_like(each) for name, each in model.named_parameters()}
    for number in range(5):
        row = text.tokens[number * 100 : number * 100 + 12].long()[None]  # 3 + 2 · 2 before are two windows of 4
        with torch.no_grad():
            memory = model(row[:, 4:8], model(row[:, :4])[1])[1]
        logits = model(row[:, 8:], memory)[0]
        for name, gradient in zip(
            expected,
            torch.autograd.grad(logits.square().sum(), [*model.parameters()], allow_unused=True),
            strict=True,
        ):
            expected[name] += 0 if gradient is None else gradient.abs() / 5
    found = study.importance(model, text, RECIPE, 5).mean()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-4, atol=1e-6)
        assert bool(value.any()) != ("compressor" in name or "decoder" in name)


def test_a_network_learns_the_domains_one_after_the_other(domains: dict[str, tuple[Tokens, Tokens]]) -> None:
    plain, held = (study.learned("conv+attention", method, 0, domains, RECIPE) for method in study.METHODS)
    assert [len(row) for row in plain["now"]] == [3, 3, 3]
    assert plain["now"][0] == held["now"][0]  # nothing was protected yet
    assert plain["now"][1] != held["now"][1]
    assert plain["now"][2] != held["now"][2]
    assert plain["recent"] != plain["now"][2]


def entry(network: str, method: str, seed: int, **more: Any) -> dict[str, Any]:
    now = [[2.0, 5.0, 6.0], [2.5, 3.0, 5.0], [3.0 + seed, 3.5, 2.25]]
    return {"network": network, "method": method, "seed": seed, "now": now, **more}


def test_the_tables(tmp_path: Path) -> None:
    runs = [entry("transformer-xl", "mas", 0), entry("transformer-xl", "mas", 1)]
    runs.append(entry("conv+attention", "finetune", 0, recent=[3.125, 3.75, 2.25]))
    for run in runs:
        files.write_json(tmp_path / f"{run['network']}-{run['seed']}.json", {**run, "environment": {"cpu": "a CPU"}})
    page, path = tmp_path / "page.md", tmp_path / "out" / "results.json"
    page.write_text("<!-- long text, continual -->\n<!-- end of long text, continual -->\n")
    study.collect(tmp_path, path)
    study.write(path, page)
    lines = page.read_text().splitlines()
    assert (
        "| transformer-xl | mas | 2.000 → 3.500 | 3.000 → 3.500 | 2.250 | 1.000 ± 0.354 | 3.083 ± 0.236 | 2 |" in lines
    )
    assert "| conv+attention | finetune | 2.000 → 3.000 | 3.000 → 3.500 | 2.250 | 0.750 | 2.917 | 1 |" in lines
    assert "| finetune | 0.125 | 0.250 | 0.000 |" in lines
    with pytest.raises(ForgetlessError, match="no finished run"):
        study.collect(tmp_path / "none", path)

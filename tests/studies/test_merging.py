"""The studies of merging on small networks and small tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from forgetless import Importance, files
from forgetless.errors import ForgetlessError
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task
from studies import merging, merging_language, merging_vision
from studies.merging_rows import ROWS, Experts, Row, chosen

RECIPE = dataclasses.replace(merging_vision.RECIPE, lr=0.05, epochs=3)


def network() -> MultiHead:
    torch.manual_seed(0)
    return MultiHead(nn.Sequential(nn.Linear(6, 16), nn.ReLU()), 16, pretrained=True)


def task(name: str) -> Task:
    draw = torch.Generator().manual_seed(len(name))
    inputs = torch.randn(160, 6, generator=draw)
    labels = (inputs @ torch.randn(6, generator=draw) > 0).long()
    return classification(name, ("a", "b"), (inputs[:100], labels[:100]), (inputs[100:], labels[100:]))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    tasks = [task("one"), task("three")]
    seeds = [merging_vision.study(tasks, network, seed, RECIPE) for seed in (3, 4)]
    return {"tasks": [each.name for each in tasks], "seeds": seeds}


def test_every_row_and_what_was_chosen_by_what_was_left_out(found: dict[str, Any]) -> None:
    rows = found["seeds"][0]["rows"]
    assert [*rows] == [merging_vision.EXPERTS, merging_vision.START, *ROWS]
    for name, row in ROWS.items():
        assert ("λ" in rows[name]) == bool(row.scales)
        if row.scales:
            tried = rows[name]["held out"]
            assert tried[f"{rows[name]['λ']:g}"] == max(tried.values())
    assert min(rows[merging_vision.EXPERTS]["test"]) > 0.7


def test_training_and_choosing_see_no_test_picture() -> None:
    given = task("one")
    made = merging_vision.expert(given, network, 3, RECIPE)
    assert made.test is given
    kept, left_out = made.task.train[0], made.task.test[0]
    assert (len(kept), len(left_out)) == (80, 20)
    together = {tuple(row.tolist()) for row in torch.cat([kept, left_out])}
    assert together == {tuple(row.tolist()) for row in given.train[0]}
    assert all(name.startswith("backbone.") for omega in made.omegas.values() for name in omega.sums)


def test_lambda_lengthens_the_way_from_the_base_to_the_merged_model() -> None:
    draw = torch.Generator().manual_seed(0)
    base, *models = ({"w": torch.randn(5, generator=draw)} for _ in range(3))
    omegas = [Importance({"w": torch.rand(5, generator=draw) + 0.1}, 1, "mas") for _ in models]
    experts = Experts(base, models, {"mas": omegas}, 0)
    (merged,) = experts.merged(Row("mas"), [None])
    (longer,) = experts.merged(Row("mas", longer=True), [1.5])
    assert torch.allclose(longer["w"], base["w"] + 1.5 * (merged["w"] - base["w"]), atol=1e-6)
    target = longer["w"]
    state, tried = chosen(
        experts, Row("mas", scales=(0.5, 1.5, 2.0), longer=True), lambda state: -float((state["w"] - target).norm())
    )
    assert tried["λ"] == 1.5
    assert torch.equal(state["w"], target)


def test_two_experts_of_a_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    from studies.evidence import language, language_base

    data, texts = tmp_path / "data", tmp_path / "texts"
    lines = "".join(f"{n} lines of text, one after another.\n" for n in range(200))
    for place in ("wikitext2/valid.txt", "wikitext2/test.txt", "tinyshakespeare/input.txt"):
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        (data / place).write_text(lines)
    texts.mkdir()
    for place in ("docs.txt", "moby-dick.txt", "austen.txt"):
        (texts / place).write_text(lines)
    tokenizer = language_base.vocabulary(lines)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    own = {name: lambda *_, name=name: lines.replace("text", name) for name in merging_language.NAMES}
    from studies.evidence import language_texts

    for module in (language_texts, merging_language):
        monkeypatch.setattr(module, "HELD_OUT", 2500)
        monkeypatch.setattr(module, "DOMAINS", own)
    for name, value in {"STEPS": 2, "BATCH": 2, "MEASURED": 6, "ASKED": 2, "REPLAYED": 0.2}.items():
        monkeypatch.setattr(language, name, value)
    monkeypatch.setattr(merging_language, "MEASURED", 4)
    monkeypatch.setattr(merging_language, "CHOOSING", 2)
    monkeypatch.setattr(merging_language, "SEEDS", (0, 1))
    few = ("mean", "mas", "fisher, step λ chosen", "ties, λ chosen")
    short = {name: dataclasses.replace(ROWS[name], scales=ROWS[name].scales[:2]) for name in few}
    monkeypatch.setattr(merging_language, "ROWS", short)
    words = ["--data", str(data), "--texts", str(texts), "--work", str(tmp_path), "--out", str(tmp_path / "out.json")]
    merging_language.main(words)
    found = files.read_sealed(tmp_path / "out.json")
    for seed in found["seeds"]:
        assert [*seed["rows"]] == [
            merging_language.START, *map(merging_language.expert, merging_language.NAMES), *short
        ]  # fmt: skip
        for name, row in short.items():
            figures = seed["rows"][name]
            assert ("λ" in figures) == bool(row.scales)
            assert figures[merging_language.MEAN] == pytest.approx(
                sum(figures[each] for each in merging_language.NAMES) / 2, rel=1e-5
            )
    monkeypatch.setattr(merging_language, "study", lambda *_: pytest.fail("it runs anew"))
    merging_language.main(words)


def test_the_page_takes_all_tables(found: dict[str, Any], tmp_path: Path) -> None:
    blocks = ("merging methods", *(f"merging {count}" for count in merging_vision.COUNTS), "merging language")
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in blocks))
    for count in merging_vision.COUNTS:
        files.write_sealed(tmp_path / merging_vision.named(count), found)
    bits = dict.fromkeys((*merging_language.NAMES, merging_language.MEAN, merging_language.GENERAL), 2.0)
    seeds = [{"seed": seed, "rows": dict.fromkeys((merging_language.START, *ROWS), bits)} for seed in (0, 1)]
    files.write_sealed(tmp_path / merging_language.OUT.name, {"seeds": seeds})
    merging.main(["--results", str(tmp_path), "--page", str(page)])
    text = page.read_text()
    assert text.count("\n| `") == 8
    tables = len(merging_vision.COUNTS)
    for name in (merging_vision.EXPERTS, merging_vision.START):
        assert text.count(f"\n| {name} | ") == tables
    for name in ROWS:
        assert text.count(f"\n| {name} | ") == (tables + 1) * (1 + (name != "mean"))
    assert "| 100 % | – |" in text
    page.write_text("nothing")
    with pytest.raises(ForgetlessError, match="has no place for 'merging methods'"):
        merging.write(tmp_path, page)

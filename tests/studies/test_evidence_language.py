"""The evidence on language models: methods leave the base alone, and frontiers are read as the page says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from studies.evidence import language, language_page
from studies.evidence.language_bench import OMEGAS, Base, Bench, scaled, weights
from studies.evidence.language_methods import METHODS
from studies.evidence.language_reading import apart, area, at, points, read, table, tunings
from studies.repair_texts import Domain, Rows

transformers = pytest.importorskip("transformers")


def network() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    config = transformers.LlamaConfig(vocab_size=40, tie_word_embeddings=True, **sizes, **heads)
    return transformers.LlamaForCausalLM(config).eval()


def rows(count: int, seed: int) -> Rows:
    ids = torch.randint(40, (count, 13), generator=torch.Generator().manual_seed(seed))
    return Rows(ids, ids)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    base = Base(network, rows(8, 1), rows(8, 2), tmp_path_factory.mktemp("base"))
    domain = Domain("domain", rows(16, 3), rows(4, 4), classified=False, batch=4, steps=4)
    return Bench(base, domain, 0, 1e-2, 1e-2)


def test_every_omega_has_a_mean_of_1(bench: Bench):
    for name in OMEGAS:
        omega = bench.base.omega(name)
        total = sum(float(each.sum()) for each in omega.mean().values())
        assert total / sum(each.numel() for each in omega.sums.values()) == pytest.approx(1, rel=1e-4)
        assert scaled(omega).mean().keys() == omega.mean().keys()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_moves_with_its_strength_and_repeats_itself(bench: Bench, name: str):
    if name == "LoRA":
        pytest.importorskip("peft")
    method, before = METHODS[name], weights(network())

    def moved(strength: float) -> float:
        after = weights(method.run(bench, strength))
        assert after.keys() == before.keys()
        return sum(float((after[key] - before[key]).square().sum()) for key in before)

    ends = (method.strengths[0], method.strengths[-1])
    if len(method.strengths) == 1:
        assert (moved(ends[0]) == 0) is (name == "base")
        return
    first, last = map(moved, ends)
    fine_tuned = sum(float((each - before[key]).square().sum()) for key, each in bench.tuned().items())
    toward = ends if ends[-1] <= 1 and name in ("WiSE-FT", "MAS + WiSE-FT", "LoRA") else ends[::-1]
    assert (first < last) is (toward == ends), "a line moves farther with α, a protection less with λ"
    assert 0 < min(first, last) < 1.5 * fine_tuned
    assert moved(ends[0]) == first


def test_points_of_another_base_are_not_mixed(bench: Bench, tmp_path: Path):
    class Small(language.Lab):
        def bench(self, name: str, seed: int, **_: float) -> Bench:
            return replace(bench, domain=replace(bench.domain, name=name), seed=seed)

        def load(self) -> Any:
            return network()

        def figures(self, model: Any, bench: Bench) -> dict[str, float]:
            return {"general": sum(map(float, map(torch.sum, weights(model).values()))), "new": 1.0}

    lab, out = Small(tmp_path, tmp_path, tmp_path / "work"), tmp_path / "out"
    language.run(lab, ["code"], [0], ["base", "fine-tuned"], out)
    (found,) = read(out, "language", ["code"])
    before, _ = found["rows"]
    language.restored(out, tmp_path / "new")
    again = Small(tmp_path, tmp_path, tmp_path / "new")
    language.run(again, ["code"], [1], ["base"], out)
    (more,) = read(out, "language", ["code"])
    assert [row["seed"] for row in more["rows"]] == [0, 0, 1]
    point = next((tmp_path / "new" / "points").glob("code-0-base-*.json"))
    files.write_json(point, {**before, "general": before["general"] + 0.01})
    with pytest.raises(ForgetlessError, match="cannot be mixed"):
        language.run(again, ["code"], [2], ["base"], out)


def row(method: str, setting: float, known: float, new: float) -> dict[str, Any]:
    return {"method": method, "setting": setting, "seed": 0, "general": known, "new": new}


FOUND = {
    "domain": "plays",
    "rows": [
        row("base", 0, 1.0, 5.0),
        row("fine-tuned", 0, 3.0, 3.0),
        row("MAS, a share held", 0.25, 2.0, 3.0),
        row("MAS, a share held", 0.5, 1.5, 3.2),
        row("WiSE-FT", 0.5, 1.74, 3.4),
    ],
}


def test_what_is_won_back_at_the_same_new_skill():
    (plays,) = tunings(FOUND, "new", ("general",))
    assert at(plays, "MAS, a share held", "general") == pytest.approx(0.5 + 0.25 / 2)
    assert at(plays, "WiSE-FT", "general") == pytest.approx(0.63 / 4)
    assert area(plays, "MAS, a share held", "general") > area(plays, "WiSE-FT", "general") > 0
    assert not tunings({**FOUND, "rows": FOUND["rows"][1:]}, "new", ("general",))


def test_the_tables_say_what_the_frontiers_are():
    pytest.importorskip("scipy")
    both = [*tunings(FOUND, "new", ("general",)), *tunings({**FOUND, "domain": "code"}, "new", ("general",))]
    methods = ("MAS, a share held", "WiSE-FT")
    lines = list(table(methods, both, dict.fromkeys(methods, "-"), "general", methods[0]))
    assert lines[2].startswith("| MAS, a share held | - | 62 |  | ")
    assert lines[3].startswith("| WiSE-FT | - | 16 | -47 [-47, -47] | ")
    assert apart("WiSE-FT", methods[0], both, "general") == "-47 [-47, -47]"
    rows = list(points(both, "MAS, a share held", "share {:g}", "general"))
    assert rows == ["| share 0.25 | 100 (100 … 100) | 50 (50 … 50) |", "| share 0.5 | 90 (90 … 90) | 75 (75 … 75) |"]


def test_a_page_without_results_stays(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("as it was")
    language_page.write(tmp_path, page)
    assert page.read_text() == "as it was"
    assert language.OUT == language_page.OUT

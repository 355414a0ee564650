"""The vision study of the evidence: the rule of the regime, the reading of frontiers, the points, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from forgetless import files
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.recipe import Recipe
from studies import frontier
from studies.evidence import vision, vision_page, vision_regime
from studies.evidence.vision_methods import DEFAULTS, METHODS, model_of, old_answers, replay, wanted
from studies.evidence.vision_reading import NEITHER, Cell, compared, read
from studies.evidence.vision_scene import OMEGAS, Scene, packed, right, unpacked


def scene() -> Scene:
    torch.manual_seed(0)
    inputs = torch.randn(40, 8)
    first, second = (
        classification(name, ("no", "yes"), (inputs, labels), (inputs, labels))
        for name, labels in (("a", (inputs[:, 0] > 0).long()), ("b", (inputs[:, 1] > 0).long()))
    )
    model = MultiHead(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16)), 16, pretrained=True)
    model.grow("a", 2)
    omegas = {name: measure(model, first) for name, measure in OMEGAS.items()}
    model.heads.requires_grad_(False)
    return Scene(first, second, inputs[:20], model, omegas, Recipe(0.05, 2, 10, schedule="cosine"), 3)


def rows(gain: float, forgetting: float) -> dict[str, float]:
    return {"before": 0.9, "fine-tuned old": 0.9 - forgetting, "frozen new": 0.5, "fine-tuned new": 0.5 + gain}


def test_the_rule_takes_the_first_setting_that_both_pairs_meet_and_asks_for_no_more() -> None:
    asked = []

    def measure(pair: tuple[str, str], epochs: int, rate: float) -> dict[str, float]:
        asked.append((pair, epochs, rate))
        if rate < 4e-3:
            return rows(0.2, 0.1)  # forgets too little on the first pair
        return rows(0.2, 0.2) if pair == vision_regime.PAIRS[0] or rate > 4e-3 else rows(0.01, 0.2)

    first, second = vision_regime.PAIRS
    assert vision_regime.chosen(measure) == (5, 8e-3, True)
    settings = [(first, 2e-3), (first, 4e-3), (second, 4e-3), (first, 8e-3), (second, 8e-3)]
    assert asked == [(pair, 5, rate) for pair, rate in settings]


def test_where_no_setting_meets_the_rule_it_takes_the_one_that_comes_closest() -> None:
    def measure(pair: tuple[str, str], epochs: int, rate: float) -> dict[str, float]:
        return rows(0.07 if rate == 4e-3 else 0.05, 0.3)

    assert vision_regime.chosen(measure) == (5, 4e-3, False)


FRONTIER = {
    ("fine-tuned", 0): (0.4, 0.8),
    ("base", 0): (0.6, 0.6),
    ("MAS", 1): (0.5, 0.8),
    ("MAS", 2): (0.58, 0.72),
}


def test_a_frontier_is_read_along_straight_lines_above_fine_tuning() -> None:
    found = read(FRONTIER, "MAS")
    assert found.kept == pytest.approx(0.14)  # 0.76 is halfway between its two points
    # From 0.8 down to 0.72 it rises from 0.10 to 0.18, and to 0.20 at the frozen backbone.
    assert found.area == pytest.approx(
        (0.1 + 0.12 + 0.14 + 0.16 + 0.18 + sum(0.18 + k / 300 for k in range(1, 7))) / 11
    )
    assert read(FRONTIER, NEITHER).kept == pytest.approx(0.04)  # the line from fine-tuning to the frozen backbone alone


def test_a_frozen_backbone_that_learns_as_well_leaves_nothing_to_trade() -> None:
    found = read({**FRONTIER, ("base", 0): (0.6, 0.85)}, "MAS")
    assert [found.kept, found.area] == pytest.approx([0.2, 0.2])


def cells(seeds: int = 2) -> list[Cell]:
    """MAS keeps half of what is forgotten at no cost, LwF nothing."""
    generator = np.random.default_rng(0)
    found = []
    for seed in range(seeds):
        noise = generator.random((2, 200))
        accuracies = {"fine-tuned": (0.4, 0.8), "base": (0.6, 0.4), "MAS": (0.5, 0.8), "LwF": (0.4, 0.8)}
        old, new = (np.stack([noise[task] < each[task] for each in accuracies.values()]) for task in (0, 1))
        found.append(Cell("a → b", seed, [(name, 0) for name in accuracies], old, new))
    return found


def test_shares_are_of_what_fine_tuning_forgets_and_the_bootstrap_is_paired() -> None:
    mas, lwf = compared(cells(), ["MAS", "LwF"], replicates=100)
    # At 95 % LwF is a tenth of the way to the frozen backbone; MAS keeps half, and a tenth of the rest.
    assert lwf["kept"][0] == pytest.approx(0.1, abs=0.03)
    assert mas["kept"][0] == pytest.approx(0.55, abs=0.1)
    assert mas["kept beside"] == [0, 0, 0]
    value, low, high = lwf["kept beside"]
    assert low < value < high < 0
    assert mas["kept"][1] < mas["kept"][0] < mas["kept"][2]


def test_bits_survive_as_text() -> None:
    for size in (1, 8, 13):
        bits = np.arange(size) % 3 == 0
        assert unpacked(packed(bits)).tolist() == bits.tolist()


def test_every_point_is_trained_from_the_old_network_whose_head_stays(tmp_path: Path) -> None:
    found = scene()
    before = {name: each.clone() for name, each in found.model.state_dict().items()}
    seen = {}
    for method, setting in wanted(2):
        seen[method, setting] = model = model_of(found, tmp_path, method, setting)
        assert torch.equal(model.heads["a"].weight, before["heads.a.weight"])
    assert all(torch.equal(each, before[name]) for name, each in found.model.state_dict().items())
    frozen, tuned = seen["base", 0], seen["fine-tuned", 0]
    assert torch.equal(frozen.backbone[0].weight, before["backbone.0.weight"])
    assert not torch.equal(tuned.backbone[0].weight, before["backbone.0.weight"])

    def moved(model: MultiHead) -> float:
        return float((model.backbone[0].weight - before["backbone.0.weight"]).norm())

    for method, kind in METHODS.items():
        weak, strong = (moved(seen[method, setting]) for setting in kind.settings[:2])
        if kind.omega is not None:
            assert moved(tuned) > weak > strong > 0
        else:
            assert weak != strong
    assert right(tuned, found.new).mean() > 0.7


def test_a_quarter_of_the_weights_is_held_at_the_middle_of_the_grid() -> None:
    found = scene()
    ratio = found.holding("mas", 0.25) / found.holding("mas", 0.5)
    assert 0 < ratio < 1


def test_the_old_answers_cost_nothing_before_a_step_and_replay_keeps_ten_labels() -> None:
    found = scene()
    method = old_answers(found, 3.0)
    method._model = found.model
    assert float(method.penalty(found.new.train)) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        found.model.backbone[0].weight.add_(1)
    assert float(method.penalty(found.new.train)) > 0
    assert len(replay(found, 1)._memory) == 10


def test_only_whole_passes_are_reported_and_the_page_has_every_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    regime: dict[str, Any] = {
        "epochs": 5,
        "rate": 0.01,
        "met": False,
        "rows": [{"old": "a", "new": "b", "epochs": 5, "rate": 0.01, **rows(0.05, 0.1)}],
    }
    monkeypatch.setattr(vision_regime, "OUT", tmp_path / "regime.json")
    files.write_sealed(tmp_path / "regime.json", regime)
    generator = np.random.default_rng(1)
    share = {"fine-tuned": (0.4, 0.8), "base": (0.7, 0.5)}
    for seed in (0, 1):
        for pair in vision.PAIRS:
            folder = vision._folder(tmp_path, pair, seed)
            for method, setting in wanted(2):
                old, new = (generator.random(30) < each for each in share.get(method, (0.6, 0.75)))
                row = {"old": 0, "new": 0, "old right": packed(old), "new right": packed(new)}
                files.write_json(folder / f"{method}, {setting:g}.json", row)
            for setting in METHODS["local MAS"].settings[:2]:  # the first pass did not get so far
                (folder / f"local MAS, {setting:g}.json").unlink()
    (folder / "MAS, 0.125.json").unlink()  # and the second even less
    monkeypatch.setattr(vision, "compared", lambda *args: compared(*args, replicates=5))
    found = vision.collect(tmp_path, (0, 1), 2)
    assert [each["seed"] for each in found["cells"]] == [0, 0, 0]
    files.write_sealed(tmp_path / "pairs.json", found)
    page = tmp_path / "evidence.md"
    page.write_text("<!-- vision -->\n<!-- end of vision -->\n", encoding="utf-8")
    vision_page.write(tmp_path / "pairs.json", page)
    written = page.read_text(encoding="utf-8")
    assert [method for method in METHODS if f"| {method} |" not in written] == ["local MAS"]
    assert f"| {NEITHER} | 0 | none |" in written
    assert all(f"| `{method}` |" in written for method in DEFAULTS)
    assert (tmp_path / "figures" / vision_page.FIGURE).is_file()
    assert "One seed" in written


def test_the_studies_share_their_importances() -> None:
    assert OMEGAS["mas"] is frontier.exact

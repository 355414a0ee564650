"""The study of frontier curves on pictures and a network small enough for a test."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import shades
from forgetless import Anchor
from forgetless.measure.reference import mas as one_at_a_time
from studies import frontier

PAIR = frontier.PAIRS[0]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sets of two shades, a small network, a recipe of few steps and a grid of few strengths."""
    monkeypatch.setattr(frontier, "pretrained", lambda name: shades.small(2))
    monkeypatch.setattr(frontier, "SIZE", 8)
    monkeypatch.setattr(frontier, "PROBES", 8)
    monkeypatch.setattr(frontier, "RECIPE", dataclasses.replace(frontier.RECIPE, epochs=2, batch_size=8))
    curves = {name: dataclasses.replace(curve, strengths=(1.0,)) for name, curve in frontier.CURVES.items()}
    monkeypatch.setattr(frontier, "CURVES", curves)
    for shift, task in enumerate(PAIR):
        for split, count in (("train", 20), ("test", 4)):
            for label, kind in enumerate(("dark", "light")):
                folder = tmp_path / "data" / task / split / kind
                folder.mkdir(parents=True)
                for picture in range(count):
                    shade = 40 + 120 * label + 4 * picture
                    Image.new("RGB", (12, 12), (shade, 90 * shift, 250 - shade)).save(folder / f"{picture}.png")
    return tmp_path / "data"


def recipe() -> frontier.Recipe:
    return frontier.RECIPE


def run(data: Path, out: Path) -> list[str]:
    """What was computed, by name of the point."""
    said: list[str] = []
    scene = frontier.prepare(data, *PAIR, 1, out / "-".join(PAIR), recipe())
    for name, compute in frontier.points(scene, 2, out / "-".join(PAIR), recipe()):
        path = out / "-".join(PAIR) / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(compute()))
            said.append(name)
    return said


def test_every_point_is_computed_once_and_the_page_takes_all(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = run(data, out)
    assert len(said) == len(set(said)) == 2 + len(frontier.CURVES) + 3
    assert run(data, out) == []  # all are there
    found = frontier.collect(out)
    (pair,) = found["points"]
    assert pair == " → ".join(PAIR)
    points = {each["curve"]: each for each in found["points"][pair]}
    assert len(points) == len(said)
    assert points["frozen backbone"]["distance"] == points["frozen backbone"]["bound"] == 0
    assert points["frozen backbone"]["agreement"] == 1
    assert points["fine-tuning"]["distance"] > points["MAS exact, pull"]["distance"] > 0
    assert points["stability decay"]["trials"]
    page = tmp_path / "page.md"
    page.write_text("<!-- frontier -->\n<!-- end of frontier -->\n<!-- prediction -->\n<!-- end of prediction -->\n")
    pytest.importorskip("matplotlib")
    frontier.drawn(found["points"], page)
    assert "| fine-tuning |" in page.read_text()
    assert (tmp_path / "figures" / "strength-frontier.svg").is_file()


def test_the_importances_are_what_they_are_called(data: Path, tmp_path: Path) -> None:
    scene = frontier.prepare(data, *PAIR, 1, tmp_path / "scene", recipe())
    inputs = scene.old.train[0][: frontier.MEASURED]
    through = frontier._through(scene.old)
    exact = one_at_a_time(scene.model, inputs, forward=through, exclude="heads").mean()
    for name, omega in scene.omegas["exact"].mean().items():
        torch.testing.assert_close(omega, exact[name], rtol=1e-4, atol=1e-6)
        assert bool(
            (scene.omegas["batch"].mean()[name] <= omega * (1 + 1e-4) + 1e-6).all()
        )  # the triangle's inequality
        assert bool((scene.omegas["ones"].mean()[name] == 1).all())


def test_how_far_a_network_moved(data: Path, tmp_path: Path) -> None:
    scene = frontier.prepare(data, *PAIR, 1, tmp_path / "scene", recipe())
    model = frontier.copy.deepcopy(scene.model)
    with torch.no_grad():
        model.backbone[1].bias[0] += 0.5
    found = frontier.moved(scene, model)
    omega = float(scene.omegas["exact"].mean()["backbone.1.bias"][0])
    assert found["distance"] == pytest.approx(0.5)
    assert found["bound"] == pytest.approx(0.5 * omega)
    assert found["drift"] == pytest.approx(0.25 * omega)


def test_a_run_that_diverges_is_a_point_that_says_so(data: Path, tmp_path: Path) -> None:
    scene = frontier.prepare(data, *PAIR, 1, tmp_path / "scene", recipe())
    model = frontier.copy.deepcopy(scene.model)
    method = frontier.GivenAnchor(Anchor(model, scene.omegas["ones"], 1e12), "gradient")
    found = frontier.trained(scene, model, method, 0, recipe())
    assert list(found) == ["diverged"]
    assert frontier._brief(found) == "diverged"

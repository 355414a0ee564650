from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.conftest import Command
from fact_sets import FACTS, encoded, trained
from forgetless.cli import app
from forgetless.lab.datasets.reading.fact import made, shown, written
from forgetless.lab.facts.answers import Answers

pytest.importorskip("faiss", reason="FAISS is not installed")

SHOWN = [shown(written(made(fact, "it"))) for fact in FACTS]


def run() -> Path:
    return trained() / "run"


def test_the_facts_of_a_picture(forgetless: Command) -> None:
    Path("x.png").write_bytes(encoded(1))
    done = forgetless("ask", run(), "--image", "x.png", "--top", 3)
    assert done.exit_code == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = Answers(run()).facts_of(Path("x.png"), 3)
    assert lines == [f"{match.similarity:6.3f}  {shown(match.name)}" for match in found]
    assert all(line[8:] in SHOWN for line in lines)
    assert last.endswith("by mas, seed 3")


def test_the_pictures_of_a_fact(forgetless: Command) -> None:
    done = forgetless("ask", run(), "--fact", "woman,row,boat", "--method", "finetune", "--seed", 3)
    assert done.exit_code == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = Answers(run(), "finetune").pictures_of("woman,row,boat")
    assert lines == [f"{match.similarity:6.3f}  {match.name}   ({shown(match.fact)})" for match in found]
    assert len(lines) == 5
    assert last.endswith("by finetune, seed 3")


@pytest.mark.parametrize(("ask", "needed"), [(("--fact", "woman,row,boat"), False), (("--image", "x.png"), True)])
def test_only_a_picture_needs_torch(ask: tuple[str, str], needed: bool, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(1))
    code = (
        "import sys; from forgetless.cli import app; app(standalone_mode=False); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ask", run(), *ask], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].endswith("by mas, seed 3")
    loaded = {module.partition(".")[0] for module in done.stderr.split()}
    assert ("torch" in loaded) == needed
    assert {"faiss", "numpy"} <= loaded
    assert loaded.isdisjoint({"pandas", "scipy", "torchvision", "transformers", "jinja2"})


@pytest.mark.parametrize("ask", [("--image", "x.png"), ("--fact", "dog")])
def test_json(forgetless: Command, ask: tuple[str, str]) -> None:
    Path("x.png").write_bytes(encoded(1))
    found = json.loads(forgetless("ask", run(), *ask, "--top", 2, "--json").stdout)
    assert (found["method"], found["seed"], len(found["answers"])) == ("mas", 3, 2)
    asked = Answers(run())
    expected = asked.facts_of(Path("x.png"), 2) if ask[0] == "--image" else asked.pictures_of("dog", 2)
    assert found["answers"] == [
        {"name": match.name, "similarity": pytest.approx(match.similarity), "fact": match.fact} for match in expected
    ]


def test_questions_from_the_standard_input(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    picture.write_bytes(encoded(1))
    questions = f"dog\n\n{picture}\nman,ride,motorcicle\nwoman,row,boat\n"
    done = CliRunner().invoke(app, ["ask", str(run()), "--top", "1"], input=questions)
    asked = Answers(run())
    found = [*asked.pictures_of("dog", 1), *asked.facts_of(picture, 1), *asked.pictures_of("woman,row,boat", 1)]
    answers = [line for line in done.stdout.splitlines() if not line.startswith("similarity")]
    assert [line[:6] for line in answers] == [f"{match.similarity:6.3f}" for match in found]
    assert answers[1][8:] == shown(found[1].name)
    assert done.stderr.startswith("forgetless: there is no word vector for 'motorcicle'")
    assert done.exit_code == 0


def test_what_cannot_be_asked(refused: Callable[..., None], forgetless: Command) -> None:
    either = "ask takes either --image FILE or --fact subject,predicate,object."
    refused(either, "ask", run(), "--image", "x.png", "--fact", "dog")
    refused("nowhere cannot be read: it does not exist.", "ask", "nowhere", "--fact", "dog")
    refused("',' is no fact: all of its parts are empty.", "ask", run(), "--fact", ",")
    refused(
        "there is no word vector for 'motorcicle'; similar words that have one: 'motorcycle', 'motorcycles', "
        "'motor-cycle'.",
        *("ask", run(), "--fact", "man,ride,motorcicle"),
    )
    there = f"{run()} has no such run; it has finetune with seed 3, mas with seed 3."
    refused(there, "ask", run(), "--fact", "dog", "--method", "ewc")
    refused(there, "ask", run(), "--fact", "dog", "--seed", 0)
    assert forgetless("ask", run(), "--fact", "dog", "--top", 0).exit_code == 2


def test_a_run_that_kept_nothing(refused: Callable[..., None], tmp_path: Path) -> None:
    shutil.copy(run() / "results.json", tmp_path)
    path = tmp_path / "kept" / "mas-3.safetensors"
    refused(
        f"{path} does not exist; name a file of that kind (what an experiment keeps of a run) that was saved before.",
        *("ask", tmp_path, "--fact", "dog"),
    )

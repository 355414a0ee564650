from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.files import write_sealed
from forgetless.lab import results
from forgetless.lab.published.mas_2018 import EIGHT_TASKS, MEASURED_ON, PAIRS, TWO_TASKS
from forgetless.lab.results import summarize
from studies.eight_page import beside_mas, claims, comparison, main, page, write
from studies.eight_runs import collect, strengths

NAMES = ("one", "two")


def run(
    method: str, *rows: list[float | None], strength: float | None = None, seed: int = 0, **more: Any
) -> dict[str, Any]:
    return {
        "method": method,
        "seed": seed,
        "strength": strength,
        "accuracy": list(rows),
        "seconds": {"train": 60.0},
        **more,
    }


def committed(path: Path, *runs: dict[str, Any], names: tuple[str, ...] = NAMES, **config: Any) -> None:
    """Commit runs to `path`.json; options of the config may be given by name."""
    options = {"pairs": False, "omega": "train", "network": "squeezenet", "size": 64, "limit": 800, "epochs": 15}
    options |= {"rise": False}
    chosen = {key: config.pop(key) for key in list(config) if key in options}
    held = {"experiment": "eight-tasks", "strength": None, "options": {**options, **chosen}}
    held |= {"tuning": {"search": {"most": 4}}, **config}
    found = {"experiment": "eight-tasks", "tasks": list(names), "runs": list(runs), "environment": {}}
    results.write(Path(f"{path}.json"), {**found, "config": held})


FINETUNE = run("finetune", [0.9, None], [0.5, 0.8])  # average 65, forgets 40
FROZEN = run("frozen", [0.6, None], [0.6, 0.7])  # 65, 0
MAS = run("mas", [0.9, None], [0.885, 0.7], strength=0.75)  # 79.25, 1.5
JOINT = run("joint", [0.9, None], [0.9, 0.8])  # 85, 0


def sentences(*runs: dict[str, Any]) -> list[str]:
    held = {"experiment": "e", "tasks": list(NAMES), "runs": list(runs), "environment": {}}
    return list(beside_mas(summarize(held).methods))


def test_mas_is_put_beside_the_others_whichever_is_better() -> None:
    assert sentences(FINETUNE, FROZEN, MAS, JOINT) == [
        "- MAS is 14.2 points above the best other method that keeps no samples (finetune).",
        "- MAS has a forgetting of 1.5 points.",
        "- Joint training is 5.8 points above MAS.",
    ]
    better = run("mas", [0.83, None], [0.82, 0.82], strength=1.0)
    rival = run("ewc", [0.9, None], [0.9, 0.8], strength=1.0)
    assert sentences(better, rival)[0] == (
        "- MAS is 3.0 points below the best other method that keeps no samples (ewc)."
    )
    worse = run("mas", [0.5, None], [0.5, 0.5], strength=1.0)
    assert sentences(FROZEN, worse, run("si", [0.4, None], [0.4, 0.4], strength=1.0))[-1] == (
        "- Below the frozen backbone, which forgets nothing: si, mas."
    )
    assert list(beside_mas(())) == ["MAS has not been run yet."]


def test_methods_are_compared_best_first_beside_the_paper() -> None:
    held = {"experiment": "e", "tasks": list(NAMES), "runs": [FINETUNE, MAS, JOINT], "environment": {}}
    lines = list(comparison(summarize(held).methods))
    assert lines[2] == "| joint training (not in the paper's table) | 85.0 | 0.0 | 85.0 | 1 | – | – |"
    assert lines[3] == "| MAS, λ = 0.75 | 79.2 | 1.5 | 80.0 | 1 | 52.69 | 0.49 |"
    assert lines[4] == "| FineTune | 65.0 | 40.0 | 85.0 | 1 | 32.67 | 26.29 |"


def test_the_page_has_every_part_and_names_what_is_missing(tmp_path: Path) -> None:
    committed(tmp_path / "a-b", FINETUNE, MAS)
    text = page(collect(tmp_path))
    for command in (
        "--method finetune --method ewc --method si --method mas --orders 2 --resume",
        "--network efficientnet-lite0 --method finetune",
        "--pairs --out",
        "--pairs --omega test",
        "--pairs --omega both",
        "--pairs --omega train --method mas --method local-mas --strength 0.375",
        "--method mas --strength 0.1",
        "--rise --method mas --method ewc --method si --seeds 3",
    ):
        assert f"Not run yet: `forgetless run eight-tasks --data DATA {command}" in text
    assert "Not run yet: joint, frozen, lwf" in text
    assert "learns from pictures of 64 pixels, at most 800 of a task, for 15 epochs" in " ".join(text.split())


def test_what_a_directory_is_its_config_says(tmp_path: Path) -> None:
    order = {"order": 1, "learned": ["two", "one"]}
    committed(tmp_path / "x", FINETUNE, MAS, run("mas", [0.7, None], [0.6, 0.9], strength=1.0, **order))
    committed(tmp_path / "y", run("mas", [0.8, None], [0.4, 0.6], strength=0.1), strength=0.1)
    for strength, left in ((50.0, 0.5), (5.0, 0.7)):
        committed(tmp_path / f"{strength}", run("si", [0.8, None], [left, 0.6], strength=strength), strength=strength)
    committed(tmp_path / "z", run("si", [0.3, None], [0.2, 0.1], strength=2.0), network="efficientnet-lite0")
    found = collect(tmp_path)
    assert len(found) == 5
    assert {name: list(curve) for name, curve in strengths(found).items()} == {"mas": [0.1, 0.75], "si": [5.0, 50.0]}
    text = page(found)
    assert "Order 1: two → one." in text
    assert claims(found).endswith("| 1 |\n\nIn another order of the tasks, 1 seed: MAS 75.0.")
    assert "| MAS, λ = 1 | 75.0 | 10.0 | 80.0 | 1 | 52.69 | 0.49 |" in text
    assert "efficientnet-lite0, batch-norm statistics frozen:\n\n| method" in text
    assert "| SI, λ = 2 | 15.0 | 10.0 | 20.0 | 1 |" in text
    assert "| MAS | 0.1 | 50.0 | 40.0 | 70.0 | 1 |\n| MAS | 0.75 | 79.2 | 1.5 | 80.0 | 1 |\n| SI | 5 | 65.0" in text
    assert "by test accuracy ([below]" not in text


def test_what_other_methods_reach_at_their_best_strength_is_said(tmp_path: Path) -> None:
    weak = {name: run(name, [0.8, None], [0.4, 0.8], strength=2.0) for name in ("si", "ewc")}
    committed(tmp_path / "x", MAS, *weak.values())
    committed(tmp_path / "y", run("si", [0.8, None], [0.8, 0.8], strength=20.0), strength=20.0)
    committed(tmp_path / "z", run("ewc", [0.8, None], [0.7, 0.8], strength=20.0), strength=20.0)
    text = page(collect(tmp_path))
    assert "- With a λ chosen by test accuracy ([below](#how-much-λ-matters)): SI 80.0 at λ = 20. MAS" in text
    assert claims(collect(tmp_path)).endswith(
        "\n\nWith λ chosen by test accuracy, these match or exceed MAS: SI 80.0 at λ = 20."
    )


def test_a_search_that_rises_stands_by_itself(tmp_path: Path) -> None:
    committed(tmp_path / "x", FINETUNE, FROZEN, MAS, rise=False)
    higher = run("mas", [0.9, None], [0.89, 0.75], strength=12.0)
    committed(tmp_path / "y", higher, run("si", [0.9, None], [0.9, 0.8], strength=48.0), rise=True)
    found = collect(tmp_path)
    assert list(strengths(found)["mas"]) == [0.75, 12.0]
    assert "MAS, λ = 0.75 |" in claims(found)
    assert "λ = 12" not in claims(found)
    _, _, text = page(found).partition("## The same search, allowed to rise")
    text, _, _ = text.partition("\n## ")
    assert "in 4 trials" in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")] == [
        "method",
        "SI, λ = 48",
        "MAS, λ = 12",
        "FineTune",
        "frozen backbone (not in the paper)",
    ]
    assert "- MAS is 3.0 points below the best other method that keeps no samples (si)." in text
    assert "on which a frozen backbone reaches 70.0 % and fine-tuning 80.0 %." in text


def test_of_runs_with_one_strength_the_one_with_more_seeds_counts(tmp_path: Path) -> None:
    committed(tmp_path / "x", MAS, run("mas", [0.9, None], [0.885, 0.6], strength=0.75, seed=1))
    committed(tmp_path / "y", run("mas", [0.5, None], [0.5, 0.5], strength=0.75), rise=True)
    committed(tmp_path / "z", run("mas", [0.8, None], [0.4, 0.6], strength=0.1), strength=0.1)
    assert {λ: len(each.seeds) for λ, each in strengths(collect(tmp_path))["mas"].items()} == {0.1: 1, 0.75: 2}


def test_the_tables_of_pairs(tmp_path: Path) -> None:
    for source in ("train", "test"):
        config = {"pair": "birds-scenes", "pairs": True, "omega": source, "names": ("birds", "scenes")}
        committed(tmp_path / source, FINETUNE, MAS, **config)
    fixed = run("mas", [0.9, None], [0.7, 0.75], strength=0.375)
    committed(tmp_path / "one", fixed, **config, strength=0.375)
    text = page(collect(tmp_path))
    assert "| FineTune | ours | 50.0 (-40.0) / 80.0 | – | – | – |" in text
    one, searched = (part.count("| MAS | test | ours |") for part in text.split("With a λ from a search")[:2])
    assert (one, searched) == (1, 1)  # each in its own table
    assert "| MAS | test | ours | 70.0 (-20.0) / 75.0 | – | – | – |" in text
    assert (
        "| FineTune | paper | 45.2 (-8.0) / 57.8 | 49.7 (-9.3) / 52.8 | 64.9 (-13.2) / 53.8 | 70.2 (-7.9) / 57.3 |"
        in text
    )
    assert "| MAS | test | ours | 88.5 (-1.5) / 70.0 | – | – | – |" in text
    assert "| MAS | both | ours |" not in text
    assert "| local MAS | both | paper | 52.1 (-1.5) / 54.4 |" in text


README = "before\n<!-- eight tasks -->\nold\n<!-- end of eight tasks -->\nafter\n"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command's words for results, pages and a README of its own."""
    (tmp_path / "README.md").write_text(README)
    places = {"--results": "results", "--docs": "docs", "--readme": "README.md"}
    return [word for option, name in places.items() for word in (option, str(tmp_path / name))]


def test_the_readme_takes_the_averages(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    committed(tmp_path / "results" / "eight-tasks" / "a", FINETUNE, MAS, JOINT)
    main(words)
    assert (tmp_path / "README.md").read_text() == (
        "before\n<!-- eight tasks -->\n"
        "| on eight image datasets | average accuracy after the last task, % | forgetting, points | seeds |\n"
        "|---|---|---|---|\n"
        "| joint training, with all old data | 85.0 | 0.0 | 1 |\n"
        "| MAS, λ = 0.75 | 79.2 | 1.5 | 1 |\n"
        "| FineTune | 65.0 | 40.0 | 1 |\n"
        "<!-- end of eight tasks -->\nafter\n"
    )


@pytest.mark.parametrize("there", [False, True])
def test_a_readme_without_the_place_is_refused_before_anything_is_written(
    there: bool, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    committed(tmp_path / "results" / "eight-tasks" / "a", FINETUNE)
    readme = tmp_path / "README.md"
    if there:
        readme.write_text("no marks\n")
    else:
        readme.unlink()
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    said = "has no place for 'eight tasks'." if there else "is no file; name the page that takes 'eight tasks'."
    assert capsys.readouterr().err == f"forgetless: {readme} {said}\n"
    assert not (tmp_path / "docs").exists()


def test_what_protection_costs_is_shown_by_block(tmp_path: Path) -> None:
    committed(tmp_path / "a", FINETUNE)
    matrix = [[0.9, None], [0.8, 0.7]]
    before = [
        {"all": 0.0},
        {"backbone.fire2.squeeze1x1": 0.5, "backbone.fire2.expand1x1": 1.0, "backbone.conv1": 0.2, "all": 0.6},
    ]
    after = [{"all": 0.0}, {**before[1], "backbone.fire2.squeeze1x1": 0.1}]
    study = {
        "experiment": "plasticity",
        "tasks": ["one", "two"],
        "runs": [
            {"method": "λ = 3", "seed": n, "accuracy": matrix, "frozen fraction": frozen}
            for n, frozen in enumerate((before, after))
        ],
        "environment": {},
    }
    text = page(collect(tmp_path), study=study)
    assert "MAS, 2 seeds: two other ways" in text
    assert "| MAS | average | forgetting | when learned | two, the last |" in text
    assert "| λ = 3 | 75.0 ± 0.0 | 10.0 ± 0.0 | 80.0 ± 0.0 | 70.0 ± 0.0 |" in text
    assert "| fire2 | 65 → 65 |\n| conv1 | 20 → 20 |\n| **all weights** | 60 → 60 |" in text


def test_the_papers_numbers_are_whole() -> None:
    assert all(len(cells) == len(PAIRS) for cells in (*TWO_TASKS.values(), *MEASURED_ON.values()))
    assert set(TWO_TASKS) == set(EIGHT_TASKS)


def test_one_command_writes_the_page_and_its_figures(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    root = tmp_path / "results"
    committed(root / "eight-tasks" / "a", FINETUNE, MAS)
    committed(root / "eight-tasks" / "b", run("mas", [0.8, None], [0.4, 0.6], strength=0.1), strength=0.1)
    kept = {"tasks": list(NAMES), "network": 4_000_000, "bytes": {"finetune": [0, 0], "mas": [8_000_000, 8_000_000]}}
    write_sealed(root / "memory" / "eight-tasks.json", kept)
    main(words)
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "README.md",
        "docs/eight-tasks.md",
        "docs/figures/eight-tasks.svg",
        "docs/figures/eight-tasks-strength.svg",
        "docs/figures/eight-tasks-memory.svg",
    ]
    first = [path.read_bytes() for path in written]
    assert b"<svg" in first[2]
    text = first[1].decode()
    assert all(f"figures/{path.name}" in text for path in written[2:])
    write(root, tmp_path / "docs", tmp_path / "README.md")
    assert [path.read_bytes() for path in written] == first  # the same runs, the same bytes


def test_nothing_to_show(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        ForgetlessError, match=r"holds no run of eight-tasks; `forgetless run eight-tasks` makes them\.$"
    ):
        collect(tmp_path)
    with pytest.raises(ForgetlessError, match=r"is no folder; name the one that holds the committed runs\.$"):
        collect(tmp_path / "nothing")
    committed(tmp_path / "a")
    with pytest.raises(ForgetlessError, match="holds no run of eight-tasks"):
        collect(tmp_path)
    bare = {"experiment": "eight-tasks", "tasks": ["a"], "runs": [], "environment": {}}
    results.write(tmp_path / "b.json", bare)
    with pytest.raises(ForgetlessError, match=r"b\.json has no config; `python -m studies\.collect` makes such a file"):
        collect(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2

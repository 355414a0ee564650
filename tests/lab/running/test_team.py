"""A run under torchrun, by the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.running.run import Experiment, run, run_all
from forgetless.lab.running.team import Team
from forgetless.learn.task import Recipe
from streams import network, stream

EXPERIMENT = Experiment("small", stream(3), network, Recipe(lr=0.1, epochs=2, batch_size=24), {"network": "small"})
NAMES = ["finetune", "mas"]
SCRIPT = """
import dataclasses, json, os, sys
sys.path[:0] = {path!r}
import test_team
from forgetless.lab.running.run import run_all
from forgetless.lab.running.team import Team

team = Team.join()
seen = set()
recipe = dataclasses.replace(test_team.EXPERIMENT.recipe, lr={lr!r})
experiment = dataclasses.replace(test_team.EXPERIMENT, recipe=recipe)
found = run_all(
    {{"": experiment}}, test_team.NAMES, [1, 2, 3], {out!r}, team=team,
    on_progress=lambda job, progress: seen.add(job.stem),
)
if team.rank == 0:
    assert len(found[""]["runs"]) == 6
    print(json.dumps({{"seen": sorted(seen), "begun": team.store.add("begun", 0)}}))
else:
    assert found == {{}} and not seen
"""


def torchrun(out: Path, *, lr: float = 0.1) -> subprocess.CompletedProcess[str]:
    script = out.with_suffix(".py")
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "support"), *sys.path]
    script.write_text(SCRIPT.format(path=path, out=str(out), lr=lr), encoding="utf-8")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_its_processes_share_the_runs_and_find_what_one_does(tmp_path: Path) -> None:
    alone = run(EXPERIMENT, NAMES, [1, 2, 3], tmp_path / "alone")
    ended = torchrun(tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["seen"]
    assert told["begun"] == 6 + 2  # all, and each process's look for one more
    found = run(EXPERIMENT, NAMES, [1, 2, 3], tmp_path / "out")  # finished, and just read
    key = lambda each: (each["method"], each["seed"])  # noqa: E731
    expected = {key(each): each["accuracy"] for each in alone["runs"]}
    assert {key(each): each["accuracy"] for each in found["runs"]} == expected
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "done" for line in log) == 6


def test_what_a_run_raises_ends_all_of_them(tmp_path: Path) -> None:
    ended = torchrun(tmp_path / "out", lr=1e30)
    assert ended.returncode != 0
    assert "lower lr (now 1e+30) or set clip" in ended.stderr


def test_a_process_of_a_team_does_one_run_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match=r"^torchrun started 4 processes, which do a run each: leave out --proc"):
        run_all({"": EXPERIMENT}, NAMES, [1], tmp_path / "out", processes=2, team=Team(None, 0, 4))
    assert not (tmp_path / "out").exists()


def test_on_its_own_a_process_is_no_team(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Team.join() is None

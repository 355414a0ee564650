"""A run under torchrun, by the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.run import run
from forgetless.lab.running.torchrun import Torchrun
from forgetless.learn.recipe import Recipe
from streams import network, stream

EXPERIMENT = Experiment("small", stream(3), network, Recipe(lr=0.1, epochs=2, batch_size=24), {"network": "small"})
NAMES = ["finetune", "mas"]
SCRIPT = """
import dataclasses, json, os, sys
sys.path[:0] = {path!r}
import test_torchrun
from forgetless.lab.running.run import run_all
from forgetless.lab.running.torchrun import Torchrun

group = Torchrun.join()
seen = set()
recipe = dataclasses.replace(test_torchrun.EXPERIMENT.recipe, lr={lr!r})
experiment = dataclasses.replace(test_torchrun.EXPERIMENT, recipe=recipe)
found = run_all(
    {{"": experiment}}, test_torchrun.NAMES, [1, 2, 3], {out!r}, runner=group,
    on_progress=lambda job, progress: seen.add(job.stem),
)
if group.rank == 0:
    assert len(found[""]["runs"]) == 6
    print(json.dumps({{"seen": sorted(seen), "begun": group.store.add("begun", 0)}}))
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


def test_without_torchrun_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Torchrun.join() is None


def test_the_first_process_leads() -> None:
    assert [Torchrun(None, rank, 2).leads for rank in range(2)] == [True, False]

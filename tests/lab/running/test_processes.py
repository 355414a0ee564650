from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job, take_gpu
from forgetless.lab.running.processes import Processes
from forgetless.lab.running.run import run
from forgetless.lab.running.work import order_of
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from streams import dying, network, stream

EXPERIMENT = Experiment("small", stream(3), network, Recipe(lr=0.1, epochs=2, batch_size=24), {"network": "small"})
NAMES = ["finetune", "mas"]


def matrices(found: dict[str, Any]) -> dict[tuple[Any, ...], Any]:
    return {(each["method"], each["seed"], each.get("order", 0)): each["accuracy"] for each in found["runs"]}


def test_several_processes_find_what_one_does(tmp_path: Path) -> None:
    jobs: list[Job] = []
    phases: dict[Job, list[str]] = {}

    def on_progress(job: Job, progress: Progress) -> None:
        phases.setdefault(job, []).append(progress.phase)

    options: dict[str, Any] = {"orders": 2}
    alone = run(EXPERIMENT, NAMES, [1], tmp_path / "alone", **options)
    found = run(
        EXPERIMENT,
        NAMES,
        [1],
        tmp_path / "out",
        runner=Processes(2),
        on_plan=jobs.extend,
        on_progress=on_progress,
        **options,
    )
    assert matrices(found) == matrices(alone)
    assert len(matrices(found)) == 4
    assert found["environment"]["threads"] == 1
    assert phases.keys() == {*jobs}
    assert all("evaluate" in seen for seen in phases.values())
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in log].count("done") == 4


def test_an_order_is_decided_by_its_number_alone(tmp_path: Path) -> None:
    assert order_of(0, 5) == [0, 1, 2, 3, 4]
    orders = {tuple(order_of(number, 5)) for number in range(20)}
    assert len(orders) > 10
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    found = run(EXPERIMENT, ["finetune"], [1], tmp_path, orders=3)
    assert found["tasks"] == [task.name for task in EXPERIMENT.tasks]
    assert [each.get("order", 0) for each in found["runs"]] == [0, 1, 2]
    for each in found["runs"][1:]:
        expected = [EXPERIMENT.tasks[i].name for i in order_of(each["order"], 3)]
        assert each["learned"] == expected
    by_hand = dataclasses.replace(EXPERIMENT, tasks=[EXPERIMENT.tasks[i] for i in order_of(1, 3)])
    assert run(by_hand, ["finetune"], [1], tmp_path / "x")["runs"][0]["accuracy"] == found["runs"][1]["accuracy"]
    results.check(found)


@pytest.mark.parametrize("runner", [None, Processes(1)], ids=["here", "in another process"])
def test_what_a_run_raises_is_raised_here(runner: Processes | None, tmp_path: Path) -> None:
    diverging = dataclasses.replace(EXPERIMENT, recipe=dataclasses.replace(EXPERIMENT.recipe, lr=1e30))
    with pytest.raises(ForgetlessError, match="lower lr"):
        run(diverging, NAMES, [1], tmp_path / "out", runner=runner)


def test_a_process_that_dies_is_noticed_and_the_last_run_is_done_in_one_too(tmp_path: Path) -> None:
    """In this process a single run would have all the threads, and end with other bits."""
    lethal = dataclasses.replace(EXPERIMENT, network=dying)
    with pytest.raises(ForgetlessError, match=r"^a worker process ended with exit code 7 \(out of memory\?\)"):
        run(lethal, ["finetune"], [1], tmp_path / "out", runner=Processes(2))


def test_what_cannot_be_sent_is_refused_in_a_sentence(tmp_path: Path) -> None:
    local = dataclasses.replace(EXPERIMENT, network=lambda seed: network(seed))
    with pytest.raises(
        ForgetlessError, match=r"^this experiment cannot run in several processes \(.*\); use --processes 1\.$"
    ):
        run(local, NAMES, [1], tmp_path / "out", runner=Processes(2))


def test_ctrl_c_saves_every_run_and_resumes_to_the_same_result(tmp_path: Path) -> None:
    slow = dataclasses.replace(EXPERIMENT, recipe=dataclasses.replace(EXPERIMENT.recipe, epochs=20))
    whole = run(slow, NAMES, [1], tmp_path / "whole")

    def press(job: Job, progress: Progress) -> None:
        if progress.phase == "train" and progress.task == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(slow, NAMES, [1], tmp_path / "out", runner=Processes(2), on_progress=press)
    left = [path for path in (tmp_path / "out" / "checkpoints").iterdir() if path.suffix == ".safetensors"]
    assert left
    found = run(slow, NAMES, [1], tmp_path / "out", resume=True)
    assert matrices(found) == matrices(whole)


def test_nobody_works_on_when_the_parent_is_killed(tmp_path: Path) -> None:
    """A parent that is killed for good takes its processes along, after at most a step."""
    script = f"""
import sys, os, signal, dataclasses
sys.path[:0] = {[str(Path(__file__).parents[2] / "support"), str(Path(__file__).parent), *sys.path]!r}
from streams import network, stream
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.run import run
from forgetless.lab.running.processes import Processes
from forgetless.learn.recipe import Recipe
def die(job, progress):
    if progress.step >= 2:
        import multiprocessing
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    experiment = Experiment("small", stream(3), network, Recipe(0.1, 100000, 24))
    run(experiment, ["finetune"], [1], {str(tmp_path / "out")!r}, runner=Processes(2), on_progress=die)
"""
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "support")}
    ended = subprocess.run([sys.executable, tmp_path / "script.py"], env=environment, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    child = int(ended.stdout)
    deadline = time.monotonic() + 60
    while alive(child):
        assert time.monotonic() < deadline, "a process went on without its parent"
        os.sched_yield()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_numbers_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match=r"^orders must be at least 1, not 0\.$"):
        run(EXPERIMENT, NAMES, [1], tmp_path / "out", orders=0)
    with pytest.raises(ForgetlessError, match=r"^processes must be at least 1, not 0\.$"):
        Processes(0)


def test_a_strength_found_for_every_task(tmp_path: Path) -> None:
    found = run(EXPERIMENT, ["finetune", "mas"], [1], tmp_path / "out", strength="search")
    plain, protected = found["runs"]
    assert (plain["strength"], "trials" in plain) == (None, False)
    assert protected["strengths"][0] is None  # nothing to protect yet
    assert all(each > 0 for each in protected["strengths"][1:])
    assert protected["strength"] == protected["strengths"][-1]
    assert protected["trials"] >= 4
    again = run(EXPERIMENT, ["mas"], [1], tmp_path / "again", strength="search")
    assert again["runs"][0]["accuracy"] == protected["accuracy"]
    known = r"^the strength must be a number, 'auto', 'search' or 'rise', not 'much'\.$"
    with pytest.raises(ForgetlessError, match=known):
        run(EXPERIMENT, ["mas"], [1], tmp_path / "x", strength="much")


def test_a_search_that_may_rise_goes_on_above_a_strength_that_is_accepted(tmp_path: Path) -> None:
    searched, risen = (
        run(EXPERIMENT, ["mas"], [1], tmp_path / how, strength=how)["runs"][0] for how in ("search", "rise")
    )
    assert (results.given(searched), results.given(risen)) == ("search", "rise")
    assert risen["trials"] > searched["trials"]
    assert risen["strengths"][1] > searched["strengths"][1]
    with pytest.raises(ForgetlessError, match=r"strength is \"search\" there and \"rise\" here"):
        run(EXPERIMENT, ["mas"], [1], tmp_path / "search", strength="rise", resume=True)


def test_auto_is_for_the_methods_that_take_it(tmp_path: Path) -> None:
    found = run(EXPERIMENT, ["finetune", "mas", "lwf"], [1], tmp_path / "out", strength="auto")
    told = {each["method"]: (each["settings"].get("strength"), each["strength"]) for each in found["runs"]}
    assert told["finetune"] == (None, None)
    assert told["lwf"] == (1.0, 1.0)  # its own
    chosen, strength = told["mas"]
    assert chosen == "auto"
    assert strength > 0
    with pytest.raises(
        ForgetlessError, match=r"^none of the methods 'finetune', 'lwf' finds its strength by itself; give a number\.$"
    ):
        run(EXPERIMENT, ["finetune", "lwf"], [1], tmp_path / "x", strength="auto")


def test_settings_of_an_experiment(tmp_path: Path) -> None:
    settings = {"mas": {"strength": 0.25}, "er": {"memory": 12}}
    experiment = dataclasses.replace(EXPERIMENT, methods=["mas", "er"], settings=settings)
    found = run(experiment, None, [1], tmp_path / "out")
    assert [(each["method"], each["strength"]) for each in found["runs"]] == [("mas", 0.25), ("er", 1.0)]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["methods"] == settings
    other = dataclasses.replace(experiment, settings={**settings, "er": {"memory": 6}})
    with pytest.raises(ForgetlessError, match=r"methods\.er\.memory is 12 there and 6 here"):
        run(other, None, [1], tmp_path / "out")


@pytest.mark.parametrize("gpus", [0, 2])
def test_processes_take_gpus_by_turns(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for number in range(3):
        take_gpu(number)
    assert taken == ([0, 1, 0] if gpus else [])

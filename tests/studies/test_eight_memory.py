from __future__ import annotations

import pytest
import torch

from forgetless.lab.running.experiment import Experiment
from forgetless.learn.recipe import Recipe
from streams import network as small
from streams import stream
from studies.eight_memory import METHODS, kept, network, samples
from studies.eight_page import page
from studies.eight_runs import Found

EXPERIMENT = Experiment("small", stream(3), lambda seed: small(seed, pretrained=True), Recipe(0.1, 2, 24))


@pytest.mark.parametrize("name", METHODS)
def test_memory_does_not_grow_with_tasks_except_where_the_method_says_so(name: str) -> None:
    found = kept(EXPERIMENT, name)
    assert len(found) == 3
    if name != "ebll":  # an autoencoder for every task
        assert found[2] == found[1]
    backbone = network(EXPERIMENT)
    assert backbone == 4 * sum(each.numel() for each in small().parameters())
    if name in ("mas", "local-mas", "ewc", "si"):
        assert 2 * backbone <= found[2] <= 3 * backbone + 64  # θ*, Ω, and what counts
    if name in ("finetune", "frozen", "lwf"):
        assert found[2] == 0


def test_joint_training_keeps_all_samples() -> None:
    one = sum(part.numel() * part.element_size() for part in EXPERIMENT.tasks[0].train)
    assert samples(EXPERIMENT) == [one, 2 * one, 3 * one]
    assert EXPERIMENT.tasks[0].train[0].dtype == torch.float32


def test_the_page_shows_it() -> None:
    memory = {"tasks": ["a", "b"], "network": 2_000_000, "bytes": {"mas": [4_000_000, 4_000_000], "finetune": [0, 0]}}
    lines = page_lines(memory)
    assert "| FineTune | 0.00 | 0.00 |" in lines
    assert lines.index("| FineTune | 0.00 | 0.00 |") < lines.index("| MAS | 4.00 | 4.00 |")
    assert any("besides the network (2.00)" in line for line in lines)


def page_lines(memory: dict[str, object]) -> list[str]:
    options = {"limit": 1, "size": 1, "epochs": 1, "network": "other", "omega": "train", "rise": False}
    config = {"options": options, "pair": "a-b"}
    return page([Found(config, {"runs": [], "tasks": []}, [])], memory).splitlines()

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cli.conftest import Command
from forgetless.measure.kernels.parts.terms import Outer

Refused = Callable[..., None]

NETS = """
import torch
from torch import nn

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.w, self.idle = nn.Linear(3, 4), nn.Parameter(torch.randn(2, 2, 3)), nn.Linear(2, 2)
    def forward(self, x):
        heads = torch.cdist(x.view(-1, 1, 3), self.w.flatten(0, 1))
        return torch.tanh(self.lin(x)[:, :1] + heads.flatten(1))

class InFloat(nn.Linear):
    def forward(self, x):
        return super().forward(x.float())
def infloat():
    return InFloat(3, 2)
def number():
    return 3
"""


@pytest.fixture(autouse=True)
def _files(forgetless: Command) -> None:
    Path("nets_to_verify.py").write_text(NETS)


def test_prints_path_error_and_cost_of_every_parameter(forgetless: Command) -> None:
    done = forgetless("verify", "nets_to_verify:Heads", "--shape", "3")
    assert done.exit_code == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "batch" in lines["lin.weight"]
    assert "linear" in lines["lin.weight"]
    assert "one sample at a time" in lines["w"]
    assert "no rule for cdist" in lines["w"]
    assert "takes no part" in lines["idle.weight"]
    assert done.stdout.endswith("exact.\n")
    assert "ms one at a time" in done.stdout


def test_json(forgetless: Command) -> None:
    done = forgetless("verify", "nets_to_verify:Heads", "--shape", "3", "--samples", "5", "--json")
    found = json.loads(done.stdout)
    assert found["exact"] is True
    assert found["samples"] == 5
    assert found["dtype"] == "float32"
    assert set(found["milliseconds_per_sample"]) == {"plain", "importance", "one at a time"}
    weight = found["parameters"]["lin.weight"]
    assert weight["path"] == "batch"
    assert weight["error_float64"] < 1e-10
    assert weight["error_own_dtype"] < 2e-5
    assert found["parameters"]["w"]["milliseconds_per_sample"] is None


def test_ends_with_1_where_an_error_is_above_the_tolerance(
    forgetless: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Outer.modulus_sum

    def wrong(self: Outer, power: int, into: torch.Tensor | None = None) -> torch.Tensor:
        return right(self, power, into).mul_(1 + 1e-9)  # too little for the check of the first two samples

    monkeypatch.setattr(Outer, "modulus_sum", wrong)
    done = forgetless("verify", "nets_to_verify:Heads", "--shape", "3")
    assert done.exit_code == 1
    assert done.stderr == "forgetless: 1 of 5 parameters are not exact.\n"
    assert done.stdout.endswith("not exact: lin.weight\n")


def test_files_of_samples(forgetless: Command) -> None:
    import numpy as np

    np.save("x.npy", np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32))
    done = forgetless("verify", "nets_to_verify:Heads", "--data", "x.npy", "--json")
    assert json.loads(done.stdout)["samples"] == 4


def test_refuses(refused: Refused) -> None:
    refused(
        "'resnet' names no model; write hf:FOLDER_OR_NAME, timm:NAME, torchvision:NAME or package.module:function.",
        "verify",
        "resnet",
    )
    refused("nets_to_verify:number gives a int, not a torch.nn.Module.", "verify", "nets_to_verify:number")
    refused(
        "--shape '3,x' is no shape; write numbers with commas, as in 3,64,64.",
        *("verify", "nets_to_verify:Heads", "--shape", "3,x"),
    )
    refused(
        "--tolerance must be positive and finite, not -1.0.",
        *("verify", "nets_to_verify:Heads", "--shape", "3", "--tolerance", "-1"),
    )
    refused(
        "InFloat cannot compute in float64: mat1 and mat2 must have the same dtype, but got Float and Double.",
        *("verify", "nets_to_verify:infloat", "--shape", "3"),
    )

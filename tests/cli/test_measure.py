from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cli.conftest import Command
from forgetless import Importance
from forgetless.measure import reference

Refused = Callable[..., None]

NETS = """
import torch
from torch import nn

def made():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 4)
    def forward(self, left, right):
        return {"sum": self.lin(left + right), "left": self.lin(left)}

def broken():
    raise RuntimeError("no GPU")

def number():
    return 3
"""


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


@pytest.fixture(autouse=True)
def _files(forgetless: Command) -> None:
    """A module of networks, and data for them, in the folder where the command runs."""
    Path("nets_of_the_test.py").write_text(NETS)
    np.save("x.npy", np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32))


def test_measured_and_saved(forgetless: Command) -> None:
    done = forgetless("measure", "nets_of_the_test:made", "--data", "x.npy", "--out", "i")
    assert done.exit_code == 0, done.stderr
    assert "measured on 7 samples\nimportance: i\n" in done.stdout
    found = Importance.load("i")
    expected = reference.mas(made().eval(), torch.from_numpy(np.load("x.npy")))
    assert found.count == 7
    for name, total in expected.sums.items():
        assert torch.allclose(found.sums[name], total, rtol=1e-5, atol=1e-6), name


def test_json(forgetless: Command) -> None:
    words = ("measure", "nets_of_the_test:made", "--data", "x.npy", "--out", "i", "--exclude", "2", "--json")
    found = json.loads(forgetless(*words).stdout)
    assert (found["out"], found["estimator"], found["samples"], found["unused"]) == ("i", "mas", 7, [])
    assert list(found["parameters"]) == ["0.weight", "0.bias"]
    assert sum(each["share"] for each in found["parameters"].values()) == pytest.approx(1)


def test_weights_and_keywords_from_safetensors(forgetless: Command) -> None:
    torch.manual_seed(1)
    other = nn.ModuleDict({"lin": nn.Linear(3, 4)})
    save_file(other.state_dict(), "w.safetensors")
    save_file({"left": torch.randn(5, 3), "right": torch.randn(5, 3)}, "x.safetensors")
    words = ("measure", "nets_of_the_test:Keywords", "--weights", "w.safetensors", "--data", "x.safetensors")
    done = forgetless(*words, "--output", "sum", "--out", "i")
    assert done.exit_code == 0, done.stderr
    assert Importance.load("i").weights.keys() == {"lin.weight", "lin.bias"}


def test_an_importance_is_not_overwritten(forgetless: Command, refused: Refused) -> None:
    words = ("measure", "nets_of_the_test:made", "--data", "x.npy", "--out", "i")
    forgetless(*words)
    refused("i exists already; choose another --out.", *words)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("made", "'made' names no model; write package.module:function or torchvision:NAME."),
        ("no.where:made", "the module 'no.where' cannot be imported: No module named 'no'."),
        ("nets_of_the_test:other", "the module 'nets_of_the_test' has no function 'other'."),
        ("nets_of_the_test:broken", "nets_of_the_test:broken could not be made: RuntimeError: no GPU."),
        ("nets_of_the_test:number", "nets_of_the_test:number gives a int, not a torch.nn.Module."),
        ("torchvision:resnet18", "torchvision:resnet18 has random weights until you name a file with --weights."),
    ],
)
def test_no_such_model(model: str, sentence: str, refused: Refused) -> None:
    refused(sentence, "measure", model, "--data", "x.npy", "--out", "i")


def test_weights_of_another_model(refused: Refused) -> None:
    save_file({"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(4), "9.bias": torch.zeros(1)}, "w.safetensors")
    sentence = (
        "w.safetensors holds the weights of another model: it lacks '2.bias', '2.weight' and the model has no '9.bias'."
    )
    words = ("--weights", "w.safetensors", "--data", "x.npy", "--out", "i")
    refused(sentence, "measure", "nets_of_the_test:made", *words)


def test_data_that_cannot_be_read(forgetless: Command) -> None:
    Path("x.npy").write_bytes(b"no array")
    done = forgetless("measure", "nets_of_the_test:made", "--data", "x.npy", "--out", "i")
    assert done.exit_code == 2
    assert done.stderr.startswith("forgetless: x.npy is no image dataset, .npy or .safetensors file: ")
    assert not Path("i").exists()


def test_data_with_nan(refused: Refused) -> None:
    values = np.load("x.npy")
    values[4, 1] = np.nan
    np.save("x.npy", values)
    sentence = "the inputs hold NaN or Inf: batch 0, sample 4; clean the data first."
    refused(sentence, "measure", "nets_of_the_test:made", "--data", "x.npy", "--out", "i")

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cli.conftest import Command
from forgetless import Importance, Measurement
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
        (
            "made",
            "'made' names no model; write hf:FOLDER_OR_NAME, timm:NAME, torchvision:NAME or package.module:function.",
        ),
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


@pytest.mark.parametrize("option", ["--data", "--weights"])
@pytest.mark.parametrize("name", ["pipe.npy", "pipe.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(option: str, name: str, refused: Refused) -> None:
    os.mkfifo(name)
    words = {"--data": "x.npy", option: name, "--out": "i"}
    sentence = f"{name} cannot be read: it is a pipe or a device, not a regular file."
    refused(sentence, "measure", "nets_of_the_test:made", *(word for pair in words.items() for word in pair))


def test_data_with_nan(refused: Refused) -> None:
    values = np.load("x.npy")
    values[4, 1] = np.nan
    np.save("x.npy", values)
    sentence = "the inputs hold NaN or Inf: batch 0, sample 4; clean the data first."
    refused(sentence, "measure", "nets_of_the_test:made", "--data", "x.npy", "--out", "i")


PICTURES = """
import torch
from torch import nn

class Seen(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3)
    def forward(self, x):
        return self.conv(x.float() / 255).mean((2, 3))

class Other(Seen):
    pass

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(9, 4)
        self.out = nn.Linear(4, 2)
    def forward(self, input_ids, attention_mask):
        seen = self.words(input_ids) * attention_mask[..., None]
        return self.out(seen.sum(1))

def encode(texts):
    ids = torch.tensor([[len(word) % 9 for word in text.split()][:2] for text in texts])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
"""


@pytest.fixture
def folder(_files: None) -> Path:
    """Seven pictures without classes, one in a folder of its own and one that cannot be read."""
    Image = pytest.importorskip("PIL.Image")
    Path("seen_of_the_test.py").write_text(PICTURES)
    place = Path("today")
    (place / "deep").mkdir(parents=True)
    for number in range(7):
        path = place / ("deep" if number == 3 else ".") / f"{number}.png"
        Image.new("RGB", (9, 9), (30 * number, 200 - 20 * number, 5 * number)).save(path)
    return place


def seen(pictures: torch.Tensor) -> Importance:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 2, 3)
    model = nn.ModuleDict({"conv": conv})
    return reference.mas(model, pictures, forward=lambda m, x: m["conv"](x.float() / 255).mean((2, 3)))


def of_the_folder(place: Path) -> torch.Tensor:
    Image = pytest.importorskip("PIL.Image")
    paths = sorted(place.rglob("*.png"))
    return torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in paths])


def test_a_folder_of_pictures_without_classes(forgetless: Command, folder: Path) -> None:
    words = ("measure", "seen_of_the_test:Seen", "--data", folder, "--size", 9, "--batch-size", 3, "--out", "i")
    done = forgetless(*words, "--memory", 1)
    assert done.exit_code == 0, done.stderr
    found, expected = Importance.load("i"), seen(of_the_folder(folder))
    assert found.count == 7
    for name, total in expected.sums.items():
        assert torch.allclose(found.sums[name], total, rtol=1e-4, atol=1e-5), name
    assert not Path("i.partial").exists()


def test_the_time_is_up(forgetless: Command, folder: Path) -> None:
    words = ("measure", "seen_of_the_test:Seen", "--data", folder, "--size", 9, "--batch-size", 3, "--out", "i")
    done = forgetless(*words, "--max-seconds", 0)
    assert (done.exit_code, Importance.load("i").count) == (0, 3)
    assert done.stderr == "forgetless: the time is up after 3 of 7 samples.\n"
    assert not Path("i.partial").exists()


def weights_of(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return nn.ModuleDict({"conv": nn.Conv2d(3, 2, 3)}).state_dict()


def test_stopped_and_continued(forgetless: Command, refused: Refused, folder: Path) -> None:
    def different(what: str, *words: object) -> None:
        before = Path("i.partial").read_bytes()
        done = forgetless(*words)
        assert (done.exit_code, Path("i").exists(), Path("i.partial").read_bytes()) == (2, False, before)
        assert done.stderr.startswith("forgetless: i.partial is of another measurement (")
        assert what in done.stderr

    (folder / "4.png").rename(folder / "4.kept")
    (folder / "4.png").write_bytes(b"no picture")
    words = ("measure", "seen_of_the_test:Seen", "--data", folder, "--size", 9, "--batch-size", 2, "--out", "i")
    assert forgetless(*words).exit_code == 2  # a picture cannot be read, and nothing of the result is there
    assert not Path("i").exists()

    def stop(self: Measurement, batch: object) -> int:
        if self.count == 4:
            raise KeyboardInterrupt
        return add(self, batch)

    add = Measurement.add
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Measurement, "add", stop)
        (folder / "4.png").unlink()
        (folder / "4.kept").rename(folder / "4.png")
        done = forgetless(*words)
    assert (done.exit_code, Path("i").exists()) == (130, False)
    assert done.stderr == "forgetless: stopped; 4 of 7 samples are kept for --resume.\n"
    refused("i.partial is a measurement that was stopped; continue it with --resume, or remove it.", *words)
    (folder / "9.png").write_bytes((folder / "1.png").read_bytes())
    different("the data: '7 samples, ", *words, "--resume")
    (folder / "9.png").unlink()
    different("--size: '9' there, '8' here", *words[:5], 8, *words[6:], "--resume")
    different("--exclude: '' there, 'conv.bias' here", *words, "--exclude", "conv.bias", "--resume")
    different("the model: 'seen_of_the_test:Seen' there", words[0], "seen_of_the_test:Other", *words[2:], "--resume")
    save_file({**weights_of(0), "conv.bias": torch.ones(2)}, "w.safetensors")
    different("the weights: ", *words, "--weights", "w.safetensors", "--resume")
    assert forgetless(*words, "--resume").exit_code == 0
    found, expected = Importance.load("i"), seen(of_the_folder(folder))
    assert found.count == 7
    for name, total in expected.sums.items():
        assert torch.allclose(found.sums[name], total, rtol=1e-4, atol=1e-5), name


@pytest.mark.filterwarnings("default")
def test_pictures_that_cannot_be_read_are_left_out_when_asked(forgetless: Command, folder: Path) -> None:
    (folder / "0.png").write_bytes(b"no picture")
    words = ("measure", "seen_of_the_test:Seen", "--data", folder, "--size", 9, "--batch-size", 1, "--out", "i")
    done = forgetless(*words, "--skip-bad")
    assert (done.exit_code, Importance.load("i").count) == (0, 6), done.stderr
    assert "left out 1 pictures: none of the 1 pictures can be read" in done.stderr


def test_texts(forgetless: Command, folder: Path) -> None:
    Path("t.jsonl").write_text('{"text": "a bc"}\n\n{"text": "def gh"}\n')
    Path("n.jsonl").write_text('{"input_ids": [1, 2]}\n{"input_ids": [3]}\n')
    words = ("measure", "seen_of_the_test:Words", "--output", "0")
    for data, more in (("t.jsonl", ("--encode", "seen_of_the_test:encode")), ("n.jsonl", ())):
        done = forgetless("measure", "seen_of_the_test:Words", "--data", data, *more, "--out", f"{data}.i")
        assert (done.exit_code, Importance.load(f"{data}.i").count) == (0, 2), (words, done.stderr)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "t.jsonl is empty."),
        ("[1]", "line 1 of t.jsonl is no object with input_ids or text."),
        ('{"other": 1}', "line 1 of t.jsonl is no object with input_ids or text."),
        ('{"text": "a"}', "t.jsonl holds texts: name a function that makes a batch of them with --encode."),
        ('{"input_ids": [1]}\n{"input_ids": [-1]}', "line 2 of t.jsonl has [-1] for input_ids."),
        ('{"input_ids": [1]}\n{"input_ids": [true]}', "line 2 of t.jsonl has [True] for input_ids."),
        ('{"input_ids": [1]}\n{"text": "a"}', "line 2 of t.jsonl has None for input_ids."),
        ('{"input_ids": [1]}\n\n[2]', "line 3 of t.jsonl has None for input_ids."),
    ],
)
def test_texts_that_cannot_be_read(line: str, sentence: str, refused: Refused) -> None:
    Path("t.jsonl").write_text(line)
    refused(sentence, "measure", "nets_of_the_test:made", "--data", "t.jsonl", "--out", "i")


def test_texts_are_in_utf_8_and_a_line_ends_in_a_line_feed(forgetless: Command, folder: Path) -> None:
    words = ("measure", "seen_of_the_test:Words", "--encode", "seen_of_the_test:encode", "--data", "t.jsonl")
    Path("t.jsonl").write_bytes('{"text": "a\u2028b"}\r\n{"text": "c d"}\n'.encode())
    done = forgetless(*words, "--out", "i")
    assert (done.exit_code, Importance.load("i").count) == (0, 2), done.stderr
    Path("t.jsonl").write_bytes(b'{"text": "\xe9"}\n')
    done = forgetless(*words, "--out", "j")
    assert done.exit_code == 2
    assert done.stderr.startswith("forgetless: t.jsonl is no text in UTF-8: ")


def test_an_empty_folder(refused: Refused) -> None:
    Path("empty").mkdir()
    refused("empty holds no pictures.", "measure", "nets_of_the_test:made", "--data", "empty", "--out", "i")

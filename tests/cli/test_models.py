"""MODEL by name: what `measure` and `verify` make of hf:, timm: and torchvision:."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.conftest import Command
from forgetless import Importance
from forgetless.cli.parts import hub
from forgetless.lab.finetuning.loaded import embeddings
from forgetless.measure import reference
from tiny_folders import classifier_folder, encoder_folder, language_folder, pictures, vision_folder
from tiny_language import texts, tokenizer

timm = pytest.importorskip("timm")
Refused = Callable[..., None]


@pytest.fixture(autouse=True)
def _here(forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which the command runs; nobody asks the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def agree(found: Importance, expected: Importance, count: int) -> None:
    assert found.count == count
    for name, total in expected.sums.items():
        assert torch.allclose(found.sums[name], total, rtol=1e-3, atol=1e-5), name


def test_a_language_model_in_a_folder(forgetless: Command) -> None:
    model, sentences = language_folder(Path("m")), texts(7, 1)
    Path("t.jsonl").write_text("\n".join(json.dumps({"id": 1, "body": each}) for each in sentences))
    words = ("measure", "hf:m", "--data", "t.jsonl", "--text-field", "body", "--batch-size", 3)
    done = forgetless(*words, "--max-length", 8, "--out", "i")
    assert done.exit_code == 0, done.stderr
    rows = [tokenizer()(each)["input_ids"][:8] for each in sentences]
    alone = [{"input_ids": torch.tensor([row])} for row in rows]
    more = [{"input_ids": torch.tensor([tokenizer()(each)["input_ids"][8:]])} for each in sentences]
    more = [each for each in more if each["input_ids"].shape[1] > 1]  # what is longer becomes several samples
    agree(Importance.load("i"), reference.mas(model, alone + more), 7 + len(more))


def test_chats_go_through_the_template(forgetless: Command) -> None:
    model = language_folder(Path("m"))
    chat = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3"}]
    Path("t.jsonl").write_text(json.dumps({"messages": chat}))
    assert forgetless("measure", "hf:m", "--data", "t.jsonl", "--out", "i").exit_code == 0
    ids = tokenizer()("w1 w2 <eos> w3 <eos>")["input_ids"]
    agree(Importance.load("i"), reference.mas(model, [{"input_ids": torch.tensor([ids])}]), 1)


def test_classifiers_and_encoders_of_texts(forgetless: Command) -> None:
    Path("t.txt").write_text("w1 w2 w3\nw4 w5\nw1")
    batches = [{"input_ids": torch.tensor([tokenizer()(line)["input_ids"]])} for line in ("w1 w2 w3", "w4 w5", "w1")]
    for make, forward in (
        (classifier_folder, None),
        (encoder_folder, lambda model, batch: embeddings(model(**batch).last_hidden_state, batch)),
    ):
        model = make(Path(make.__name__))
        done = forgetless("measure", f"hf:{make.__name__}", "--data", "t.txt", "--out", f"{make.__name__}.i")
        assert done.exit_code == 0, done.stderr
        agree(Importance.load(f"{make.__name__}.i"), reference.mas(model, batches, forward=forward), 3)


def test_a_new_head_begins_alike_whenever_an_encoder_is_loaded() -> None:
    encoder_folder(Path("m"))
    first, second = (hub.load("m", labels=True).network.state_dict() for _ in range(2))
    assert "classifier.weight" in first
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pictures_are_scaled_as_the_model_was_trained(forgetless: Command) -> None:
    model, place = vision_folder(Path("m")), pictures(Path("p"), ("a", "b"), 2)
    done = forgetless("measure", "hf:m", "--data", place, "--out", "i")
    assert done.exit_code == 0, done.stderr
    from PIL import Image
    from transformers import ViTImageProcessor

    opened = [Image.open(path) for path in sorted(place.rglob("*.png"))]
    batch = dict(ViTImageProcessor.from_pretrained("m")(opened, return_tensors="pt"))
    agree(Importance.load("i"), reference.mas(model, batch), 4)


@pytest.mark.parametrize("kind", ["timm:test_efficientnet", "torchvision:squeezenet1_1"])
def test_weights_of_a_file_with_classes_of_its_own(kind: str, forgetless: Command) -> None:
    library, _, name = kind.partition(":")
    from torchvision import models

    make = timm.create_model if library == "timm" else models.get_model
    torch.manual_seed(0)
    save_file(make(name, num_classes=5).state_dict(), "w.safetensors")
    place = pictures(Path("p"), ("a",), 2)
    words = ("measure", kind, "--weights", "w.safetensors", "--data", place, "--size", 24, "--out", "i")
    done = forgetless(*words)
    assert done.exit_code == 0, done.stderr
    last = "classifier.weight" if library == "timm" else "classifier.1.weight"
    assert len(Importance.load("i").sums[last]) == 5


def test_verify(forgetless: Command) -> None:
    language_folder(Path("m"))
    done = forgetless("verify", "hf:m", "--samples", 2)
    assert (done.exit_code, done.stdout[-7:]) == (0, "exact.\n"), done.stderr


def test_names_that_lead_nowhere(forgetless: Command, refused: Refused) -> None:
    refused("hf:./no cannot be loaded: there is no folder ./no.", "measure", "hf:./no", "--data", "x", "--out", "i")
    Path("empty").mkdir()
    refused("hf:empty cannot be loaded: empty has no config.json.", "measure", "hf:empty", "--data", "x", "--out", "i")
    for library in ("timm", "torchvision"):
        done = forgetless("measure", f"{library}:resnet81", "--data", "x", "--out", "i")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"forgetless: {library} has no model 'resnet81'; did you mean 'resnet")
    done = forgetless("measure", "timm:~", "--data", "x", "--out", "i")
    assert done.stderr.startswith("forgetless: timm has no model '~'; it has '")
    refused(
        "hf:x brings its own weights; leave out --weights.",
        "measure",
        "hf:x",
        "--weights",
        "w",
        "--data",
        "x",
        "--out",
        "i",
    )


@pytest.mark.parametrize("model", ["hf:no-such-model-of-the-test", "timm:resnet10t"])
def test_the_hub_cannot_be_reached(model: str, forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(Path.cwd()))
    done = forgetless("measure", model, "--data", "x", "--out", "i")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"forgetless: {model}")
    assert "could not be loaded: " in done.stderr


def test_what_a_folder_lacks(forgetless: Command, refused: Refused) -> None:
    def said(words: str) -> None:
        done = forgetless("measure", "hf:m", "--data", "t.txt", "--out", "i")
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert words in done.stderr

    Path("t.txt").write_text("w1 w2")
    model = language_folder(Path("m"))
    kept = {name: Path("m", name).read_bytes() for name in ("tokenizer.json", "model.safetensors", "config.json")}
    Path("m/tokenizer.json").unlink()
    said("a model of texts needs its tokenizer's files beside it")
    Path("m/tokenizer.json").write_bytes(kept["tokenizer.json"])
    Path("m/model.safetensors").unlink()
    torch.save(model.state_dict(), "m/pytorch_model.bin")
    said("only .safetensors files are read")
    Path("m/pytorch_model.bin").unlink()
    tensors = load_file_of(kept["model.safetensors"])
    del tensors["model.norm.weight"]
    save_file(tensors, "m/model.safetensors", {"format": "pt"})
    said("hf:m lacks the weights 'model.norm.weight'.")
    Path("m/model.safetensors").write_bytes(kept["model.safetensors"])
    config = json.loads(kept["config.json"])
    Path("m/config.json").write_text(json.dumps({**config, "architectures": ["LlamaForTokenClassification"]}))
    said("hf:m is a LlamaForTokenClassification, which is not served")


def load_file_of(content: bytes) -> dict[str, torch.Tensor]:
    Path("copy.safetensors").write_bytes(content)
    return load_file("copy.safetensors")


def test_code_that_a_model_brings_is_not_run(forgetless: Command) -> None:
    language_folder(Path("m"))
    config = json.loads(Path("m/config.json").read_text())
    own = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    Path("m/config.json").write_text(json.dumps({**config, "model_type": "of_its_own", "auto_map": own}))
    Path("m/mine.py").write_text("import pathlib\npathlib.Path('run').touch()\n")
    Path("t.txt").write_text("w1 w2")
    done = forgetless("measure", "hf:m", "--data", "t.txt", "--out", "i")
    assert (done.exit_code, done.stderr.count("\n"), Path("run").exists()) == (2, 1, False), done.stderr


def test_texts_without_the_field(refused: Refused) -> None:
    language_folder(Path("m"))
    Path("t.csv").write_text("body,id\na,1\n")
    sentence = "t.csv has no field 'text': it has 'body', 'id'; name one with --text-field."
    refused(sentence, "measure", "hf:m", "--data", "t.csv", "--out", "i")


def test_a_name_that_is_neither_a_folder_nor_on_the_hub(
    forgetless: Command, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **options: object) -> None:
        raise OSError("couldn't connect")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", away)
    Path("mymodel").mkdir()
    Path("mymodel", "config.json").touch()
    rest = ("--data", "x", "--out", "i")
    sentence = "hf:mymodle: it could not be loaded: couldn't connect; and there is no folder mymodle here; did you "
    sentence += "mean hf:mymodel?"
    refused(sentence, "measure", "hf:mymodle", *rest)
    sentence = "hf:./mymodle cannot be loaded: there is no folder ./mymodle; did you mean hf:mymodel?"
    refused(sentence, "measure", "hf:./mymodle", *rest)
    refused("'mymodel' names no model; did you mean hf:mymodel?", "measure", "mymodel", *rest)


def test_without_a_network_the_hub_is_asked_once(forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append(url)
            raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    done = forgetless("measure", "hf:no-such-model-of-the-test", "--data", "x", "--out", "i")
    assert (done.exit_code, len(asked), done.stderr.count("\n")) == (2, 1, 1)
    assert "there is no folder no-such-model-of-the-test here" in done.stderr


def test_a_file_of_weights_is_no_model(refused: Refused) -> None:
    for name in ("w.pt", "pytorch_model.bin"):
        torch.save({"w": torch.zeros(1)}, name)
    rest = ("--data", "x", "--out", "i")
    sentence = "w.pt holds weights, not the network that they are of: name that as MODEL, and the weights as a "
    kinds = "hf:FOLDER_OR_NAME, timm:NAME, torchvision:NAME or package.module:function"
    refused(f"{sentence}.safetensors file with --weights ({kinds}).", "measure", "w.pt", *rest)
    sentence = "hf:pytorch_model.bin is a file: name the folder that it is in, which also has config.json; only "
    refused(f"{sentence}.safetensors files are read.", "measure", "hf:pytorch_model.bin", *rest)
    sentence = "w.pt is a pickle, which can run code when it is read; save its weights again with "
    sentence += "safetensors.torch.save_file(torch.load('w.pt', weights_only=True), 'w.safetensors')."
    refused(sentence, "measure", "timm:resnet10t", "--weights", "w.pt", *rest)

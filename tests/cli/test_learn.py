from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from cli.conftest import Command
from cli.learned import found, logged, same_files, scalars, watch
from forgetless import Importance
from forgetless.lab.finetuning.classification import ClassifierTraining
from forgetless.lab.finetuning.heads import OLD
from forgetless.lab.finetuning.loaded import Kind, Loaded
from forgetless.lab.finetuning.logged import Log
from forgetless.lab.finetuning.samples import Samples
from forgetless.lab.finetuning.samples import texts as read_texts
from forgetless.lab.finetuning.training import Training
from forgetless.protect.strength.hold_share import SHARE
from tiny_folders import (
    CLASSES,
    classifier_folder,
    encoder_folder,
    labeled_texts,
    pictures,
)

pytest.importorskip("transformers")
Refused = Callable[..., None]


@pytest.fixture
def classifier(forgetless: Command) -> tuple[object, ...]:
    """The words of a command that teaches two new classes to a classifier of texts."""
    classifier_folder(Path("m"))
    labeled_texts(Path("new.csv"), ("p", "q"), 40, 1)
    labeled_texts(Path("old.csv"), CLASSES, 30, 2)
    return ("learn", "hf:m", "--new", "new.csv", "--like-old", "old.csv", "--batch-size", 8, "--epochs", 4)


def test_texts_with_new_classes(forgetless: Command, classifier: tuple[object, ...]) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    before = AutoModelForSequenceClassification.from_pretrained("m").eval()
    done = forgetless(*classifier, "--lr", "1e-2", "--compare", "--out", "o")
    assert done.exit_code == 0, done.stderr
    summary = found("o")
    assert summary["old"] == {"data": "old.csv", "measured_on": 24, "shown": 0, "held_out": 6}
    assert summary["before"]["old_agreement"] == 1
    assert summary["after"]["mas"]["new_accuracy"] > 0.7
    assert summary["after"]["mas"]["old_agreement"] >= summary["after"]["finetune"]["old_agreement"]
    assert summary["after"]["mas"]["strength"] > 0
    assert "after mas" in done.stdout
    assert "after finetune" in done.stdout
    assert "a new head is made for the 2 new classes; the old one is kept beside the model" in done.stdout
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained("o"), AutoTokenizer.from_pretrained("o")
    assert model.config.id2label == {0: "p", 1: "q"}
    said = model(**tokenizer(["w1 w2 w3", "w20 w21"], padding=True, return_tensors="pt")).logits.argmax(1)
    assert said.tolist() == [0, 1]
    # With the old head the model is what the old data were judged by.
    old = AutoModelForSequenceClassification.from_pretrained("o", num_labels=3, ignore_mismatched_sizes=True).eval()
    old.load_state_dict(load_file("o/old_head.safetensors"), strict=False)
    assert torch.equal(old.classifier.weight, before.classifier.weight)
    loaded = Loaded("m", before, Kind.TEXT_CLASSIFIER, lambda *_: None, tokenizer=tokenizer)
    samples = read_texts(loaded, Path("old.csv"), text=None, label="label", length=512, seed=0, what="")
    batch, _ = samples.take(samples.held)
    same = (old(**batch).logits.argmax(1) == before(**batch).logits.argmax(1)).double().mean()
    assert float(same) == summary["after"]["mas"]["old_agreement"]
    assert Importance.load("o/importance.safetensors").count == 24
    assert not Path("o/work").exists()


def test_new_samples_of_its_own_classes_share_the_head(forgetless: Command, classifier: tuple[object, ...]) -> None:
    labeled_texts(Path("new.csv"), CLASSES, 45, 3)
    done = forgetless(*classifier, "--method", "l2sp", "--strength", "1e9", "--out", "o")
    assert done.exit_code == 0, done.stderr
    held = found("o")["after"]["l2sp"]  # so strongly that nothing moves
    assert {name: held[name] for name in found("o")["before"]} == found("o")["before"]
    assert not Path("o/old_head.safetensors").exists()
    assert "λ = 1e+09, as given\n" in done.stdout
    assert "\nλ = 1e+09 holds 100% of the weights, so hardly anything could be learned; leave" in done.stdout


def test_the_share_to_hold_back_is_chosen(forgetless: Command, classifier: tuple[object, ...]) -> None:
    strengths = []
    for number, hold in enumerate(((), ("--hold", f"{SHARE:g}"), ("--hold", "0.9"))):
        done = forgetless(*classifier, *hold, "--out", f"o{number}")
        assert done.exit_code == 0, done.stderr
        said = "90%" if "0.9" in hold else f"{SHARE:.0%}"
        strengths.append(found(f"o{number}")["after"]["mas"]["strength"])
        assert f"λ = {strengths[-1]:.2g}: {said} of the movement is held back\n" in done.stdout
        assert "hardly anything" not in done.stdout
    assert strengths[0] == strengths[1] < strengths[2]
    assert Path("o0/model.safetensors").read_bytes() == Path("o1/model.safetensors").read_bytes()


def test_stopped_and_continued_to_the_bit(
    forgetless: Command, classifier: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    assert forgetless(*classifier, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patched:
        watch(patched, stop_at=7)
        done = forgetless(*classifier, "--out", "o")
    assert (done.exit_code, done.stderr) == (130, "forgetless: stopped; what was done is kept for --resume.\n")
    assert not Path("o/learned.json").exists()
    refused("o exists already; continue it with --resume, or choose another --out.", *classifier, "--out", "o")
    other = forgetless(*classifier, "--seed", 1, "--out", "o", "--resume")
    assert "o was begun with something else (" in other.stderr
    assert "seed: 0 there, 1 here" in other.stderr
    with monkeypatch.context() as patched:
        steps = watch(patched)
        assert forgetless(*classifier, "--out", "o", "--resume").exit_code == 0
    assert (steps[0], steps[-1]) == (8, 16)
    same_files("whole", "o")
    again = forgetless(*classifier, "--out", "o", "--resume", "--json")  # all is done: told again
    assert json.loads(again.stdout) == found("o")


def test_stopped_while_the_strength_is_looked_for(
    forgetless: Command, classifier: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*classifier, "--log", "csv")
    assert forgetless(*words, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patched:
        watch(patched, stop_at=3)  # λ is found at steps 1, 2 and 4, by the largest learning rate so far
        assert forgetless(*words, "--out", "o").exit_code == 130
    assert forgetless(*words, "--out", "o", "--resume").exit_code == 0
    assert logged("whole") == logged("o")
    shutil.rmtree("whole/logs")
    shutil.rmtree("o/logs")
    same_files("whole", "o")


def test_a_logger_gets_every_figure_once(
    forgetless: Command, classifier: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*classifier, "--compare", "--log", "csv", "--log", "csv")
    assert forgetless(*words, "--out", "whole").exit_code == 0
    made, summary = logged("whole"), found("whole")
    runs = {
        method: {(step, key): value for run, step, key, value in made if run == method}
        for method in ("mas", "finetune")
    }
    assert sum(map(len, runs.values())) == len(made)
    for method, after in summary["after"].items():
        assert [step for step, key in runs[method] if key == "forgetless/loss"] == [*range(1, 17)]
        for step, figures in ((0, summary["before"]), (16, after)):
            for name, key in (
                ("old_agreement", "agreement"),
                ("old_accuracy", "accuracy/old"),
                ("new_accuracy", "accuracy/new"),
            ):
                assert runs[method].get((step, f"forgetless/{key}")) == figures.get(name)
    assert runs["mas"][16, "forgetless/strength"] == summary["after"]["mas"]["strength"]
    assert runs["mas"][16, "forgetless/drift"] > 0
    assert not {"forgetless/strength", "forgetless/drift"} & {key for _, key in runs["finetune"]}
    # Killed before its checkpoint, it takes steps again; they are not passed on again.
    monkeypatch.setattr("forgetless.learn.checkpoint.write", lambda *_: None)
    with monkeypatch.context() as patched:
        watch(patched, stop_at=7)
        assert forgetless(*words, "--out", "o").exit_code == 130
    assert {step for _, step, _, _ in logged("o")} == {*range(1, 8)}
    with monkeypatch.context() as patched:
        assert watch(patched) == []
        assert forgetless(*words, "--out", "o", "--resume").exit_code == 0
    assert logged("o") == made
    assert forgetless(*words, "--out", "o", "--resume").exit_code == 0  # all is done
    assert logged("o") == made


@pytest.mark.parametrize(("name", "read"), [("csv", logged), ("tensorboard", scalars)])
def test_figures_of_a_logger_that_were_not_remembered_are_written_once(
    forgetless: Command,
    classifier: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    read: Callable[[str], object],
) -> None:
    if name == "tensorboard":
        pytest.importorskip(name)
    words = (*classifier, "--epochs", 1, "--log", name)
    assert forgetless(*words, "--out", "whole").exit_code == 0
    keep, calls = Log._keep, 0

    def killed(self: Log, name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise OSError("killed")
        keep(self, name)

    for stop_at in (1, 3, 5):  # the first step, another one, and the figures in the end
        place = f"o{stop_at}"
        with monkeypatch.context() as patched:
            patched.setattr(Log, "_keep", killed)
            assert str(forgetless(*words, "--out", place).exception) == "killed"
        calls = 0
        assert forgetless(*words, "--out", place, "--resume").exit_code == 0
        assert read(place) == read("whole")


def test_a_logger_that_is_named_later_gets_what_was_found(forgetless: Command, classifier: tuple[object, ...]) -> None:
    assert forgetless(*classifier, "--epochs", 1, "--out", "o").exit_code == 0
    assert not Path("o/logs").exists()
    assert forgetless(*classifier, "--epochs", 1, "--out", "o", "--resume", "--log", "csv").exit_code == 0
    assert {(step, key) for _, step, key, _ in logged("o")} == {
        *((step, f"forgetless/{key}") for step in (0, 4) for key in ("agreement", "accuracy/old")),
        *((4, f"forgetless/{key}") for key in ("accuracy/new", "strength")),
    }


def test_old_answers_of_a_classifier(
    forgetless: Command, classifier: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, taken = set[int](), Training.old_batch

    def noting(self: Training, numbers: Sequence[int]) -> object:
        assert self.old is not None
        assert not set(numbers) & set(self.old.held)
        shown.update(numbers)
        return taken(self, numbers)

    monkeypatch.setattr(Training, "old_batch", noting)
    words = (*classifier, "--lr", "1e-2", "--method", "distillation")
    done = forgetless(*words, "--compare", "--out", "o")
    assert done.exit_code == 0, done.stderr
    summary = found("o")
    assert summary["old"] == {"data": "old.csv", "measured_on": 0, "shown": 24, "held_out": 6}
    assert len(shown) == 24  # and none of those that are held out
    after = summary["after"]
    assert after["distillation"]["strength"] == 1
    assert after["distillation"]["new_accuracy"] > 0.7
    assert after["distillation"]["old_agreement"] >= after["finetune"]["old_agreement"]
    assert "after distillation" in done.stdout
    assert not Path("o/importance.safetensors").exists()
    weak = forgetless(*words, "--strength", "0", "--out", "none")
    assert weak.exit_code == 0, weak.stderr
    left = found("none")["after"]["distillation"]
    assert {n: left[n] for n in summary["before"]} == {n: after["finetune"][n] for n in summary["before"]}


def test_old_and_new_answers_are_clipped_together(forgetless: Command, classifier: tuple[object, ...]) -> None:
    norms = list[float]()

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [
            each.grad.norm() for group in optimizer.param_groups for each in group["params"] if each.grad is not None
        ]
        norms.append(float(torch.stack(gradients).norm()))

    handle = register_optimizer_step_post_hook(note)
    words = (*classifier, "--lr", "1e-2", "--method", "distillation", "--strength", "1000")
    try:
        assert forgetless(*words, "--out", "o").exit_code == 0
    finally:
        handle.remove()
    learning = norms[-16:]
    assert max(learning) == pytest.approx(1, rel=1e-3)  # the recipe's, which so large a strength reaches


def test_old_answers_stopped_and_continued_to_the_bit(
    forgetless: Command, classifier: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*classifier, "--lr", "1e-2", "--method", "distillation", "--strength", 2)
    assert forgetless(*words, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patched:
        watch(patched, stop_at=7)
        assert forgetless(*words, "--out", "o").exit_code == 130
    with monkeypatch.context() as patched:
        steps = watch(patched)
        assert forgetless(*words, "--out", "o", "--resume").exit_code == 0
    assert (steps[0], steps[-1]) == (8, 16)
    same_files("whole", "o", "distillation")
    assert found("o")["after"]["distillation"]["strength"] == 2


def test_an_importance_in_place_of_old_data(forgetless: Command, classifier: tuple[object, ...]) -> None:
    assert forgetless("measure", "hf:m", "--data", "old.csv", "--out", "i").exit_code == 0
    words = (*classifier[:4], *classifier[6:])
    done = forgetless(*words, "--importance", "i", "--out", "o")
    assert done.exit_code == 0, done.stderr
    assert found("o")["old"] is None
    assert found("o")["after"]["mas"]["strength"] > 0


def test_an_importance_that_was_replaced_is_not_resumed_with(
    forgetless: Command, classifier: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert forgetless("measure", "hf:m", "--data", "old.csv", "--out", "i").exit_code == 0
    words = (*classifier[:4], *classifier[6:], "--importance", "i", "--out", "o")
    with monkeypatch.context() as patched:
        watch(patched, stop_at=2)
        assert forgetless(*words).exit_code == 130
    first, other = Path("i").read_bytes(), Importance.load("i")
    replace(other, sums={name: 2 * each for name, each in other.sums.items()}).save("i")
    done = forgetless(*words, "--resume")
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(
        r"forgetless: o was begun with something else \(importance: i, SHA-256 \w{16} there, i, SHA-256 \w{16} here\); "
        r"choose another --out\.\n",
        done.stderr,
    )
    Path("i").write_bytes(first)
    assert forgetless(*words, "--resume").exit_code == 0


def test_an_encoder_gets_a_head(forgetless: Command, classifier: tuple[object, ...]) -> None:
    encoder_folder(Path("m2"))
    refused = forgetless("learn", "hf:m2", *classifier[2:], "--out", "o", "--method", "distillation")
    assert "--method distillation keeps answers, and hf:m2 is an encoder of texts, whose embeddings" in refused.stderr
    done = forgetless("learn", "hf:m2", *classifier[2:], "--out", "o")
    assert done.exit_code == 0, done.stderr
    assert 0.5 < found("o")["after"]["mas"]["old_similarity"] <= 1
    assert "a new head is made for the 2 new classes; it had none." in done.stdout
    assert json.loads(Path("o/config.json").read_text())["architectures"] == ["BertForSequenceClassification"]


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
    def forward(self, x):
        return self.fc(self.conv(x.float() / 255).relu().mean((2, 3)))

class Scaled(Net):
    def forward(self, x):
        return 2 * super().forward(x)

class Unscaled(Net):
    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))

class InTuple(Net):
    def forward(self, x):
        return (super().forward(x),)

class Looking(Net):
    def forward(self, x):
        return self.fc(self.conv(x.to(self.fc.weight.dtype) / 255).relu().mean((2, 3)))

class YesOrNo(Net):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 1)
        self.conv.requires_grad_(False)

def not_finite():
    net = Net()
    net.conv.bias.data[0] = float("nan")
    return net

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))

def ends():
    raise SystemExit(3)

def ends_in_a_convolution():
    return nn.Sequential(nn.Conv2d(3, 2, 16), nn.Flatten())
"""


def test_pictures_and_timm(forgetless: Command) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=3).state_dict(), "w.safetensors")
    new, old = pictures(Path("new"), ("red", "green"), 6), pictures(Path("old"), CLASSES, 6, 1)
    words = ("learn", "timm:test_vit", "--weights", "w.safetensors", "--new", new, "--like-old", old, "--batch-size", 6)
    done = forgetless(*words, "--out", "o", "--epochs", 2)
    assert done.exit_code == 0, done.stderr
    assert found("o")["after"]["mas"]["new_accuracy"] == 1
    # The weights do not name their classes; the old pictures have as many.
    assert 0 <= found("o")["before"]["old_accuracy"] <= 1
    assert f"taken for those of the old data, in this order: {', '.join(map(repr, CLASSES))}." in done.stdout
    state = load_file("o/model.safetensors")
    timm.create_model("test_vit", num_classes=2).load_state_dict(state)
    assert load_file("o/old_head.safetensors").keys() == {"head.weight", "head.bias"}
    # What was learned knows its classes: more pictures of them share its head.
    more = ("learn", "timm:test_vit", "--weights", "o/model.safetensors", "--new", new, "--like-old", new)
    done = forgetless(*more, "--epochs", 1, "--strength", 1, "--out", "o2")
    assert done.exit_code == 0, done.stderr
    assert found("o2")["before"] == {"old_agreement": 1, "old_accuracy": 1, "new_accuracy": 1}


def test_a_module_of_pictures_and_a_dry_run(forgetless: Command) -> None:
    Path("nets_to_teach.py").write_text(NETS)
    new, old = pictures(Path("new"), ("red", "green"), 6), pictures(Path("old"), ("any",), 6)
    words = ("learn", "nets_to_teach:Net", "--new", new, "--like-old", old / "any", "--size", 16, "--out", "o")
    done = forgetless(*words, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    estimate = json.loads(done.stdout)
    assert (estimate["steps"], estimate["parameters"]) == (5, 8 * 27 + 8 + 4 * 8 + 4)
    assert estimate["memory"] == estimate["parameters"] * 4 * 6
    assert estimate["peak"] > 0
    assert not Path("o").exists()
    kept = json.loads(forgetless(*words, "--dry-run", "--json", "--method", "distillation", "--compare").stdout)
    assert kept["memory"] == kept["parameters"] * 4 * 5
    assert kept["seconds"] > 0
    assert "5 steps of 32 samples in 5 epochs" in forgetless(*words, "--dry-run").stdout
    assert forgetless(*words).exit_code == 0
    assert load_file("o/model.safetensors")["fc.weight"].shape == (2, 8)
    assert forgetless(*words[:-1], "o2", "--method", "distillation").exit_code == 0
    assert found("o2")["after"]["distillation"]["old_agreement"] is not None


@pytest.mark.parametrize("method", ["mas", "distillation"])
def test_pictures_that_cannot_be_read(forgetless: Command, method: str) -> None:
    Path("nets_to_teach.py").write_text(NETS)
    new, old = pictures(Path("new"), ("red", "green"), 10), pictures(Path("old"), ("any",), 20)
    for place in ("new/red", "old/any"):
        for number in range(5):
            Path(place, f"{number}.png").write_bytes(b"no picture")
    words = ("learn", "nets_to_teach:Net", "--new", new, "--like-old", old / "any", "--size", 16, "--batch-size", 1)
    done = forgetless(*words, "--epochs", 1, "--skip-bad", "--method", method, "--out", "o")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("cannot be read") == 2  # once for each of the two
    summary = found("o")
    assert summary["new"]["train"] + summary["new"]["held_out"] == 15
    assert summary["old"]["shown"] + summary["old"]["measured_on"] + summary["old"]["held_out"] == 15


def test_texts_longer_than_the_model_has_positions_for(forgetless: Command, classifier: tuple[object, ...]) -> None:
    for path in ("new.csv", "old.csv"):
        with Path(path).open("a") as file:
            file.writelines(f"{'w1 ' * 100},{label}\n" for label in ("p", "q") * 5)
    done = forgetless(*classifier, "--epochs", 1, "--out", "o")
    assert done.exit_code == 0, done.exception
    assert found("o")["notes"][-1] == "longer texts are cut at 64 tokens, for which the model has positions."
    assert forgetless("measure", "hf:m", "--data", "old.csv", "--out", "i").exit_code == 0


def test_old_texts_of_which_some_have_no_label(forgetless: Command, classifier: tuple[object, ...]) -> None:
    with Path("old.csv").open("a") as file:
        file.write("w1 w2,\n")
    done = forgetless(*classifier, "--epochs", 1, "--out", "o")
    assert done.exit_code == 0, done.stderr
    assert "old_accuracy" not in found("o")["before"]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            "nets_to_teach:ends_in_a_convolution",
            "nets_to_teach:ends_in_a_convolution ends in Conv2d (0), and not in a linear layer that could make room "
            "for new labels.",
        ),
        (
            "nets_to_teach:Unscaled",
            "nets_to_teach:Unscaled fails on pictures, uint8 [N, 3, size, size]: Input type (unsigned char) and bias "
            "type (float) should be the same.",
        ),
        (
            "nets_to_teach:InTuple",
            "nets_to_teach:InTuple fails on pictures, uint8 [N, 3, size, size]: its output is a tuple, which has no "
            "tensor of logits.",
        ),
        (
            "nets_to_teach:Looking",
            "the model cannot do without its last layer 'fc' ('Identity' object has no attribute 'weight'), so a new "
            "head cannot take its place; let it do nothing with that layer but call it.",
        ),
        (
            "nets_to_teach:not_finite",
            "the model answers the new data with NaN or Inf; look for them in its weights.",
        ),
        (
            "nets_to_teach:lazy",
            "nets_to_teach:lazy gives a network whose '1.weight', '1.bias' have no values yet (a lazy layer, or the "
            "meta device); let the function give them some.",
        ),
        ("nets_to_teach:ends", "nets_to_teach:ends could not be made: SystemExit: 3."),
        (
            "broken_nets:f",
            "the module 'broken_nets' cannot be imported: SyntaxError: invalid syntax (broken_nets.py, line 1).",
        ),
        (
            "torchvision:resnet18",
            "torchvision:resnet18 has random weights until you name a file with --weights.",
        ),
    ],
)
def test_models_without_room_for_labels(model: str, sentence: str, refused: Refused) -> None:
    Path("nets_to_teach.py").write_text(NETS)
    Path("broken_nets.py").write_text("def (:")
    new = pictures(Path("new"), ("red", "green"), 6)
    refused(sentence, "learn", model, "--new", new, "--like-old", new, "--size", 16, "--out", "o")


def test_a_single_output_is_a_yes_or_no(forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("nets_to_teach.py").write_text(NETS)
    new, old = pictures(Path("new"), ("red", "green"), 6), pictures(Path("old"), ("any",), 6)
    words = ("learn", "nets_to_teach:YesOrNo", "--new", new, "--like-old", old / "any", "--size", 16)
    flipped, outputs = 0, ClassifierTraining._outputs

    def flip(self: ClassifierTraining, samples: Samples, task: str = OLD) -> torch.Tensor:
        nonlocal flipped
        flipped += task == OLD
        return outputs(self, samples, task) * (-1 if flipped > 1 and task == OLD else 1)

    monkeypatch.setattr(ClassifierTraining, "_outputs", flip)
    # Nothing that the old answers depend on learns, so that none has to be kept.
    done = forgetless(*words, "--method", "distillation", "--out", "o")
    assert done.exit_code == 0, done.exception
    assert found("o")["after"]["distillation"]["old_agreement"] == 0


def test_a_head_that_is_not_last(refused: Refused) -> None:
    Path("nets_to_teach.py").write_text(NETS)
    new = pictures(Path("new"), ("red", "green"), 6)
    refused(
        "what follows the layer 'fc' of the model is part of its answer, so a new head cannot take its place; choose a "
        "model that ends in a linear layer.",
        *("learn", "nets_to_teach:Scaled", "--new", new, "--like-old", new, "--size", 16, "--out", "o"),
    )


def test_what_cannot_be_done(refused: Refused) -> None:
    classifier_folder(Path("m"))
    new, old = labeled_texts(Path("new.csv"), ("p", "q"), 20, 1), labeled_texts(Path("old.csv"), ("x",), 20, 2)
    words = ("learn", "hf:m", "--new", new, "--out", "o")
    refused(
        "there is nothing to protect by: give --like-old, unlabeled samples like those of what the model must keep, "
        "or --importance, a file of `forgetless measure`.",
        *words,
    )
    protected = (*words, "--like-old", old)
    refused(
        "--method must be one of 'mas', 'distillation', 'l2sp', 'finetune', not 'ewc'.", *protected, "--method", "ewc"
    )
    only = (
        "--method distillation shows the model old samples in every step, which no importance holds: give --like-old, "
        "unlabeled samples like those of what the model must keep."
    )
    refused(only, *words, "--method", "distillation", "--importance", "i")
    refused(only, *words, "--method", "distillation")
    taken = "--importance is for --method mas; distillation takes none."
    refused(taken, *protected, "--method", "distillation", "--importance", "i")
    refused("--strength must be auto or a number of 0 or more, not much.", *protected, "--strength", "much")
    refused("--strength must be auto or a number of 0 or more, not nan.", *protected, "--strength", "nan")
    refused("--seed must be from 0 to 4294967295, not -1.", *protected, "--seed", "-1")
    refused("--seed must be from 0 to 4294967295, not 4294967296.", *protected, "--seed", 2**32)
    refused("--epochs must be from 1 to 2147483647, not 2147483648.", *protected, "--epochs", 2**31)
    refused("--hold must be a share above 0 and at most 1, not 1.5.", *protected, "--hold", "1.5")
    refused("--hold finds λ, and --strength gives it; leave out one of them.", *protected, "--hold", "0.9",
            "--strength", "1")  # fmt: skip
    refused("--hold is for --method mas and l2sp; distillation takes none.", *protected, "--hold", "0.9",
            "--method", "distillation")  # fmt: skip
    refused("--lr must be positive and finite, not -1.0.", *protected, "--lr", "-1")
    refused(
        "there is no logger 'paper'; there are 'csv', 'tensorboard', 'wandb', 'trackio'.", *protected, "--log", "paper"
    )
    refused("--compare fine-tunes beside another --method; finetune is that already.", *words, "--compare",
            "--method", "finetune")  # fmt: skip
    refused(
        "no does not exist; name a file of that kind (importance) that was saved before.", *words, "--importance", "no"
    )
    refused("--new no.csv does not exist.", *words[:3], "no.csv", *words[4:], "--like-old", old)
    refused("--like-old no.csv does not exist.", *words, "--like-old", "no.csv")
    Path("empty.csv").write_text("")
    refused("empty.csv is empty.", *words, "--like-old", "empty.csv")
    refused(
        "new.csv has no field 'intent': it has 'text', 'label'; name one with --label-field.",
        *protected,
        "--label-field",
        "intent",
    )
    refused("old.csv has one class, 'x': there is nothing to tell apart.", *words[:3], old, *words[4:], "--like-old",
            old)  # fmt: skip
    few = labeled_texts(Path("few.csv"), ("p", "q"), 4, 1)
    refused(
        "--new few.csv holds 4 samples; five or more of a class are needed, to hold out a fifth.",
        *words[:3],
        few,
        *words[4:],
        "--like-old",
        old,
    )
    Path("there").mkdir()
    Path("there/file").touch()
    refused("there exists already; choose another --out.", *words[:4], "--out", "there", "--like-old", old)
    refused(
        "there was not begun by forgetless learn, so there is nothing to resume.",
        *words[:4],
        "--out",
        "there",
        "--like-old",
        old,
        "--resume",
    )


def test_an_importance_of_another_model(forgetless: Command, refused: Refused) -> None:
    classifier_folder(Path("m"))
    new = labeled_texts(Path("new.csv"), ("p", "q"), 20, 1)
    Importance({"other.weight": torch.ones(2)}, 1).save("i")
    refused(
        "i is the importance of another model: it has 'other.weight'.",
        *("learn", "hf:m", "--new", new, "--importance", "i", "--out", "o"),
    )

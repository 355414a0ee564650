from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from cli.conftest import Command
from cli.learned import found, logged, same_files, watch
from tiny_folders import half_texts, language_folder

pytest.importorskip("transformers")


@pytest.fixture
def language(forgetless: Command) -> tuple[object, ...]:
    """The words of a command that teaches a language model new sentences."""
    language_folder(Path("m"))
    Path("old.txt").write_text("\n".join(half_texts(20, 0, 1)))
    Path("new.jsonl").write_text("\n".join(json.dumps({"text": each}) for each in half_texts(20, 1, 2)))
    return ("learn", "hf:m", "--new", "new.jsonl", "--like-old", "old.txt", "--batch-size", 4, "--lr", "1e-2")


def test_a_language_model(forgetless: Command, language: tuple[object, ...]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = forgetless(*language, "--epochs", 5, "--out", "o", "--compare")
    assert done.exit_code == 0, done.stderr
    summary = found("o")
    after = summary["after"]
    assert after["mas"]["new_perplexity"] < summary["before"]["new_perplexity"]
    assert after["mas"]["old_perplexity"] < after["finetune"]["old_perplexity"]
    assert after["mas"]["strength"] > 0
    AutoTokenizer.from_pretrained("o")
    model = AutoModelForCausalLM.from_pretrained("o")
    assert any(
        not torch.equal(a, b) for a, b in zip(model.parameters(), language_folder(Path("m")).parameters(), strict=True)
    )


@pytest.mark.parametrize("hold", [(), ("--hold", "0.9")])
def test_a_language_model_stopped_and_continued_to_the_bit(
    forgetless: Command, language: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, hold: tuple[str, ...]
) -> None:
    language = (*language, *hold)
    assert forgetless(*language, "--epochs", 2, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patched:
        watch(patched, stop_at=6)
        assert forgetless(*language, "--epochs", 2, "--out", "o").exit_code == 130
    assert [*Path("o/work/mas").glob("checkpoint-*/forgetless.safetensors")]
    with monkeypatch.context() as patched:
        steps = watch(patched)
        done = forgetless(*language, "--epochs", 2, "--out", "o", "--resume")
    assert done.exit_code == 0, done.stderr
    assert (steps[0], steps[-1]) == (6, 8)  # the sixth was not in a checkpoint yet
    same_files("whole", "o")


def test_adapters(forgetless: Command, language: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    pytest.importorskip("peft")
    words = (*language, "--lora", "--epochs", 2, "--log", "csv")
    done = forgetless(*words, "--out", "whole")
    assert done.exit_code == 0, done.stderr
    summary = found("whole")
    assert summary["after"]["mas"]["new_perplexity"] < summary["before"]["new_perplexity"]
    assert summary["after"]["mas"]["strength"] > 0
    names = AutoModelForCausalLM.from_pretrained("whole").state_dict().keys()
    assert names == language_folder(Path("m")).state_dict().keys()
    with monkeypatch.context() as patched:
        watch(patched, stop_at=6)
        assert forgetless(*words, "--out", "o").exit_code == 130
    with monkeypatch.context() as patched:
        steps = watch(patched)
        done = forgetless(*words, "--out", "o", "--resume")
    assert done.exit_code == 0, done.stderr
    assert (steps[0], steps[-1]) == (6, 8)
    made = logged("whole")
    assert logged("o") == made
    assert [step for _, step, key, _ in made if key == "forgetless/drift"] == [*range(1, 9)]
    figures = {(step, key): value for _, step, key, value in made}
    for part in ("old", "new"):
        for step, judged in ((0, summary["before"]), (8, summary["after"]["mas"])):
            assert figures[step, f"forgetless/perplexity/{part}"] == judged[f"{part}_perplexity"]
    shutil.rmtree("whole/logs")
    shutil.rmtree("o/logs")
    same_files("whole", "o")


@pytest.mark.parametrize("lora", [False, True], ids=["weights", "adapters"])
def test_old_answers_stopped_and_continued_to_the_bit(
    forgetless: Command, language: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, lora: bool
) -> None:
    if lora:
        pytest.importorskip("peft")
    words = (*language, "--epochs", 2, "--method", "distillation", *(["--lora"] if lora else []))
    estimate = forgetless(*words, "--dry-run", "--json", "--out", "o")
    assert estimate.exit_code == 0, estimate.stderr
    done = forgetless(*words, "--out", "whole", "--compare")
    assert done.exit_code == 0, done.stderr
    before, after = found("whole")["before"], found("whole")["after"]
    assert after["distillation"]["new_perplexity"] < before["new_perplexity"]
    assert lora or after["distillation"]["old_perplexity"] < after["finetune"]["old_perplexity"]
    assert after["distillation"]["strength"] == 1
    with monkeypatch.context() as patched:
        watch(patched, stop_at=6)
        assert forgetless(*words, "--out", "o", "--compare").exit_code == 130
    files = [*Path("o/work/distillation").glob("checkpoint-*/forgetless.safetensors")]
    assert files
    assert all((path.stat().st_size < 10_000) is lora for path in files)  # of adapters there is no copy of the model
    with monkeypatch.context() as patched:
        steps = watch(patched)
        done = forgetless(*words, "--out", "o", "--resume", "--compare")
    assert done.exit_code == 0, done.stderr
    assert steps[0] == 6  # it was not in a checkpoint yet
    same_files("whole", "o", "distillation")


def test_a_model_that_has_lost_its_way(forgetless: Command, language: tuple[object, ...]) -> None:
    done = forgetless(*language[:-1], "1e3", "--method", "l2sp", "--out", "o")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "the cross-entropy of held-out texts is " in done.stderr
    assert "nats a token, so the model has lost its way; lower --lr (now 1000).\n" in done.stderr
    assert not Path("o/model.safetensors").exists()


@pytest.mark.parametrize(
    ("where", "error", "said"),
    [
        ("transformers.Trainer._save", OSError(28, "No space left"), "o/work/mas cannot be written: the disk is full"),
        ("transformers.Trainer._save", RuntimeError("[enforce fail at inline_container.cc:672] . pos"),
         "o/work/mas cannot be written, perhaps the disk is full: [enforce fail at inline_container.cc:672] . pos.\n"),
        ("transformers.LlamaForCausalLM.save_pretrained", OSError(28, "No space left"), "o/work/"),
    ],
)  # fmt: skip
def test_a_disk_that_is_full(
    forgetless: Command,
    language: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: Exception,
    said: str,
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise error

    assert forgetless(*language, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr(where, full)
        done = forgetless(*language, "--out", "o")
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "loaded" not in done.stderr
    assert forgetless(*language, "--out", "o", "--resume").exit_code == 0
    same_files("whole", "o")


def test_a_checkpoint_whose_last_file_is_half_written(
    forgetless: Command, language: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*language, "--method", "finetune")
    assert forgetless(*words, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patched:
        watch(patched, stop_at=4)
        assert forgetless(*words, "--out", "o").exit_code == 130
    newest = max(Path("o/work/finetune").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    (newest / "trainer_state.json").write_text("{")
    done = forgetless(*words, "--out", "o", "--resume")
    assert done.exit_code == 0, done.exception
    same_files("whole", "o", "finetune")

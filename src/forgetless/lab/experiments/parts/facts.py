"""Streams of facts: reading them, splitting them into tasks, and what is looked at after every task."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets import CATALOG, six_ds
from forgetless.lab.datasets.reading import facts as own
from forgetless.lab.datasets.reading.cache import decoded
from forgetless.lab.datasets.reading.entry import Entry, Parts
from forgetless.lab.datasets.reading.fact import PARTS, parsed
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.lab.experiments.parts import digit_facts
from forgetless.lab.facts.forked import forked
from forgetless.lab.facts.words import glove
from forgetless.lab.networks.pretrained import pretrained
from forgetless.learn.facts import Facts, fact_keys, picture_keys
from forgetless.learn.heads import SharedHead
from forgetless.learn.network import Network
from forgetless.learn.objective import answers
from forgetless.learn.retrieval import average_precision, percentile, recall_at
from forgetless.learn.seeding import derive, permutation
from forgetless.learn.task import Task

#: The file or folder by which a dataset is recognized → its entry in the catalog.
_MARKS = {
    "emoji_facts.parquet": "emoji-facts",
    "splits": "6ds",
    "json_dataset": "vrd",
    "annotations_train.json": "vrd",
}
SPLITS = ("random", "semantic")
_TASKS = 4
_BATCH = 128

Samples = tuple[Tensor, Tensor]  # pictures uint8 [N, 3, H, W] and labels int64 [N]


@dataclass(frozen=True, eq=False)
class Stream:
    """A stream of facts.

    Attributes:
        objective: all facts and their vectors.
        tasks: the tasks; a fact belongs to one of them, or to none.
        unseen: test pictures of the facts that no task has, for which the network learns each part elsewhere.
        names: what each test picture is called, in the order of the tasks.
        source: the name of the dataset in the catalog, or "own".
    """

    objective: Facts
    tasks: tuple[Task, ...]
    unseen: Samples
    names: tuple[str, ...]
    source: str

    @property
    def tests(self) -> Samples:
        """The test pictures of all tasks, in order."""
        return joined([task.test for task in self.tasks])


def joined(samples: Sequence[Samples]) -> Samples:
    """Several in one."""
    return torch.cat([each[0] for each in samples]), torch.cat([each[1] for each in samples])


def kind(folder: Path) -> str | None:
    """What facts a folder holds: the name of a dataset in the catalog, "own", or None for none."""
    known = next((name for mark, name in _MARKS.items() if (folder / mark).exists()), None)
    return known or ("own" if (folder / "train.parquet").is_file() else None)


def read(folder: Path) -> tuple[Parts, str]:
    """The facts in a folder: a dataset of the catalog, or your own `train.parquet` and `test.parquet`.

    Returns:
        Its training and test pictures, and its name in the catalog, or "own".

    Raises:
        ForgetlessError: it is neither, or damaged.
    """
    name = kind(folder)
    if name is None:
        known = ", ".join(CATALOG[each].layout for each in dict.fromkeys(_MARKS.values()))
        raise ForgetlessError(
            f"{folder} holds no facts: neither train.parquet and test.parquet with the columns {', '.join(PARTS)}, nor "
            f"one of {known}."
        )
    reader = own.read if name == "own" else CATALOG[name].read
    parts = reader(folder)
    entry = CATALOG.get(name) or Entry("own", "facts", "", "", None, None, None, "", "", own.read)
    for complaint in entry.complaints(parts, folder):
        raise ForgetlessError(f"{folder}: {complaint}.")
    return parts, name


def stream(folder: Path | None, split: str, held_out: int, size: int, cache: Path, skip_bad: bool) -> Stream:
    """The facts of a folder as four tasks.

    Args:
        folder: see `read`; None for pictures of two digits (`forgetless.lab.experiments.parts.digit_facts`).
        split: "random", or "semantic" for clusters of facts that are similar (k-means on the vectors of their words);
            of 6DS the authors' own.
        held_out: of so many actions with several subjects, one fact is left out of all tasks: a subject that is never
            seen with this action.
        size: pixels per side.
        cache: the folder for decoded pictures.
        skip_bad: leave out pictures that cannot be read.

    Raises:
        ForgetlessError: as `read`; words without a vector, or too few facts.
    """
    (train, test), source = (digit_facts.read(), "digits") if folder is None else read(folder)
    first, second = decode(train, test, size, source, cache, skip_bad)
    vectors, present = glove().embed([parsed(name) for name in train.classes])
    objective = Facts(train.classes, vectors, present)
    left_out = compositions(objective.names, held_out)
    usable = [label for label in range(len(objective.names)) if label not in left_out]
    usable = [label for label in usable if bool((first[1] == label).any()) and bool((second[1] == label).any())]
    groups: list[list[int]] = []
    if source == "6ds":
        # A fact without a picture in either part has no label.
        numbers = {name: label for label, name in enumerate(objective.names)}
        groups = [
            [numbers[fact] for fact in task if numbers.get(fact) in usable]
            for task in six_ds.tasks(folder or Path(), split)
        ]
    elif len(usable) >= 2 * _TASKS:
        groups = grouped(objective, usable, split)
    if len(usable) < 2 * _TASKS or not all(groups):
        raise ForgetlessError(
            f"{folder or source} has {len(usable)} facts with training and test pictures, too few for four tasks."
        )
    tasks = tuple(
        Task(f"facts {number}", only(first, group), only(second, group), objective)
        for number, group in enumerate(groups, 1)
    )
    order = [row for group in groups for row in torch.isin(second[1], torch.tensor(group)).nonzero().flatten().tolist()]
    unseen = only(second, elsewhere(objective.names, usable))
    return Stream(
        objective,
        tasks,
        unseen,
        tuple(test.names[row] for row in order) if len(test.names) == len(second[1]) else (),
        source,
    )


def elsewhere(names: Sequence[str], learned: Sequence[int]) -> list[int]:
    """The facts that are not learned, but each of whose parts occurs, in the same place, in one that is."""
    parts = {part for label in learned for part in enumerate(parsed(names[label]))}
    return [
        label
        for label, name in enumerate(names)
        if label not in learned and all(part in parts or not part[1] for part in enumerate(parsed(name)))
    ]


def decode(
    train: Pictures, test: Pictures, size: int, name: str, cache: Path, skip_bad: bool
) -> tuple[Samples, Samples]:
    """Both parts, decoded."""
    return decoded(train, test, size, name=name, cache=cache, skip_bad=skip_bad)


def only(samples: Samples, labels: Sequence[int]) -> Samples:
    """The samples with one of these labels."""
    chosen = torch.isin(samples[1], torch.tensor(labels, dtype=torch.int64))
    return samples[0][chosen], samples[1][chosen]


def compositions(names: Sequence[str], most: int) -> list[int]:
    """Of at most so many actions, one fact each: a subject that is never seen with this action.

    Actions (predicate and object) that more than two subjects have come in an order at random, the subjects by turns. A
    subject that has no other fact is never left out.
    """
    actions: dict[tuple[str, str], list[int]] = {}
    for label, name in enumerate(names):
        _, predicate, object_ = parsed(name)
        if predicate or object_:
            actions.setdefault((predicate, object_), []).append(label)
    several = [labels for labels in actions.values() if len(labels) > 2]
    order = permutation(len(several), derive(0, "held out")).tolist()[:most]
    chosen = [several[which][turn % len(several[which])] for turn, which in enumerate(order)]
    subjects = [parsed(name)[0] for name in names]
    return sorted(label for label in chosen if subjects.count(subjects[label]) > 1)


def grouped(objective: Facts, labels: Sequence[int], split: str, groups: int = _TASKS) -> list[list[int]]:
    """The facts in four groups: equal ones at random, or clusters by k-means on the vectors of their words.

    Both are the same every time: they do not depend on a run's seed.

    Raises:
        ForgetlessError: a cluster is empty.
    """
    if split == "random":
        order = permutation(len(labels), derive(0, "facts"))
        return [sorted(labels[n] for n in part.tolist()) for part in order.tensor_split(groups)]
    from scipy.cluster.vq import ClusterError, kmeans2

    keys = fact_keys(objective.vectors, objective.present)[torch.tensor(labels)].double().numpy()
    try:
        _, found = kmeans2(keys, groups, minit="++", rng=0, missing="raise")
    except ClusterError as error:
        raise ForgetlessError(
            f"the {len(labels)} facts do not fall into {groups} clusters; split them at random."
        ) from error
    return [[label for label, group in zip(labels, found, strict=True) if group == each] for each in range(groups)]


def embedding(network: str, seed: int) -> SharedHead:
    """A pretrained backbone and one linear embedding of its features for each part; all tasks share them.

    `F_p(x) = W_p · backbone(x) + b_p`, W_p `[D, features]`, D that of the word vectors. Like any other layer the
    embeddings are protected.

    Args:
        network: the backbone, one of `forgetless.lab.networks.pretrained.NETWORKS`.
        seed: draws the first weights of the embeddings.

    Raises:
        ForgetlessError: no network has that name, or its weights or the word vectors are not installed or damaged.
    """
    start, dimensions = pretrained(network), len(glove().mean)
    return forked(start.backbone, start.features, dimensions, seed)


@torch.no_grad()
def keys(model: Network, objective: Facts, samples: Samples) -> Tensor:
    """The keys of pictures, `[N, P·D]`, on the CPU, in eval mode."""
    name = model.tasks[-1]
    found = [outputs.float().cpu() for outputs, _ in answers(model, name, samples, _BATCH)]
    return picture_keys(torch.cat(found), len(PARTS))


def look(stream: Stream, probes: Tensor, model: Network) -> Mapping[str, Tensor]:
    """What is looked at after every task.

    - "all facts": the mean average precision of all facts among the test pictures of all tasks;
    - "recall@1", "recall@5": how often a picture's fact is among the 1 or 5 most similar of all facts;
    - "unseen facts": of pictures of facts that no task has, the share of the other facts that theirs beats (½ is
      chance); "unseen subjects": the same among the subjects of the action alone;
    - the five most similar facts of the probes, and how similar they are.
    """
    objective = stream.objective
    facts = fact_keys(objective.vectors, objective.present)
    tests = stream.tests
    similar = keys(model, objective, tests) @ facts.T
    wanted = tests[1][:, None] == torch.arange(len(facts))
    occurring = wanted.any(0)
    best = similar[probes].topk(min(5, len(facts)), 1)
    found = {
        "all facts": average_precision(similar[:, occurring].T, wanted[:, occurring].T).mean(),
        "recall@1": recall_at(similar, wanted, 1).mean(),
        "recall@5": recall_at(similar, wanted, 5).mean(),
        "top facts": best.indices,
        "top similarities": best.values,
    }
    if len(stream.unseen[1]):
        similar = keys(model, objective, stream.unseen) @ facts.T
        wanted = stream.unseen[1][:, None] == torch.arange(len(facts))
        found["unseen facts"] = percentile(similar, wanted).mean()
        rivals = same_action(objective.names)[stream.unseen[1]]
        some = rivals.sum(1) > 1
        if bool(some.any()):
            among = similar.masked_fill(~rivals, -torch.inf)[some]
            beaten = (among < among.gather(1, stream.unseen[1][some, None])) & rivals[some]
            found["unseen subjects"] = (beaten.sum(1) / (rivals[some].sum(1) - 1)).mean()
    return found


@functools.cache
def same_action(names: tuple[str, ...]) -> Tensor:
    """Which facts have the same predicate and object, bool `[C, C]`; a fact with itself too."""
    actions = [parsed(name)[1:] for name in names]
    return torch.tensor([[one == other for other in actions] for one in actions])


def probes(stream: Stream, each: int = 4) -> Tensor:
    """Numbers of test pictures to be shown: of each task, the first of some facts, spread over its facts."""
    found, before = [], 0
    for task in stream.tasks:
        labels = task.test[1]
        facts = torch.unique(labels)
        chosen = facts[torch.linspace(0, len(facts) - 1, min(each, len(facts))).round().long()]
        found += [before + int((labels == fact).nonzero()[0]) for fact in chosen]
        before += len(labels)
    return torch.tensor(found)


def keep(
    stream: Stream, probes: Tensor, network: str, size: int, model: Network, seen: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """What `forgetless ask` and the page need of a run."""
    objective, tests = stream.objective, stream.tests
    tensors = {
        **{f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "facts": fact_keys(objective.vectors, objective.present),
        "pictures": keys(model, objective, tests),
        "labels": tests[1],
        "shown": probes,
        "thumbnails": tests[0][probes],
        **{name.replace(" ", "_"): tensor for name, tensor in seen.items()},
    }
    header = {
        "network": network,
        "size": size,
        "facts": list(objective.names),
        "pictures": list(stream.names),
        "tasks": [{"name": task.name, "facts": torch.unique(task.test[1]).tolist()} for task in stream.tasks],
    }
    return tensors, header

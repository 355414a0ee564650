"""Readers of what people and other programs write as text, and of what lies beside it: see `readers`."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from altered import Reader, one_file, taken_or_told
from forgetless import files
from forgetless.cli.parts.pictured import load_weights
from forgetless.cli.parts.samples import samples_of
from forgetless.edit.adapter import Adapted
from forgetless.edit.checkpoint import Checkpoint
from forgetless.edit.merge_recipe import read_recipe
from forgetless.lab.datasets import six_ds, voc_actions, vrd
from forgetless.lab.datasets.reading import clear, documents, unlabeled
from forgetless.lab.datasets.reading.entry import lines
from forgetless.lab.long_text import corpora
from forgetless.lab.running.followed import Follower
from forgetless.lab.traces import trace

MODEL = {"layer.weight": torch.arange(6.0).view(2, 3), "norm.bias": torch.ones(2, dtype=torch.bfloat16)}
ADAPTER = {
    "base_model.model.layer.lora_A.weight": torch.ones(1, 3),
    "base_model.model.layer.lora_B.weight": torch.ones(2, 1),
}
NARROW = {"w": torch.ones(2, 2).to(torch.float8_e4m3fn), "n": torch.arange(3)}
HALF = {name: tensor for name, tensor in ADAPTER.items() if "lora_A" in name}
CONFIG = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["layer"], "bias": "none", "use_dora": False}
RECIPE = """merge_method: ties
base_model: base
models:
  - model: one
    parameters: {weight: 0.5, density: 0.7}
  - model: "two"
    parameters:
      weight: 1
parameters: {lambda: 1.0, normalize: true}
dtype: bfloat16
"""
ROWS = [{"text": "ein Satz", "label": "a"}, {"text": 'zwei, "Sätze"', "label": "b"}, {"text": "x\u2028y", "label": "a"}]
PERSON = """<annotation><object><name>person</name><actions><jumping>1</jumping><phoning>0</phoning></actions>
<bndbox><xmax>20</xmax><xmin>1.0</xmin><ymax>30</ymax><ymin>2</ymin></bndbox></object></annotation>"""
OF_A_RUN = {"method": "mas", "seed": 0, "order": 0}


def _filled(folder: dict[str, bytes], read: Callable[[Path], object], altered: str) -> Callable[[bytes, Path], None]:
    """A reader of a folder of which one file is altered."""

    def each(content: bytes, root: Path) -> None:
        for name, whole in folder.items():
            place = root / name
            if name == altered or not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content if name == altered else whole)
        taken_or_told(lambda: read(root), root)

    return each


def _of(folder: dict[str, bytes], read: Callable[[Path], object], name: str, *others: bytes) -> Reader:
    return Reader(lambda: [folder[name], *others], _filled(folder, read, name))


def _foreign(path: Path) -> None:
    found = files.Foreign(path)
    for name, layout in found.layout().items():
        assert found.read(name).shape == layout.shape
    found.mapped([name for name in found.names if found.layout()[name].dtype in files.FLOATS])


@functools.cache
def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def _wider() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def _adapted(root: Path) -> None:
    found = Adapted(Checkpoint(root / "base"), root / "adapter")
    assert found.tensor("layer.weight").shape == (2, 3)


def _arrays() -> Iterable[bytes]:
    for each in (np.arange(6.0), np.ones((2, 3), np.float32), np.zeros((3, 1), ">i4"), np.array(["a"])):
        buffer = io.BytesIO()
        np.save(buffer, each)
        yield buffer.getvalue()


def _array(path: Path) -> None:
    loaded: Any = SimpleNamespace(tokenizer=None, size=8, name="m")
    found = samples_of(loaded, path)
    for _, batch in found.batches(2):
        assert len(batch)


def _zipped_text(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for called in ("train", "valid", "test"):
            file.writestr(f"wikitext/wiki.{called}.tokens", "one two\nthree\n" * 20)
    return buffer.getvalue()


def _listed(path: Path) -> None:
    assert all(len(fields) == 3 for _, fields in lines(path, 3))


def _csv(header: str, *rows: str) -> bytes:
    return "\n".join((header, *rows, "")).encode()


def _followed(root: Path) -> None:
    follower = Follower(root)
    follower.update()
    json.dumps(follower.facts(), allow_nan=False)


_INDEX = {"metadata": {"total_size": 28}, "weight_map": dict.fromkeys(MODEL, "one.safetensors")}
_SHARDED = {files.INDEX: json.dumps(_INDEX).encode(), "one.safetensors": save(MODEL)}
_ADAPTED = {
    "base/model.safetensors": save(MODEL),
    "adapter/adapter_config.json": json.dumps(CONFIG).encode(),
    "adapter/adapter_model.safetensors": save(ADAPTER),
}
_CHECKPOINT = {"model.safetensors": save(MODEL), "config.json": b'{"model_type": "x", "layers": 2, "scale": Infinity}'}
_SIX = {
    f"splits/{split}/B{task}_{what}.csv": _csv(*text)
    for split in six_ds.SPLITS.values()
    for task in six_ds.TASKS
    for what, text in {
        "facts": ("id,S,P,O", "1,person,riding,horse", '2,"dog",,'),
        "train": ("image_links,id", "a.jpg,1", "'b.jpg',2"),
        "test": ("image_links,id", "c.jpg,1"),
    }.items()
}
_BOXED = {"category": 1, "bbox": [1, 20, 3, 40]}
_VRD = {
    "annotations_train.json": json.dumps({"a.jpg": [{"subject": _BOXED, "predicate": 0, "object": _BOXED}]}).encode(),
    "annotations_test.json": json.dumps({"b.jpg": [{"subject": _BOXED, "predicate": 1, "object": _BOXED}]}).encode(),
    "predicates.json": b'["on", "next to"]',
    "objects.json": b'["person", "horse"]',
}
_VOC = {
    "Annotations/2010_000001.xml": PERSON.encode(),
    **{f"ImageSets/Action/{part}.txt": b"2010_000001 1 -1\n" for part in ("train", "val")},
}
_CLEAR = {
    f"{part}/{name}": content
    for part in clear.PARTS
    for name, content in {
        "labeled_metadata.json": b'{"1": {"bus": "labeled/1/bus.json", "cat": "labeled/1/bus.json"}}',
        "class_names.txt": b"BACKGROUND\nbus\ncat\n",
        "labeled/1/bus.json": b'{"7": {"IMG_PATH": "labeled/1/a.jpg", "ID": 7}}',
    }.items()
}
_LINES = [
    {"event": "start", "runs": [["mas", 0, 0]]},
    *({"event": "train", **OF_A_RUN, "task": "a", "epoch": epoch, "loss": 0.5, "average": 0.75} for epoch in (1, 2)),
    {"event": "done", **OF_A_RUN, "accuracy": [[0.5, None], [0.25, 1.0]], "strength": 2.0},
]
_LOG = b"".join(
    json.dumps({"time": f"2026-01-01T10:0{n}:00Z", **line}).encode() + b"\n" for n, line in enumerate(_LINES)
)
_RUN = {
    "config.json": json.dumps({"experiment": "e", "tasks": [{"name": "a"}], "recipe": {"epochs": 4}}).encode(),
    "log.jsonl": _LOG,
}
_END = {
    "task": 1,
    "layers": [{"name": "layer", "weights": 6, "drift": 0.5, "held": 0.25, "importance": 1.0, "channels": [0.5, 1]}],
    "answers": [{"task": "a", "sample": 0, "answer": "b", "sure": 0.5}],
}
_TRACE = b'{"at": 0.5, "drift": 0.25, "strength": null}\n' + json.dumps(_END).encode() + b"\n"

TEXTS: dict[str, Reader] = {
    "tensors of others": Reader(
        lambda: [save(MODEL), save(ADAPTER), save(NARROW)], one_file(_foreign, "f.safetensors")
    ),
    "weights": Reader(
        lambda: [
            save(dict(each.state_dict()), {"classes": '["a", "b"]'}) for each in (_network(), nn.Linear(3, 2), _wider())
        ],
        one_file(lambda path: load_weights(_network(), path), "f.safetensors"),
    ),
    "indexes of tensors": _of(_SHARDED, _foreign, files.INDEX),
    "adapters": _of(_ADAPTED, _adapted, "adapter/adapter_config.json"),
    "weights of adapters": _of(_ADAPTED, _adapted, "adapter/adapter_model.safetensors", save(HALF), save(MODEL)),
    "configurations": _of(_CHECKPOINT, Checkpoint, "config.json"),
    "recipes": Reader(lambda: [RECIPE.encode()], one_file(read_recipe)),
    "plain texts": Reader(lambda: [b"eins\n\nzwei\r\n\r\ndrei", b"a\nb\nc\n"], one_file(documents.read, "f.txt")),
    "rows of JSON": Reader(
        lambda: ["".join(json.dumps(row, ensure_ascii=each) + "\n" for row in ROWS).encode() for each in (True, False)],
        one_file(lambda path: documents.read(path, label="label"), "f.jsonl"),
    ),
    "rows of CSV": Reader(
        lambda: [_csv("text,label", "one,a", '"two\n""x""",b')],
        one_file(lambda path: documents.read(path, label="label"), "f.csv"),
    ),
    "rows of tokens": Reader(
        lambda: [b'{"input_ids": [1, 2, 3]}\n{"input_ids": [4]}\n'],
        one_file(lambda path: [each for _, each in unlabeled.read(path, 8).batches(2)], "f.jsonl"),
    ),
    "arrays": Reader(lambda: list(_arrays()), one_file(_array, "f.npy")),
    "zipped texts": Reader(
        lambda: [_zipped_text(zipfile.ZIP_DEFLATED), _zipped_text(zipfile.ZIP_STORED), _zipped_text(zipfile.ZIP_BZIP2)],
        one_file(corpora.wikitext103, "f.zip"),
    ),
    "tables of facts": _of(_SIX, six_ds.read, f"splits/{six_ds.SPLITS['random']}/B1_facts.csv"),
    "annotations in JSON": _of(_VRD, vrd.read, "annotations_train.json"),
    "annotations in XML": _of(_VOC, voc_actions.read, "Annotations/2010_000001.xml"),
    "buckets": _of(_CLEAR, clear.buckets, "train/labeled/1/bus.json"),
    "lists": Reader(lambda: [b"a.jpg 1 x y\nb.jpg 2 z\n"], one_file(_listed)),
    "logs": _of(_RUN, _followed, "log.jsonl"),
    "configurations of runs": _of(_RUN, _followed, "config.json"),
    "traces": _of(
        {"traces/mas-0.jsonl": _TRACE},
        lambda root: trace.read(root, [{"method": "mas", "seed": 0}]),
        "traces/mas-0.jsonl",
    ),
}

"""Readers of files with checksums whose content was altered before it was sealed: see `readers`.

A checksum refuses nearly every altered byte, so that what stands behind it meets only what a stranger has sealed well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from altered import Reader, one_file, taken_or_told
from forgetless import files
from forgetless.lab import results
from forgetless.lab.facts import kept
from forgetless.lab.kept import KEPT
from forgetless.learn import checkpoint
from forgetless.learn.position import Position
from forgetless.measure.importance import Importance
from forgetless.protect import anchor_file

_TENSORS = {"layer.weight": torch.arange(6.0).view(2, 3), "layer.bias": torch.tensor([0.5, 0.25])}
_IMPORTANCE = {
    "estimator": "mas",
    "count": 3.0,
    "weights": {"layer.weight": "00112233", "layer.bias": "44556677"},
    "unused": ["layer.bias"],
}
_ANCHOR = {"strength": 0.5, "shapes": {"layer.weight": [2, 3], "layer.bias": [2]}, "weights": {"layer.weight": "0011"}}
_CONFIG = {"method": "mas", "seed": 0, "recipe": "epochs=2, rate=0.1"}
_POSITION = {
    "index": 1,
    "step": 3,
    "epoch": 0,
    "batch": 3,
    "accuracy": [[0.5, None], [None, 0.25]],
    "seconds": {"warm_start": 0, "train": 0.5, "measure": 1.5, "evaluate": 0.25},
}
_RESULTS = {
    "experiment": "e",
    "tasks": ["a", "b"],
    "environment": {"torch": "2.14", "threads": 1},
    "runs": [
        {
            "method": "mas",
            "seed": 0,
            "accuracy": [[0.5, None], [0.25, 1.0]],
            "seconds": {"train": 1.5},
            "strength": 1.0,
            "learned": ["b", "a"],
            "figures": {"share": [0.5, 0.25]},
            "online": {
                "looks": [[10, [0.5]], [20, [0.25]]],
                "groups": ["g"],
                "lambdas": [[10, 0.5]],
                "gates": [[[1, 2]]],
            },
        },
        {"method": "finetune", "seed": 0, "accuracy": [[0.5, None], [0.125, 1.0]], "column": "x"},
    ],
}
_FACTS = {
    "run": {"method": "mas", "seed": 0, "order": 0},
    "network": "squeezenet",
    "size": 32,
    "facts": ["man,run,", "dog,,"],
    "pictures": ["a.png", "b.png", "c.png"],
    "tasks": [{"name": "a", "facts": [0]}, {"name": "b", "facts": [1]}],
}
_KEYS = {
    "facts": torch.eye(2, 6),
    "pictures": torch.eye(3, 6),
    "labels": torch.tensor([0, 1, 1]),
    "shown": torch.tensor([0, 2]),
    "thumbnails": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
    "top_facts": torch.zeros(2, 2, 2, dtype=torch.int64),
    "top_similarities": torch.zeros(2, 2, 2),
}


def _value(content: bytes) -> Any:
    """What a lenient decoder makes of it: NaN, huge numbers and all; None where it is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _sealed_again(content: bytes, root: Path) -> None:
    value = _value(content)
    if isinstance(value, dict):
        value.pop("sha256", None)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        content = json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), **value}).encode()
    path = root / "results.json"
    path.write_bytes(content)
    taken_or_told(lambda: results.summarize(results.read(path)).figures, root)


def _headed(
    kind: str, header: Mapping[str, Any], read: Callable[[Path], object], tensors: Mapping[str, Tensor] = _TENSORS
) -> Reader:
    sums = {name: files.sha256(tensor) for name, tensor in tensors.items()}

    def each(content: bytes, root: Path) -> None:
        value = _value(content)
        text = json.dumps(value)
        meta = {"kind": kind, "version": 1, "sha256": sums, "header_sha256": hashlib.sha256(text.encode()).hexdigest()}
        whole = save(dict(tensors), {"forgetless": f'{json.dumps(meta)[:-1]}, "header": {text}}}'})
        one_file(read)(whole, root)

    return Reader(lambda: [json.dumps(header).encode()], each)


def _checkpoint(path: Path) -> None:
    position, _ = checkpoint.read(path, _CONFIG)
    found = Position.read(position, 2, path)
    assert [len(row) for row in found.accuracy] == [2, 2]
    assert 0 <= found.index <= 2


def _facts(path: Path) -> None:
    arrays, header = kept.read(path)
    assert [header.facts[label] for label in arrays["labels"]]
    assert len(header.pictures) in (0, len(arrays["pictures"]))


SEALED_AGAIN: dict[str, Reader] = {
    "results, sealed again": Reader(lambda: [json.dumps(_RESULTS).encode()], _sealed_again),
    "importances, sealed again": _headed("importance", _IMPORTANCE, Importance.load),
    "anchors, sealed again": _headed("anchor", _ANCHOR, anchor_file.read),
    "checkpoints, sealed again": _headed("checkpoint", {"config": _CONFIG, "position": _POSITION}, _checkpoint),
    "runs of facts, sealed again": _headed(KEPT, _FACTS, _facts, _KEYS),
}

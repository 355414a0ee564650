"""What is turned away at the door: models that cannot be measured and data that make no batch, with their sentences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import Dataset


class Weight(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def from_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(4, 3)


def partitioned() -> nn.Module:
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(torch.empty(0))
    model.weight.ds_id = 3
    return model


def in_one_memory() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight.data = model[0].weight.data
    return model


def offloaded() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3, device="meta"))
    model[0]._hf_hook = type("AlignDevicesHook", (), {"offload": True})()
    return model


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 3)), {nn.Linear})


class Wrapping(torch.Tensor):
    """A tensor that wraps another, as torchao's do."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapping:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> Any:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(tensors: Any, *_: Any) -> Wrapping:
        return Wrapping(tensors["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = torch.utils._pytree.tree_map_only(Wrapping, lambda each: each.inner, args)
        found = func(*args, **(kwargs or {}))
        return Wrapping(found) if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default) else found


#: What a model is → what makes it, and a pattern of its sentence.
REFUSED_MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "inference mode": (from_inference_mode, "'weight' was made in inference mode .*copy"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), r"'0\.weight' is lazy and has no shape yet; run the model once"),
    "partly lazy": (lambda: nn.Sequential(nn.Linear(4, 3), nn.LazyLinear(3)), r"'1\.weight' is lazy"),
    "ZeRO-3": (partitioned, "'weight' is partitioned by DeepSpeed ZeRO-3 .*GatheredParameters"),
    "sparse": (lambda: Weight(torch.eye(4).to_sparse()), "'weight' is a sparse tensor .*to_dense.*exclude='weight'"),
    "one memory": (in_one_memory, r"'0\.weight' and '1\.weight' are two parameters in the same memory"),
    "offloaded": (offloaded, "offloaded by accelerate"),
    "meta": (lambda: nn.Linear(4, 3, device="meta"), "'weight' is on the meta device and has no values"),
    "quantized": (quantized, "no trainable parameter to measure: its weights are quantized"),
    "a subclass": (
        lambda: Weight(Wrapping(torch.randn(3, 4))),
        "'weight' is a Wrapping, a tensor that computes in a way",
    ),
    "a function": (lambda: lambda x: x, "a model is a torch.nn.Module, not function .*the network itself"),
    "a class": (lambda: nn.Linear, "a model is a torch.nn.Module, not type"),
}


class Rows:
    """As a `datasets.Dataset`."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])

    def with_format(self, kind: str, columns: Any = None) -> Rows:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


class Unequal(Dataset[Tensor]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return torch.zeros(3, 5 + index, 5)


@dataclass
class Text:
    text: str


#: What is given as data → it, and a pattern of its sentence.
REFUSED_DATA: dict[str, tuple[Any, str]] = {
    "texts": (["a text", "another"], "the data are texts, .* give collate_fn=lambda texts: tokenizer"),
    "a datasets.Dataset of texts": (
        Rows({"text": "a text"}, {"text": "another"}),
        r"the Dataset has texts alone \('text'\), .* give collate_fn=lambda rows: tokenizer\(\[row\['text'\] for",
    ),
    "a datasets.Dataset of unequal rows": (
        Rows({"input_ids": [1, 2]}, {"input_ids": [1]}),
        "the rows of column 'input_ids' have unequal lengths; give collate_fn=, such as .*DataCollatorWithPadding",
    ),
    "unequal pictures in a Dataset": (Unequal(), "the samples of the Dataset do not make a batch .*batches of one"),
    "more pictures than targets": (
        [([torch.zeros(3, 5, 5), torch.zeros(3, 6, 5)], [0])],
        "the inputs are a list of 2 tensors without a common sample axis; .*batches of one .*both must be equally long",
    ),
    "a PackedSequence": (
        [(pack_padded_sequence(torch.zeros(4, 2, 3), torch.tensor([4, 2])), 0)],
        "a PackedSequence has no sample axis; .*forward=",
    ),
    "an object without tensors": ([Text("text")], "a batch holds no tensor with a sample axis"),
}

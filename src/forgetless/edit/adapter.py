"""A LoRA adapter on disk, read as the checkpoint that merging it into its base would give."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.edit.blocks import Parts
from forgetless.edit.checkpoint import Checkpoint, Stored, finite
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.model.parameters import listing

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_MATRIX = re.compile(r"(.+)\.lora_(A|B|embedding_A|embedding_B)(?:\.weight)?")
_PREFIX = "base_model.model."
_TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")  # their layers are of [i, o] in part


def is_adapter(path: str | Path) -> bool:
    """Whether a folder holds an adapter of PEFT, and not a model of its own."""
    folder = Path(path)
    if not (folder / _CONFIG).exists():
        return False
    if any((folder / name).exists() for name in (files.ONE, files.INDEX)):
        raise ForgetlessError(f"{folder} holds an adapter and a whole model; name a folder that has one of them.")
    return True


@dataclass(frozen=True)
class _Config:
    """What decides ΔW; the other keys of PEFT's configuration do not."""

    peft_type: str
    r: Annotated[int, files.Between(1)]
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    init_lora_weights: bool | str = True
    alora_invocation_tokens: list[int] | None = None
    layer_replication: list[list[int]] | None = None
    use_qalora: bool = False
    target_parameters: list[str] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)


class Adapted(Stored):
    """The base with an adapter's `ΔW = (α/r) B A` added, one weight at a time in float32.

    Args:
        base: the model that the adapter was trained on.
        path: the adapter's folder: `adapter_config.json` and `adapter_model.safetensors`.

    Attributes:
        path: as given.
        layout: the base's.
        config: the base's.
        ranks: the adapted weights, and the rank of each change.

    Raises:
        ForgetlessError: the adapter is not LoRA, has DoRA's magnitudes or trained biases, or does not fit the base.
    """

    def __init__(self, base: Checkpoint, path: str | Path) -> None:
        self.path = Path(path)
        self._base = base
        self.layout, self.config = base.layout, base.config
        self._lora = _config(self.path / _CONFIG)
        if not (self.path / _WEIGHTS).exists() and (self.path / "adapter_model.bin").exists():
            raise ForgetlessError(f"{self.path} has a pickled adapter; save it again with safe_serialization=True.")
        self._foreign = files.Foreign(self.path / _WEIGHTS)
        self._factors, self._whole = self._read()
        stored = self._foreign.layout()
        if not stored:
            raise ForgetlessError(f"the adapter in {self.path} holds no tensors; save it again.")
        self.ranks = {name: (*stored[a].shape, 0)[0] for name, (a, _, _) in self._factors.items()}
        for name, (_, _, module) in self._factors.items():
            if self.ranks[name] != (told := self._of(module, self._lora.rank_pattern, self._lora.r)):
                raise ForgetlessError(
                    f"the adapter in {self.path} has the rank {self.ranks[name]} in {quoted(name)}, and {told} by its "
                    f"{_CONFIG}; take both from one training."
                )

    def _read(self) -> tuple[dict[str, tuple[str, str, str]], dict[str, str]]:
        """Weight → the names of A and B and the module's name; weight → the name of its whole replacement."""
        pairs: dict[str, dict[str, str]] = {}
        whole: dict[str, str] = {}
        for name in self._foreign.names:
            bare = name.removeprefix(_PREFIX)
            if ".base_layer." in bare:  # PEFT adds the embedding that it adapts
                self._refuse_other_base(bare.replace(".base_layer", ""), name)
            elif (found := _MATRIX.fullmatch(bare)) is None:
                whole[bare.replace(".modules_to_save", "")] = name
            else:
                pairs.setdefault(found[1], {})[found[2][-1]] = name
        halves = [module for module, pair in pairs.items() if pair.keys() != {"A", "B"}]
        unknown = [f"{module}.weight" for module in pairs if f"{module}.weight" not in self.layout]
        unknown += [name for name in whole if name not in self.layout]
        if halves or unknown:
            raise ForgetlessError(
                f"the adapter in {self.path} does not fit {self._base.path}: "
                + (f"{listing(halves)} lack A or B." if halves else f"the base has no {listing(unknown)}.")
            )
        return {f"{module}.weight": (pair["A"], pair["B"], module) for module, pair in pairs.items()}, whole

    def _refuse_other_base(self, name: str, stored: str) -> None:
        if name not in self.layout or not torch.equal(self._foreign.read(stored), self._base.tensor(name)):
            raise ForgetlessError(
                f"the adapter in {self.path} does not fit {self._base.path}: it was trained on another {quoted(name)}."
            )

    def tensor(self, name: str) -> Tensor:
        """One weight: float32 where the adapter changes it, else as the base has it.

        Raises:
            ForgetlessError: it cannot be read, holds NaN or Inf, or A and B do not have its shape.
        """
        if name in self._whole:
            found = self._foreign.read(self._whole[name])
            if tuple(found.shape) != self.layout[name].shape or not finite(found):
                raise ForgetlessError(
                    f"the adapter's {quoted(name)} has another shape than the base's, or holds NaN or Inf."
                )
            return found
        stored = self._base.tensor(name)
        if name not in self._factors:
            return stored
        left, right, scale = self._product(name)
        return self._finite(name, (left @ right).mul_(scale)).add_(stored)

    def parts(self, name: str) -> Parts:
        """One weight, made in parts, which raises as `tensor` does."""
        if name in self._whole:
            whole = self.tensor(name).view(-1)
            return lambda at: whole[at]
        stored = self._base.parts(name)
        if name not in self._factors:
            return stored
        left, right, scale = self._product(name)
        columns = right.shape[1]

        def part(at: slice) -> Tensor:
            first, end = at.start // columns, -(-at.stop // columns)  # the rows that it lies in
            delta = (left[first:end] @ right).view(-1)[at.start - first * columns : at.stop - first * columns]
            return self._finite(name, delta.mul_(scale)).add_(stored(at))

        return part

    def _product(self, name: str) -> tuple[Tensor, Tensor, float]:
        """Two matrices and a factor whose product is the change of a weight, in the weight's own orientation."""
        a, b, module = self._factors[name]
        first, second = self._foreign.read(a).float(), self._foreign.read(b).float()
        if first.dim() != 2 or second.dim() != 2 or second.shape[1] != first.shape[0]:
            raise ForgetlessError(
                f"the adapter's A and B of {quoted(name)} are no two matrices of one rank; merge it with PEFT's "
                "merge_and_unload(), save the model, and name that folder."
            )
        if self._lora.fan_in_fan_out is False and self.config.get("model_type") in _TRANSPOSED:
            raise ForgetlessError(
                f"{self.path} does not say which weights of this {self.config['model_type']} are stored transposed; "
                "merge it with PEFT's merge_and_unload(), save the model, and name that folder."
            )
        transposed = self._lora.fan_in_fan_out or "lora_embedding" in a
        left, right = (first.T, second.T) if transposed else (second, first)
        if (left.shape[0], right.shape[1]) != self.layout[name].shape:
            raise self._unfit(name)
        return left, right, self._scale(module, first.shape[0])

    def _finite(self, name: str, delta: Tensor) -> Tensor:
        if not finite(delta):
            raise self._unfit(name)
        return delta

    def _unfit(self, name: str) -> ForgetlessError:
        return ForgetlessError(f"the adapter's A and B of {quoted(name)} do not fit it, or hold NaN or Inf.")

    def _of(self, module: str, patterns: Mapping[str, float], default: float) -> float:
        """What a module has: the value of the first pattern that fits its name, else the default."""
        try:
            return next((each for key, each in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module)), default)
        except re.error as error:
            raise ForgetlessError(
                f"{self.path} has a rank_pattern or alpha_pattern that is no pattern: {brief(error)}."
            ) from error

    def _scale(self, module: str, rank: int) -> float:
        alpha = self._of(module, self._lora.alpha_pattern, self._lora.lora_alpha)
        return alpha / (math.sqrt(rank) if self._lora.use_rslora else rank)

    def start(self, name: str) -> bytes:
        """The first bytes of a weight; of an adapted one, of its A."""
        if name in self._factors:
            return self._foreign.start(self._factors[name][0], 4096)
        return self._base.start(name)

    def beside(self) -> dict[str, Path]:
        """The base's files; the adapter's tokenizer, where it has one, before the base's."""
        own = {each.name: each for each in self.path.iterdir() if each.name.startswith("token") and each.is_file()}
        return {**self._base.beside(), **own}

    def mark(self) -> str:
        """What tells this adapter from others."""
        found = (self.path / _WEIGHTS).stat()
        starts = hashlib.sha256(b"".join(self._foreign.start(name, 4096) for name in self._foreign.names)).hexdigest()
        return f"{self.path.resolve()} {found.st_size} {found.st_mtime_ns} {starts[:16]} {self._lora}"


def _config(path: Path) -> _Config:
    content: Any = files.read_json(path)
    if not isinstance(content, dict):
        raise ForgetlessError(f"{path} is no configuration of an adapter: it is no object of names and values.")
    known = _Config.__dataclass_fields__
    held = {key: value for key, value in content.items() if key in known and value is not None}
    found: _Config = files.decoded(held, _Config, path)
    wrong = {
        f"its type is {quoted(found.peft_type)}, not LORA": found.peft_type != "LORA",
        "it is a DoRA adapter, whose change is no product of B and A": found.use_dora,
        f"it was initialized by {quoted(found.init_lora_weights)}, which changes the base": (
            found.init_lora_weights not in (True, False, "gaussian", "eva", "orthogonal")
        ),
        "it acts on part of the text only": found.alora_invocation_tokens is not None,
        "it replicates layers of the base": bool(found.layer_replication),
        "it is a QA-LoRA adapter, which pools its inputs": found.use_qalora,
        "it adapts parameters that are no layers' (target_parameters)": bool(found.target_parameters),
        f"it has trained biases ({quoted(found.bias)})": found.bias != "none",
    }
    for what, so in wrong.items():
        if so:
            raise ForgetlessError(
                f"{path.parent} cannot be edited as an adapter: {what}; merge it with PEFT's merge_and_unload(), save "
                "the model, and name that folder."
            )
    return found

"""`KeptAnswers`: method "distillation" of the callbacks, the old answers to the old data as a target in every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.protection import Protection, Reader
from forgetless.measure.importance import Importance
from forgetless.model.parameters import fingerprints, listing, named
from forgetless.protect.distillation import Distillation
from forgetless.protect.strength.dial import Dial

_OPTIONS = ("temperature", "batch_size", "output", "forward", "mask", "seed")


class KeptAnswers(Protection):
    """The answers to the old data are kept (`forgetless.Distillation`).

    `old` is data that can be read again and again; the options are those of `forgetless.Distillation`; "auto" is λ = 1.
    """

    method = "distillation"

    def __init__(self, old: Any, strength: float | str | Dial, probes: Any, options: Mapping[str, Any]) -> None:
        """Nothing is asked yet.

        Raises:
            ForgetlessError: no data, a dial, or an option of another method.
        """
        super().__init__(old, strength, probes, options)
        if isinstance(old, Importance | str | Path):
            what = "an Importance holds none" if isinstance(old, Importance) else f"{str(old)!r} holds none to read"
            raise ForgetlessError(
                f'method="distillation" shows the model old samples in every step, and {what}; give the old data '
                'themselves (a list of texts, a Dataset, a DataLoader), or take method="mas".'
            )
        if isinstance(strength, Dial):
            raise ForgetlessError(
                f"{type(strength).__name__} moves the strength of an anchor, and that of distillation is constant; "
                'give a number ("auto" is 1), or take method="mas".'
            )
        if strange := [name for name in options if name not in _OPTIONS]:
            raise ForgetlessError(
                f'method="distillation" takes {listing(_OPTIONS)} besides, and not {listing(strange)}; leave that out, '
                'or take method="mas".'
            )

    @property
    def distillation(self) -> Distillation | None:
        """The old answers and λ; None before the first training."""
        assert self.kept is None or isinstance(self.kept, Distillation)
        return self.kept

    def make(
        self,
        model: nn.Module,
        reader: Reader,
        embeddings: Iterable[nn.Module | None] = (),
        *,
        progress: bool = False,
    ) -> None:
        """Let the model's present answers be the old ones: a copy of it, or its base where fresh adapters learn."""
        self._begin(self._made(model, reader), model, reader)

    def restore(self, model: nn.Module, state: Mapping[str, Tensor], reader: Reader) -> None:
        """Take the old answers from a distillation's state, and go on with the old samples where they stood.

        Adapters have been trained by now. That their base gives the old answers is what the state tells.
        """
        made = self._made(model, reader, **({"teacher": "base"} if "base" in state else {}))
        made.load_state_dict(state)
        self._begin(made, model, reader)

    def save(self, path: str | Path) -> None:
        """Write the copy of the model, if there is one, and how many batches of old samples were used."""
        if self.kept is not None and self._model is not None:
            header = {"weights": fingerprints(named(self._model))}
            files.write_tensors(path, self.kept.state_dict(), "distillation", header)

    @staticmethod
    def read(path: str | Path, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The distillation's state, and the fingerprints of all weights: of those of adapters and of their base."""
        tensors, header = files.read_tensors(path, "distillation")
        noted: _Header = files.decoded(header, _Header, path)
        return tensors, noted.weights

    def _made(self, model: nn.Module, reader: Reader, **teacher: Any) -> Distillation:
        strength = 1.0 if self._strength == "auto" else self._strength
        assert isinstance(strength, float)
        with torch.random.fork_rng([]):  # a Dataset may draw for the sample that is looked at
            old, how = reader.again(self._old)
        forward = reader.forward(self._options.get("forward"))
        return Distillation(model, old, strength, **{**how, **self._options, **teacher, "forward": forward})

    def _begin(self, made: Distillation, model: nn.Module, reader: Reader) -> None:
        with torch.no_grad():
            self._take(made, model, reader, made.before_learning())


@dataclass(frozen=True)
class _Header:
    """What the file says of the model: the fingerprints of its weights when it was written."""

    weights: dict[str, str]

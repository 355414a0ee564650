"""A model as it was before it learned: a copy, its old weights, its base without adapters, or one that is given."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.model.admission import switches
from forgetless.model.parameters import listing
from forgetless.protect.forgetting.probes import asked

KEPT = "teacher."  # of a key of the state: tensors of the model as it was


@runtime_checkable
class OldModel(Protocol):
    """What gives the old answers."""

    def answering(self) -> AbstractContextManager[nn.Module]:
        """Inside, a module that answers as the model did, in eval mode."""

    def state(self) -> dict[str, Tensor]:
        """What a training needs to go on with the same old answers."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave.

        Raises:
            ForgetlessError: it is of another model, or of another kind of old model.
        """


class Base:
    """The model with its adapters off: needs no memory, and no state."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @contextmanager
    def answering(self) -> Iterator[nn.Module]:
        """Adapters are off until it is left."""
        with ExitStack() as off, asked(self._model):
            for each in switches(self._model):
                off.enter_context(each.disable_adapter())
            yield self._model

    def state(self) -> dict[str, Tensor]:
        """That it is the base."""
        return {"base": torch.tensor(True)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a copy."""
        _refuse_copy(state)


class Given:
    """A model that the user has loaded."""

    def __init__(self, teacher: nn.Module) -> None:
        self._teacher = teacher

    def answering(self) -> AbstractContextManager[nn.Module]:
        """The teacher."""
        return nullcontext(self._teacher.eval())

    def state(self) -> dict[str, Tensor]:
        """Nothing: it is the user's."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a copy, and a base."""
        _refuse_base(state)
        _refuse_copy(state)


class Copied:
    """A copy of the model.

    Raises:
        Exception: whatever copying raises (hooks with closures, tensors inside of a graph, …).
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._copy = model, copy.deepcopy(model).requires_grad_(False).eval()

    def answering(self) -> AbstractContextManager[nn.Module]:
        """The copy, where the model is by now."""
        return nullcontext(self._copy.to(next(self._model.parameters()).device).eval())

    def state(self) -> dict[str, Tensor]:
        """The copy's tensors."""
        return {KEPT + name: each for name, each in self._copy.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the copy's tensors."""
        self._copy.load_state_dict(_taken(state, self._copy.state_dict()))


class OldWeights:
    """The model itself, with its old weights and buffers in their places as long as it is asked.

    For models that cannot be copied, such as those whose `forward` was replaced by a function that calls the original.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        clones: dict[Tensor, Tensor] = {}  # tied weights have one
        self._old = {name: clones.setdefault(now, now.detach().clone()) for name, _, now in _places(model)}

    @contextmanager
    def answering(self) -> Iterator[nn.Module]:
        """Old tensors are in place until it is left."""
        places = list(_places(self._model))
        if strange := [n for n, _, now in places if n not in self._old or self._old[n].shape != now.shape]:
            raise ForgetlessError(
                f"the model has other weights than when its answers were taken ({listing(strange)}), and cannot be "
                "copied; give the old model as teacher=, loaded a second time."
            )
        with asked(self._model):
            try:
                for name, (store, key), now in places:
                    store[key] = self._old[name] = self._old[name].to(now.device)
                yield self._model
            finally:
                for _, (store, key), now in places:
                    store[key] = now

    def state(self) -> dict[str, Tensor]:
        """The old tensors of what the model saves, by its names."""
        with self.answering():
            return {KEPT + name: each.detach() for name, each in self._model.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the old tensors."""
        with self.answering():
            present = self._model.state_dict()
            for name, each in _taken(state, present).items():
                present[name].copy_(each)


def _taken(state: Mapping[str, Tensor], present: Mapping[str, Any]) -> dict[str, Tensor]:
    _refuse_base(state)
    kept = {key.removeprefix(KEPT): each for key, each in state.items() if key.startswith(KEPT)}
    if not kept:
        raise ForgetlessError(
            "the distillation's state has no copy of the model, for it was made with a teacher; make the Distillation "
            "with the same teacher=."
        )
    if _kinds(kept) != _kinds(present):
        raise ForgetlessError("the distillation's state is of another model: its tensors are not this model's.")
    return kept


def _kinds(state: Mapping[str, Any]) -> dict[str, tuple[bool, tuple[int, ...]]]:
    """By name, whether a tensor is of floats, and its shape; a model of another precision is the same one."""
    return {
        name: (each.is_floating_point(), tuple(each.shape)) for name, each in state.items() if isinstance(each, Tensor)
    }


def _refuse_base(state: Mapping[str, Tensor]) -> None:
    if "base" in state:
        raise ForgetlessError(
            "the distillation's state is of a model with LoRA adapters, whose old answers are those of its base; make "
            'the Distillation with teacher="base".'
        )


def _refuse_copy(state: Mapping[str, Tensor]) -> None:
    if any(key.startswith(KEPT) for key in state):
        raise ForgetlessError("the distillation's state holds a copy of a model, and this one has none of its own.")


def _places(model: nn.Module) -> Iterator[tuple[str, tuple[dict[str, Any], str], Tensor]]:
    """Every parameter and buffer: its name, where the module that uses it looks for it, and what is there now."""
    for prefix, module in model.named_modules():
        for store in (module._parameters, module._buffers):
            for key, now in store.items():
                if now is not None:
                    yield f"{prefix}.{key}", (store, key), now

"""Measuring leaves no trace: whatever it changes in a model is put back, also after an exception."""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from forgetless.model.attributes import Attributes
from forgetless.model.parameters import listing
from forgetless.model.sharding import fsdp_modules, is_sharded, shards_of

_LOCKS: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()
_WRITTEN: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()  # what a first pass has written
_OPEN: weakref.WeakKeyDictionary[nn.Module, _Found] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; outside, the model is bit for bit what it was.

    Put back: every module's mode and attributes, every buffer (the tensor and its values), every parameter's values,
    `requires_grad`, `.grad` and hooks, and the state of the random generators. Modes are set as flags, never by
    `train()` or `eval()`, which some layers override to merge weights. Values are copied where a module could write
    them in eval mode (buffers, and embeddings with `max_norm`), and of what a first pass was seen to write (`watched`).
    Inside, the hooks of the parameters do not run, inference mode is off, attention takes no other path than in
    training, and what is compiled runs as the original does. Other threads wait until the model is restored.
    """
    with _locked(model), torch.inference_mode(False), _plain_attention(), unhooked(model.parameters()):
        found = _Found(model)
        outer = _OPEN.get(model)
        devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
        try:
            with torch.random.fork_rng(devices=devices), torch.enable_grad(), _uncompiled(), _uncached():
                found.prepare()
                _OPEN[model] = found
                yield
        finally:
            if outer is None:
                _OPEN.pop(model, None)
            else:
                _OPEN[model] = outer
            found.put_back()


@contextlib.contextmanager
def unhooked(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Inside, the parameters' own hooks, such as an optimizer's, are not called: the batch has no gradient for them."""
    attributes = ("_backward_hooks", "_post_accumulate_grad_hooks")
    found = [getattr(parameter, attribute, None) for parameter in parameters for attribute in attributes]
    waiting = [(hooks, dict(hooks)) for hooks in found if hooks]
    try:
        for hooks, _ in waiting:
            hooks.clear()
        yield
    finally:
        for hooks, before in waiting:
            hooks.clear()
            hooks.update(before)


def one_pass(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Around every forward pass inside `untouched`: it starts with the attributes that the model had before.

    So the state that a recurrent network keeps from one batch to the next does not reach the next sample.
    """
    found = _OPEN.get(model)
    return contextlib.nullcontext() if found is None else found.one_pass()


def watched(model: nn.Module) -> contextlib.AbstractContextManager[object] | None:
    """Around a model's first forward pass: parameters that it writes are remembered, and put back. None if it was."""
    found = _OPEN.get(model)
    return None if found is None or model in _WRITTEN or fsdp_modules(model) else found.watched()


def evaluating(model: nn.Module) -> None:
    """Eval mode by flags alone."""
    for module in model.modules():
        if module.training:
            module.training = False


REPACKS = "support_avx512bf16_for_cpu"  # of bitsandbytes' layers in 4 bits, in eval mode without gradients


def repacking(model: nn.Module) -> list[nn.Module]:
    """The layers that would be repacked when they are asked in eval mode, and from then on pass on no gradients."""
    return [module for module in model.modules() if vars(module).get(REPACKS)]


class _Found:
    """What a model was, to be put back."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._sharded = bool(fsdp_modules(model))
        self._modes = [(module, module.training) for module in modules]
        self._attributes = Attributes([] if self._sharded else modules)
        self._buffers = [
            (module, name, buffer)
            for module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._parameters = list(model.parameters())
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in self._parameters]
        renormalized = [
            module.weight
            for module in modules
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None
        ]
        self._kept: dict[int, tuple[Tensor, Tensor, int | None]] = {}
        for tensor in [*(buffer for *_, buffer in self._buffers), *renormalized]:
            self._keep(tensor)
        self._versions = [(parameter, _version(parameter)) for parameter in self._parameters]
        self._model = model
        for name in _WRITTEN.get(model, ()):
            self._written(name)

    def prepare(self) -> None:
        """The state in which the model is measured."""
        for module, mode in self._modes:
            if mode:
                module.training = False
        for module in repacking(self._model):
            setattr(module, REPACKS, False)
        for module, name, buffer in self._buffers:
            if buffer.is_inference():  # autograd cannot save it
                module._buffers[name] = buffer.clone()
        self._attributes.usable()
        for parameter in self._parameters:
            parameter.grad = None

    @contextlib.contextmanager
    def one_pass(self) -> Iterator[None]:
        """Attributes that hold tensors are put back after it."""
        try:
            yield
        finally:
            self._attributes.forget_state()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """What is about to be written is copied before."""
        places = {_place(tensor): name for name, tensor in self._writable()}
        written: set[str] = set()
        with _Watch(lambda place: self._written(places[place], written) if place in places else None):
            yield
        _WRITTEN[self._model] = written

    def put_back(self) -> None:
        """Everything as it was."""
        for module, mode in self._modes:
            if module.training != mode:
                module.training = mode
        self._attributes.put_back()
        for module, name, buffer in self._buffers:
            module._buffers[name] = buffer
        with torch.no_grad():
            for tensor, copy, version in self._kept.values():
                # Batch norm writes its statistics without telling the version counter.
                if _version(tensor) != version or version is None or not torch.equal(tensor, copy):
                    with torch.inference_mode() if version is None else contextlib.nullcontext():
                        tensor.copy_(copy)
        for parameter, required, gradient in self._flags:
            if parameter.requires_grad != required:
                parameter.requires_grad_(required)
            parameter.grad = gradient
        lost = [p for p, version in self._versions if _version(p) != version and id(p) not in self._kept]
        if lost and not self._sharded:
            warnings.warn(
                f"the network has written {listing(self._names[id(p)] for p in lost)} during a later forward pass, and "
                "the values before are gone; measure a copy of it (copy.deepcopy).",
                stacklevel=2,
            )

    def _keep(self, tensor: Tensor) -> None:
        if id(tensor) not in self._kept:
            self._kept[id(tensor)] = (tensor, tensor.detach().clone(), _version(tensor))

    def _writable(self) -> list[tuple[str, Tensor]]:
        attributes = [("", tensor) for tensor in self._attributes.tensors()]
        return attributes + [(self._names[id(parameter)], parameter) for parameter in self._parameters]

    def _written(self, name: str, found: set[str] | None = None) -> None:
        """A tensor of this name is about to be written, or another in the same memory."""
        places = {_place(tensor) for other, tensor in self._writable() if other == name}
        for _, tensor in self._writable():
            if _place(tensor) in places:
                self._keep(tensor)
        if found is not None:
            found.add(name)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells before memory is written."""

    supports_higher_order_operators = True

    def __init__(self, written: Callable[[int], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._written = written

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run `func`."""
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        if schema is not None and schema.is_mutable:
            for k, argument in enumerate(schema.arguments):
                value = args[k] if k < len(args) else kwargs.get(argument.name)
                if argument.alias_info is None or not argument.alias_info.is_write:
                    continue
                for tensor in value if isinstance(value, (list, tuple)) else [value]:
                    place = _place(tensor) if isinstance(tensor, Tensor) else 0
                    if place:
                        self._written(place)
        return func(*args, **kwargs)


def _place(tensor: Tensor) -> int:
    """Where its memory begins; 0 if it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, say
        return 0


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


@contextlib.contextmanager
def _locked(model: nn.Module) -> Iterator[None]:
    """One thread at a time, of all whose models share a module with parameters."""
    with _LOCKS_GUARD:
        owners = [module for module in model.modules() if module is model or module._parameters]
        locks = [_LOCKS.setdefault(module, threading.RLock()) for module in sorted(owners, key=id)]
    with contextlib.ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        yield


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Inside, encoders take the path that they take in training: the fast one drops padded positions."""
    backend = getattr(torch.backends, "mha", None)
    if backend is None or not backend.get_fastpath_enabled():
        yield
        return
    try:
        backend.set_fastpath_enabled(False)
        yield
    finally:
        backend.set_fastpath_enabled(True)


def _uncompiled() -> contextlib.AbstractContextManager[object]:
    """Inside, what `torch.compile` has wrapped, a module or a function that a `forward` calls, runs as it was written.

    Compiled, it would trace what measures, too, for minutes.
    """
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and loading it takes a second
        return contextlib.nullcontext()
    eager: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")  # untyped in torch
    return eager


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Inside, autocast keeps no copies of weights: one made without a gradient would serve the user's next step too."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextlib.contextmanager
def only(tracked: Iterator[Tensor] | list[Tensor], model: nn.Module) -> Iterator[None]:
    """Inside, only the `tracked` parameters of `model` require a gradient."""
    wanted = {id(each) for parameter in tracked for each in (parameter, *shards_of(parameter))}
    present = [each for parameter in model.parameters() for each in (parameter, *shards_of(parameter))]
    before = [(parameter, parameter.requires_grad) for parameter in present]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in wanted)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextlib.contextmanager
def in_float64(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside, the model computes in float64; outside, its parameters and buffers are the very same memory as before.

    Yields what makes an input fit. FSDP gathers sharded parameters in their own dtype, so nothing of such a model is
    changed.
    """
    if any(is_sharded(parameter) or shards_of(parameter) for parameter in model.parameters()):
        yield lambda tensor: tensor
        return
    with _locked(model):
        parameters = [(parameter, parameter.data) for parameter in model.parameters()]
        buffers = [
            (module, name, buffer)
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        try:
            for parameter, values in parameters:
                if _widened(values) is not values:
                    parameter.data = _widened(values)
            for module, name, buffer in buffers:
                module._buffers[name] = _widened(buffer)
            yield _widened
        finally:
            for parameter, values in parameters:
                parameter.data = values
            for module, name, buffer in buffers:
                module._buffers[name] = buffer


def _widened(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor

"""`freeze`: the core of a network stands still bit for bit while the rest of it is trained."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.measure.selection import Granularity, Scope, core_masks
from forgetless.model.parameters import fingerprint, listing, named, unwrapped
from forgetless.protect.frozen import core_file
from forgetless.protect.frozen.packing import Packing, sparse
from forgetless.protect.frozen.refusals import frozen, refuse_nothing_left, refuse_unfit
from forgetless.protect.frozen.share import Share, mask_of, share_of
from forgetless.protect.frozen.status import CoreStatus
from forgetless.protect.frozen.watch import CoreWatch
from forgetless.protect.optimizers.inner import Inner


def freeze(
    model: nn.Module,
    importance: Importance,
    keep: float = 0.3,
    granularity: Granularity = "element",
    *,
    scope: Scope = "global",
    against: Importance | None = None,
    damping: float = 1.0,
) -> FrozenCore:
    """Freeze the most important elements of a network; `attach` the result to its optimizer.

        core = forgetless.freeze(model, importance, keep=0.3)
        core.attach(optimizer)

    Args:
        model: the network, with the weights that are to stand still.
        importance: what matters to what is to be kept: of any of this library's estimators.
        keep: the share of the elements that the importance covers, 0 to 1.
        granularity: "element", "row" or "tensor"; see `forgetless.core_masks`.
        scope: "global" or "tensor"; see there.
        against: what matters to the new data; see there.
        damping: of `against`; see there.

    Returns:
        The frozen core.

    Raises:
        ForgetlessError: all that `core_masks` and `FrozenCore` refuse.
    """
    masks = core_masks(importance, keep, granularity, scope=scope, against=against, damping=damping)
    core = FrozenCore(model, masks)
    parameters = named(unwrapped(model))
    changed = [name for name, was in importance.weights.items() if fingerprint(parameters[name]) != was]
    if changed:
        warnings.warn(
            f"the importance was measured at other weights than the model has now: {listing(changed)}; measure it "
            "again unless that is meant.",
            stacklevel=2,
        )
    return core


class FrozenCore:
    """Elements of a network that stand still: they get no gradient, no decay, no momentum and no optimizer state.

    From when it is made, the gradients of the core are exactly 0 after every backward pass (also where they would be
    NaN), so that clipping and loss scaling see the free share only; parameters that stand still as a whole no longer
    require a gradient. From when it is attached, the optimizer steps on the free elements alone
    (`forgetless.protect.frozen.packing`). The core then keeps its bits by construction.

    A mask takes a byte for each element of a parameter that is frozen by elements, 8 bytes for each row of one that is
    frozen by rows, and nothing else. `copy.deepcopy` of the model copies no hooks: a copy is not frozen.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        """Freeze `model` where the masks are true; parameters without a mask are free.

        Args:
            model: the network. Freeze before DDP wraps it, so that parameters that stand still as a whole are not
                reduced; it works afterwards as well.
            masks: parameter name → boolean tensor of its shape, as `forgetless.core_masks` gives them.

        Raises:
            ForgetlessError: masks of another model, a model that is frozen already, sharded or quantized, NaN or Inf in
                the core, or nothing that is left to be trained.
        """
        inner = unwrapped(model)
        self._parameters = named(inner)
        refuse_unfit(self._parameters, masks)
        found = {name: share for name, mask in masks.items() if (share := share_of(mask)) is not None}
        self._shares: dict[str, Share] = found
        refuse_nothing_left(self._parameters, found)
        self._covered = sum(mask.numel() for mask in masks.values())
        self._names = {self._parameters[name]: name for name in found}
        self._by_parameter = {self._parameters[name]: share for name, share in found.items()}
        self._mark = core_file.mark(found)
        self._watch = CoreWatch({self._parameters[name]: mask_of(share) for name, share in found.items()}, self._names)
        self._packings: list[Packing] = []
        self._steps = 0
        self._stopped: list[nn.Parameter] = []
        self._handles: list[Any] = []
        self._hooked = 0
        self._model = weakref.ref(inner)
        # DDP waits for the gradient of every parameter that required one when it wrapped the model.
        waits = inner is not model and type(model).__name__ == "DistributedDataParallel"
        for name, share in found.items():
            self._hold(name, share, stops=share.kind == "tensor" and not waits)

    def _hold(self, name: str, share: Share, stops: bool) -> None:
        parameter = self._parameters[name]
        frozen[parameter] = True
        if not parameter.requires_grad:
            return
        act = _stilled(name, share, self._glance)
        self._handles.append(parameter.register_post_accumulate_grad_hook(act))  # type: ignore[no-untyped-call]
        if stops:
            parameter.requires_grad_(False)
            self._stopped.append(parameter)
            parameter.grad = None
        elif parameter.grad is not None:
            share.still(parameter.grad)

    def _glance(self) -> None:
        """Look about once in a backward pass, whichever of the parameters get gradients in it."""
        for packing in self._packings:
            packing.settle()
        self._hooked += 1
        if self._hooked % max(1, len(self._handles) - len(self._stopped)) == 0:
            self._watch.look()

    def attach(self, optimizer: Any, *, elementwise: bool = False) -> FrozenCore:
        """Let `optimizer` step on the free elements alone.

        Its state is of their number; state that it has already is packed, and the core's dropped. Attach before or
        after `load_state_dict`: both work, and a state that was saved with another core is refused.

        Args:
            optimizer: trains parameters of the model. A wrapper stands for the optimizer inside (Accelerate, Fabric,
                …); several come in a list or a dict.
            elementwise: say of an optimizer that is not known here that it treats every element by itself.

        Returns:
            The core.

        Raises:
            ForgetlessError: attached already, parameters that were replaced since, a second core on one optimizer, an
                optimizer that holds none of the model's parameters, or one that does not treat every element by itself
                (Muon, Adafactor, LAMB, LBFGS, 8-bit ones, …) where it has parameters that are frozen in part. Nothing
                is attached then.
        """
        now = named(model) if (model := self._model()) is not None else self._parameters
        if replaced := [name for name in self._shares if now.get(name) is not self._parameters[name]]:
            raise ForgetlessError(
                f"{listing(replaced)} were replaced by other parameters since they were frozen; remove() the core and "
                "freeze the model again."
            )
        ours = set(self._parameters.values())
        optimizers = [
            each
            for each in Inner(optimizer).optimizers
            if not ours.isdisjoint(parameter for group in each.param_groups for parameter in group["params"])
        ]
        if not optimizers:
            raise ForgetlessError(
                f"the optimizer holds none of the model's parameters ({listing(self._parameters)}); make it from them."
            )
        if any(packing.optimizer is each for packing in self._packings for each in optimizers):
            raise ForgetlessError("the core is attached to this optimizer already.")
        made: list[Packing] = []
        try:
            for each in optimizers:
                more = (self._by_parameter, self._names, self._mark, self._watch.look)
                made.append(Packing(each, *more, vouched=elementwise))
        except ForgetlessError:
            for packing in made:
                packing.remove()
            raise
        self._packings += made
        return self

    def remove(self) -> None:
        """Let the core be trained again, from the next backward pass on.

        What an optimizer holds of the free elements stays; the core's part of it begins at 0.
        """
        for packing in self._packings:
            packing.remove()
            self._steps += packing.steps
        for handle in self._handles:
            handle.remove()
        for parameter in self._stopped:
            parameter.requires_grad_(True)
        for parameter in self._names:
            frozen.pop(parameter, None)  # type: ignore[no-untyped-call]
        self._packings, self._handles, self._stopped = [], [], []

    def masks(self) -> dict[str, Tensor]:
        """Name → mask, true in the core, of the parameters that stand still in part or as a whole."""
        return {name: mask_of(share) for name, share in self._shares.items()}

    def status(self) -> CoreStatus:
        """How much stands still, and in how many steps of attached optimizers it has."""
        still = sum(share.frozen for share in self._shares.values())
        return CoreStatus(
            still,
            self._covered,
            still / max(1, self._covered),
            sum(parameter.numel() for parameter in self._parameters.values()),
            self._steps + sum(packing.steps for packing in self._packings),
            {name: share.frozen / max(1, share.shape.numel()) for name, share in self._shares.items()},
            self._watch.moved,
        )

    def save(self, path: str | Path) -> None:
        """Write which elements stand still to the file `path` (safetensors), whole or not at all: a bit for each."""
        core_file.write(path, self._shares, self._values())

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> FrozenCore:
        """Freeze `model` as it was when `save` was called; warns if the core has other values than it had then.

        Load the model's weights first.

        Raises:
            ForgetlessError: the file is missing, cut, damaged or of another model, and all that `FrozenCore` refuses.
        """
        masks, values = core_file.read(path)
        core = cls(model, masks)
        now = core._values()
        if changed := [name for name, was in values.items() if now.get(name) != was]:
            warnings.warn(
                f"{path} was saved with other values in the core: {listing(changed)}; load the model's weights before.",
                stacklevel=2,
            )
        return core

    def _values(self) -> dict[str, str]:
        """A fingerprint of the values that stand still, by name."""
        found = {}
        for name, share in self._shares.items():
            parameter = self._parameters[name].detach()
            found[name] = fingerprint(
                parameter if share.kind == "tensor" else parameter[share.core().to(parameter.device)]
            )
        return found


def _stilled(name: str, share: Share, look: Callable[[], None]) -> Callable[[Tensor], None]:
    """What is done when a gradient has been added up: the core's part of it becomes 0."""

    def still(parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        if parameter.grad.layout != torch.strided:
            raise sparse(name)
        with torch.no_grad():
            share.still(parameter.grad)
        look()

    return still

"""`Packing`: one optimizer steps on the free elements alone, so that the core has no state, no decay and no momentum.

While the optimizer steps, each partly frozen parameter in its groups is replaced by a packed one that holds the free
elements and their gradients; after the step these are written back. Between steps the groups hold the model's own
parameters, and the optimizer's state, in the packed shape, stands under them: so `state_dict` and `load_state_dict` are
the optimizer's own. What they hold is marked with a fingerprint of the core, since a state for other elements of the
same number could not be told from the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.protect.frozen.elementwise import refuse_others
from forgetless.protect.frozen.share import Share
from forgetless.protect.optimizers.before_step import Call

MARK = "frozen_core"  # the key of the fingerprint in the groups of an optimizer's state_dict


class Packing:
    """Hooks on one optimizer.

    Attributes:
        optimizer: the optimizer.
        steps: how many it has taken since.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        shares: Mapping[nn.Parameter, Share],
        names: Mapping[nn.Parameter, str],
        mark: str,
        look: Callable[[], None],
        vouched: bool,
    ) -> None:
        """Hook into `optimizer`, and pack what state it has already.

        Args:
            optimizer: the optimizer.
            shares: the frozen parameters and what is free of each.
            names: their names.
            mark: the fingerprint of the core.
            look: called before each step: whether the core is what it was.
            vouched: whether the user says that the optimizer treats every element by itself.

        Raises:
            ForgetlessError: an optimizer that cannot be packed, or state that was packed for another core; nothing has
                changed then.
        """
        self.optimizer, self.steps = optimizer, 0
        self._shares, self._names, self._mark, self._look = shares, names, mark, look
        self._given: list[tuple[dict[str, Any], list[nn.Parameter]]] = []
        self._packed: dict[nn.Parameter, nn.Parameter] = {}
        if any(isinstance(hook, Packing) for hook in optimizer._optimizer_step_pre_hooks.values()):
            raise ForgetlessError(
                "another frozen core is attached to this optimizer; make one core of both masks: "
                "forgetless.FrozenCore(model, masks)."
            )
        if self.packs:
            refuse_others(optimizer, vouched)
        self._refuse_marked(optimizer.param_groups)
        self._admit()
        for group in optimizer.param_groups:
            group.pop(MARK, None)
        after = optimizer.register_step_post_hook(self._after)
        hooks: Any = optimizer._optimizer_step_post_hooks
        hooks.move_to_end(after.id, last=False)  # other hooks see the model's parameters
        self._handles = [
            optimizer.register_step_pre_hook(self),
            after,
            optimizer.register_state_dict_pre_hook(lambda _: self._restore()),
            optimizer.register_state_dict_post_hook(self._marked),
            optimizer.register_load_state_dict_pre_hook(self._loading),
            optimizer.register_load_state_dict_post_hook(lambda _: self._admit()),
        ]

    @property
    def packs(self) -> bool:
        """Whether the optimizer has parameters that are frozen in part; an anchor asks (`forms`)."""
        return any(self._shares[parameter].kind != "tensor" for parameter in self._owned())

    def _owned(self) -> list[nn.Parameter]:
        """The frozen parameters that the optimizer has; looked up anew, for groups are added."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p in self._shares]

    def remove(self) -> None:
        """Take the hooks out; what is packed of the state gets the parameters' shapes, with 0 for the core."""
        self._restore()
        for handle in self._handles:
            handle.remove()
        for parameter in self._owned():
            share, state = self._shares[parameter], self.optimizer.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == share.packed and value.dim():
                    state[key] = value.new_zeros(share.shape)
                    share.scatter(state[key], value)

    # -- a step

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Replace the partly frozen parameters; called by the optimizer before its step."""
        self._restore()  # after a step that ended with an exception
        self._look()
        self._admit()
        for group in optimizer.param_groups:
            if any(parameter in self._shares for parameter in group["params"]):
                self._given.append((group, group["params"]))
                group["params"] = [each for each in map(self._stand_in, group["params"]) if each is not None]
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._take_gradients()
            return None

        def packed() -> Any:
            self._write()  # a closure that is called again sees the weights as they are by then
            stepped = [group["params"] for group, _ in self._given]
            for group, parameters in self._given:  # for the closure's zero_grad()
                group["params"] = parameters
            try:
                with torch.enable_grad():
                    loss = closure()
            except BaseException:
                self._restore()
                raise
            for (group, _), parameters in zip(self._given, stepped, strict=True):
                group["params"] = parameters
            self._take_gradients()
            return loss

        return (args[0], packed), {key: value for key, value in kwargs.items() if key != "closure"}

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.steps += 1
        self._write()
        self._restore()

    def _stand_in(self, parameter: nn.Parameter) -> nn.Parameter | None:
        """What the optimizer steps on in a parameter's place; None for what stands still as a whole."""
        share = self._shares.get(parameter)
        if share is None:
            return parameter
        if share.kind == "tensor":
            return None
        packed = nn.Parameter(share.gather(parameter)[0], requires_grad=parameter.requires_grad)
        self._packed[parameter] = packed
        if parameter in self.optimizer.state:
            self.optimizer.state[packed] = self.optimizer.state.pop(parameter)
        return packed

    @torch.no_grad()
    def _take_gradients(self) -> None:
        for parameter, packed in self._packed.items():
            if parameter.grad is not None and parameter.grad.layout != torch.strided:
                self._restore()
                raise sparse(self._names[parameter])
            packed.grad = None if parameter.grad is None else self._shares[parameter].gather(parameter.grad)[0]

    @torch.no_grad()
    def _write(self) -> None:
        for parameter, packed in self._packed.items():
            self._shares[parameter].scatter(parameter.detach(), packed.detach())

    def _restore(self) -> None:
        """Give the groups and the state the model's parameters again."""
        for group, parameters in self._given:
            group["params"] = parameters
        for parameter, packed in self._packed.items():
            if packed in self.optimizer.state:
                self.optimizer.state[parameter] = self.optimizer.state.pop(packed)
        self._given, self._packed = [], {}

    # -- its state

    def _admit(self) -> None:
        """Pack the state of frozen parameters that still has the parameters' own shapes; the core's is dropped."""
        found: dict[nn.Parameter, dict[str, Any]] = {}
        for parameter in self._owned():
            share, state = self._shares[parameter], self.optimizer.state.get(parameter)
            if not state:
                continue
            if share.kind == "tensor":
                found[parameter] = {}
                continue
            packed = {key: self._packed_state(parameter, share, key, value) for key, value in state.items()}
            if any(packed[key] is not state[key] for key in state):
                found[parameter] = packed
        for parameter, packed in found.items():
            if packed:
                self.optimizer.state[parameter].update(packed)
            else:
                del self.optimizer.state[parameter]

    def _packed_state(self, parameter: nn.Parameter, share: Share, key: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.numel() <= 1 or value.shape == share.packed:
            return value
        if value.shape == share.shape:
            return share.gather(value)[0]
        raise ForgetlessError(
            f"the optimizer's state {key!r} of {self._names[parameter]!r} has the shape {tuple(value.shape)}, where "
            f"{tuple(share.packed)} elements are free of {tuple(share.shape)}: it is of another core; freeze with the "
            "masks that it was saved with (FrozenCore.load), or make a new optimizer."
        )

    def _marked(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            group[MARK] = self._mark

    def _loading(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        self._restore()
        self._refuse_marked(state["param_groups"])
        groups = [{key: value for key, value in group.items() if key != MARK} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    def _refuse_marked(self, groups: list[dict[str, Any]]) -> None:
        if any(group.get(MARK, self._mark) != self._mark for group in groups):
            raise ForgetlessError(
                "the optimizer's state was saved with another frozen core than the model has; freeze with the masks "
                "that it was saved with (FrozenCore.load), or make a new optimizer."
            )


def sparse(name: str) -> ForgetlessError:
    """What is said of sparse gradients."""
    return ForgetlessError(f"the gradient of {name!r}, which is partly frozen, is sparse; use sparse=False there.")

"""`Packing`: one optimizer steps on the free elements alone, so that the core has no state, no decay and no momentum.

While the optimizer steps, each partly frozen parameter in its groups is replaced by a packed one that holds the free
elements and their gradients; after the step these are written back. Between steps the groups hold the model's own
parameters, and the optimizer's state, in the packed shape, stands under them. Whatever leaves the optimizer (a
`state_dict`, a copy, a pickle) has states of the parameters' own shapes, 0 in the core: any optimizer can go on with
it, with a core or without. What is loaded is packed again.

A step that ends with an exception leaves the packed parameters behind, since nothing is called then. The gradients have
gone with them, so that `zero_grad` acts on all; at the next backward pass, step or `state_dict` everything is put back,
but for what the step had done to the packed weights by then: weights may have been loaded since.
"""

from __future__ import annotations

from collections import defaultdict
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
        self._gradients: dict[nn.Parameter, Tensor] = {}  # of the model's parameters, while they are packed
        self._in_closure = False
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
            optimizer.register_state_dict_pre_hook(lambda _: self.settle()),
            optimizer.register_state_dict_post_hook(self._saved),
            optimizer.register_load_state_dict_pre_hook(self._loading),
            optimizer.register_load_state_dict_post_hook(lambda _: self._admit()),
        ]
        vars(optimizer)["__getstate__"] = self._copied  # copies have no hooks, so that they must have an ordinary state

    @property
    def packs(self) -> bool:
        """Whether the optimizer has parameters that are frozen in part; an anchor asks (`forms`)."""
        return any(self._shares[parameter].kind != "tensor" for parameter in self._owned())

    def _owned(self) -> list[nn.Parameter]:
        """The frozen parameters that the optimizer has; looked up anew, for groups are added."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p in self._shares]

    def remove(self) -> None:
        """Take the hooks out; what is packed of the state gets the parameters' shapes, with 0 for the core."""
        self.settle()
        for handle in self._handles:
            handle.remove()
        vars(self.optimizer).pop("__getstate__", None)
        for parameter in self._owned():
            if parameter in self.optimizer.state:
                self.optimizer.state[parameter] = self._whole(parameter, self.optimizer.state[parameter])

    # -- a step

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Replace the partly frozen parameters; called by the optimizer before its step."""
        self.settle()
        self._look()
        self._admit()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        try:
            for group in optimizer.param_groups:
                if any(parameter in self._shares for parameter in group["params"]):
                    stepped = [self._stand_in(each, closure is None) for each in group["params"]]
                    self._given.append((group, group["params"]))
                    group["params"] = [each for each in stepped if each is not None]
        except BaseException:
            self.settle()
            raise
        if closure is None:
            return None
        return (args[0], self._around(closure)), {key: value for key, value in kwargs.items() if key != "closure"}

    def _around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, among the model's parameters."""

        @torch.no_grad()
        def around() -> Any:
            self._write()  # a closure that is called again sees the weights as they are by then
            stepped = [group["params"] for group, _ in self._given]
            self._give_back()
            self._in_closure = True
            try:
                with torch.enable_grad():
                    loss = closure()
                for parameter, packed in self._packed.items():
                    packed.grad = None
                    if (taken := self._gradient(parameter)) is not None:
                        self._hand_over(parameter, packed, self._shares[parameter].gather(taken)[0])
            except BaseException:
                self._restore()
                raise
            finally:
                self._in_closure = False
            for (group, _), parameters in zip(self._given, stepped, strict=True):
                group["params"] = parameters
            for parameter, packed in self._packed.items():
                self._move_state(parameter, packed)
            return loss

        return around

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.steps += 1
        self._write()
        self._restore()

    def _stand_in(self, parameter: nn.Parameter, with_gradient: bool) -> nn.Parameter | None:
        """What the optimizer steps on in a parameter's place; None for what stands still as a whole."""
        share = self._shares.get(parameter)
        if share is None:
            return parameter
        if share.kind == "tensor":
            return None
        gradient = self._gradient(parameter) if with_gradient else None
        taken, *more = share.gather(parameter, *([] if gradient is None else [gradient]))
        packed = nn.Parameter(taken, requires_grad=parameter.requires_grad)
        self._packed[parameter] = packed
        self._move_state(parameter, packed)
        for each in more:
            self._hand_over(parameter, packed, each)
        return packed

    def _gradient(self, parameter: nn.Parameter) -> Tensor | None:
        if parameter.grad is not None and parameter.grad.layout != torch.strided:
            raise sparse(self._names[parameter])
        return parameter.grad

    def _hand_over(self, parameter: nn.Parameter, packed: nn.Parameter, free: Tensor) -> None:
        """The packed parameter has the gradient from now on, and the model's none."""
        assert parameter.grad is not None
        self._gradients[parameter], packed.grad, parameter.grad = parameter.grad, free, None

    def _move_state(self, source: nn.Parameter, target: nn.Parameter) -> None:
        if source in self.optimizer.state:
            self.optimizer.state[target] = self.optimizer.state.pop(source)

    @torch.no_grad()
    def _write(self) -> None:
        for parameter, packed in self._packed.items():
            self._shares[parameter].scatter(parameter.detach(), packed.detach())

    def _give_back(self) -> None:
        """Let the groups, the state and the gradients be those of the model's parameters."""
        for group, parameters in self._given:
            group["params"] = parameters
        for parameter, packed in self._packed.items():
            self._move_state(packed, parameter)
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient
        self._gradients = {}

    def _restore(self) -> None:
        """The step is over."""
        self._give_back()
        self._given, self._packed = [], {}

    @torch.no_grad()
    def settle(self) -> None:
        """Put back what a step that ended with an exception has left; gradients as they were zeroed or grew since."""
        if self._in_closure or not (self._packed or self._given):
            return
        for parameter, packed in self._packed.items():
            if (held := self._gradients.get(parameter)) is None:
                continue
            if packed.grad is None:
                del self._gradients[parameter]  # zero_grad() was called
                continue
            self._shares[parameter].scatter(held, packed.grad)
            if parameter.grad is not None:
                held.add_(parameter.grad)
        self._restore()

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

    def _whole(self, parameter: Tensor, state: dict[str, Any]) -> dict[str, Any]:
        """A parameter's state in its own shape, 0 in the core; the rest of it as it is."""
        share, found = self._shares[parameter], dict(state)  # type: ignore[index]
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == share.packed and value.dim():
                found[key] = value.new_zeros(share.shape)
                share.scatter(found[key], value)
        return found

    @torch.no_grad()
    def _saved(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Make a `state_dict` one that any optimizer can load."""
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
            saved[MARK] = self._mark
            for parameter, number in zip(group["params"], saved["params"], strict=True):
                if parameter in self._shares and number in state["state"]:
                    state["state"][number] = self._whole(parameter, state["state"][number])

    @torch.no_grad()
    def _copied(self) -> dict[str, Any]:
        """What `copy` and `pickle` take of the optimizer."""
        self.settle()
        held = dict(type(self.optimizer).__getstate__(self.optimizer))
        held.pop("__getstate__", None)
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, each in self.optimizer.state.items():
            state[key] = self._whole(key, each) if key in self._shares else each
        return {**held, "state": state}

    def _loading(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        self.settle()
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

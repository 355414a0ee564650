"""What ties an anchor to an optimizer: a hook on its step, and the anchored parameters that it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError
from forgetless.protect.anchored_parameter import AnchoredParameter
from forgetless.protect.optimizers.move import Move
from forgetless.protect.optimizers.rates import PeakRates
from forgetless.protect.optimizers.response import Group, Known, Response, State, is_settled

Anchored = Mapping[nn.Parameter, AnchoredParameter]


class Attachment:
    """A hook on one optimizer; `Pull` and `Gradient` say what it does.

    Attributes:
        optimizer: the optimizer.
        anchored: parameter → its θ* and Ω; parameters that are not in it are free.
        strength: λ.
        l2sp: w, towards θ*.
        known: the optimizer's form; the sentence that says why there is none.
        rates: the largest learning rates so far.
        steps: the optimizer's steps since it was attached.
    """

    def __init__(
        self, optimizer: Optimizer, known: Known | str, anchored: Anchored, strength: float, l2sp: float = 0.0
    ) -> None:
        self.optimizer, self.known, self.anchored = optimizer, known, anchored
        self.strength, self.l2sp = strength, l2sp
        self.rates = PeakRates(optimizer)
        self.steps = self._applied = 0
        self._skipped: Tensor | None = None
        self._handle = self._hook()

    def _hook(self) -> RemovableHandle:
        raise NotImplementedError

    def caution(self) -> str | None:
        """What the user must know before training goes on, if anything."""
        raise NotImplementedError

    def remove(self) -> None:
        """Take the hook out of the optimizer."""
        self._handle.remove()

    def shares(self, optimizer: Optimizer) -> bool:
        """Whether `optimizer` is the one hooked here, or trains an anchored parameter of that one too."""
        if optimizer is self.optimizer:
            return True
        ours = {parameter for parameter, _, _ in self.owned()}
        return any(parameter in ours for group in optimizer.param_groups for parameter in group["params"])

    def owned(self) -> Iterator[tuple[nn.Parameter, AnchoredParameter, Group]]:
        """The anchored parameters that the optimizer trains, each with its group.

        Looked up anew each time: groups are added, and replaced by `load_state_dict`.
        """
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in self.anchored and parameter.requires_grad:
                    yield parameter, self.anchored[parameter], group

    @property
    def applied(self) -> int:
        """The steps since then in which the anchor acted: λ or w was above 0, and the step was not skipped.

        Asks the device if a fused optimizer under GradScaler may have skipped some inside its step.
        """
        return self._applied - (0 if self._skipped is None else int(self._skipped))

    def _acted(self) -> None:
        """Count this step."""
        self._applied += 1
        if (skipped := getattr(self.optimizer, "found_inf", None)) is not None:
            now = (skipped > 0).to(torch.int64)
            self._skipped = now if self._skipped is None else self._skipped + now

    def _response(self, known: Known, group: Group, state: State, parameter: Tensor) -> Response:
        """The form's response.

        Raises:
            ForgetlessError: an optimizer of another package that bears a known name and keeps another state.
        """
        try:
            return known.form(group, state, parameter)
        except KeyError as missing:
            name = type(self.optimizer).__name__
            raise ForgetlessError(
                f"this {name} ({type(self.optimizer).__module__}) keeps no {missing} as others of that name do, so its "
                "steps cannot be followed; attach(optimizer, how='gradient') instead."
            ) from missing

    def moves(
        self, strength: float, l2sp: float = 0.0, *, peak: bool = False
    ) -> Iterator[tuple[nn.Parameter, AnchoredParameter, Move | None]]:
        """What a pull moves of every anchored parameter: itself, what is anchored of it, and its move.

        A parameter that was never stepped has no move (there is no D yet), nor has any where no form is known.

        Args:
            strength: λ.
            l2sp: w.
            peak: at the largest learning rate of each group (`PeakRates`) instead of the present one.
        """
        at_peak = self.rates.groups() if peak else {}
        for parameter, anchored, group in self.owned():
            state = self.optimizer.state.get(parameter, {})
            if isinstance(self.known, str) or not is_settled(self.known, state):
                yield parameter, anchored, None
                continue
            response = self._response(self.known, at_peak.get(id(group), group), state, parameter)
            moved = parameter.detach() if response.moved is None else response.moved
            extra = [each for each in (response.second, response.mean, anchored.carry) if each is not None]
            weights, target, importance, *met = anchored.meet(moved, *extra)
            left = iter(met)
            second = None if response.second is None else next(left)
            mean = None if response.mean is None else next(left)
            carry = next(left, None)
            response = response._replace(second=second, mean=mean)
            yield parameter, anchored, Move(weights, target, importance, strength, l2sp, response, carry)

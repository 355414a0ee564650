"""`Distillation`: what a model answered on old samples is a target while it learns something new."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError, brief
from forgetless.model import batches
from forgetless.model.admission import adapters_alone, all_fresh
from forgetless.model.masks import Mask
from forgetless.model.outputs import Forward, Output, Select
from forgetless.model.parameters import listing, unwrapped
from forgetless.model.ranks import alone, ranks_of
from forgetless.model.sharding import is_sharded
from forgetless.protect.anchor_file import checked
from forgetless.protect.forgetting.divergence import divergence_of, log_probabilities
from forgetless.protect.forgetting.old_samples import OldSamples
from forgetless.protect.forgetting.probes import asked
from forgetless.protect.old_model import Base, Copied, Given, OldModel, OldWeights
from forgetless.protect.optimizers.before_step import Call, before_step
from forgetless.protect.optimizers.forms import refuse_unhookable
from forgetless.protect.optimizers.inner import Inner

_NEVER = torch.finfo(torch.float32).min / 4  # the logit of a class that does not count


class Distillation:
    """Keeps a model's answers on samples of its old use, which need no labels.

        forgetless.Distillation(model, old).attach(optimizer)

    Every step of the optimizer then also goes down

        λ · τ² / M Σ_m KL(softmax(z*_m / τ) ‖ softmax(z_m / τ)),

    over the M answers to the next batch of old samples: one a sample, or one at every position that counts. z are the
    logits now, z* those when the `Distillation` was made; both are computed in eval mode, so that the answers are those
    that users get, batch-norm statistics stay, and dropout draws nothing. The classes are the last axis of an output
    `[N, K]` or `[N, T, K]`; a last axis of 1, or none, is a yes or no. At λ = 1 an old answer counts as much as a new
    label does in a mean cross-entropy. Hinton et al. 2015 (arXiv 1503.02531); Li and Hoiem 2016 (arXiv 1606.09282) have
    it on the new task's samples.

    An `Anchor` needs old samples once; this needs them in every step. The two work together.

    Cost: a forward and a backward pass through the old batch, and a forward pass of the old model, in every step.
    Memory: a copy of the model; none where it is given as `teacher=`, or where fresh LoRA adapters are all that learns.
    """

    def __init__(
        self,
        model: nn.Module,
        old: Any,
        strength: float = 1.0,
        *,
        temperature: float = 1.0,
        batch_size: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        output: Select = None,
        forward: Forward | None = None,
        mask: Mask = "auto",
        teacher: nn.Module | Literal["base"] | None = None,
        seed: int = 0,
    ) -> None:
        """The answers to be kept are those that the model gives now.

        Args:
            model: the network, as it is to be remembered; under DDP the wrapped one.
            old: unlabeled samples like those whose answers are to be kept. A tensor, tuple (inputs first) or dict is
                all of them; of these, of a `Dataset`, and of a list with `collate_fn`, every epoch has an order of its
                own. Any other iterable yields batches, as it is, and begins anew when it ends; of one that shuffles by
                torch's generator the order depends on where that stands.
            strength: λ ≥ 0.
            temperature: τ > 0; the larger, the more the improbable answers count.
            batch_size: old samples in a step where `old` has samples; 32 by default.
            collate_fn: a list of samples → a batch.
            output: which tensors of the model's output are its logits; by default "logits", else the only tensor.
            forward: (model, batch) → output, where `model(inputs)` is not the way; also the place for autocast.
            mask: which positions count; see `forgetless.mas`.
            teacher: gives z* in place of a copy of the model; "base": the model with its LoRA adapters off, which is
                the default where they are fresh, and has to be said where they have been trained since.
            seed: of the order of the samples.

        Raises:
            ForgetlessError: samples that the model cannot take, that are none or that can be read only once; an output
                that holds no logits; NaN or Inf in the answers; a teacher that shares the model's weights; a base that
                learns; sharded weights; a setting out of range.
        """
        self._strength = checked(strength)
        if not (isinstance(temperature, int | float) and math.isfinite(temperature) and temperature > 0):
            raise ForgetlessError(f"temperature must be a finite number above 0, not {temperature!r}.")
        self._model = unwrapped(model)
        if split := [name for name, each in self._model.named_parameters() if is_sharded(each)]:
            raise ForgetlessError(f"{listing(split)} are sharded over processes, which Distillation cannot follow.")
        self._temperature = float(temperature)
        self._output, self._named = Output(output, forward, mask), output is not None
        self._ranks = ranks_of(model)
        share = (0, 1) if self._ranks is None else (self._ranks.rank, self._ranks.size)
        self._old = OldSamples(old, 32 if batch_size is None else batch_size, collate_fn, seed, share)
        if isinstance(teacher, str) and not (teacher == "base" and adapters_alone(self._model)):
            raise ForgetlessError(
                f'teacher={teacher!r} cannot be: "base" is for a model of PEFT of which nothing but LoRA adapters '
                "changes in training; leave it out, or give the old model, loaded a second time."
            )
        if isinstance(teacher, nn.Module):
            self._teacher: OldModel = Given(teacher)
        elif teacher == "base" or all_fresh(self._model):
            self._teacher = Base(self._model)
        else:
            self._teacher = _copy(self._model)
        self._handles: list[RemovableHandle] = []
        self._last: Tensor | None = None
        self._steps = 0
        self._noted: Tensor | None = None
        self._shortened = 1.0
        self._unclipped: float | None = None
        self._try()

    @property
    def strength(self) -> float:
        """λ. Setting it takes effect with the next step."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = checked(value)

    @property
    def steps(self) -> int:
        """The batches of old samples that were used."""
        return self._steps

    @property
    def divergence(self) -> float:
        """The mean KL of the last batch, in nats, before the step that it was used in; NaN before the first."""
        return math.nan if self._last is None else float(self._last)

    def before_learning(self) -> AbstractContextManager[nn.Module]:
        """Inside, the model as it was, in eval mode; it may be the model itself, so do not train it there."""
        return self._teacher.answering()

    def loss(self) -> Tensor:
        """λ times the divergence on the next batch of old samples, a differentiable scalar for the loss.

        With gradient accumulation call it once a step. Unlike what `attach` adds it is clipped with the rest of the
        gradient. Do not use it where the model recomputes activations in the backward pass (checkpointing) and has
        dropout: it would recompute in train mode.

        Raises:
            ForgetlessError: attached to an optimizer, so that it would count twice; answers that became NaN or Inf.
        """
        if self._handles:
            raise ForgetlessError("loss() would count twice: an optimizer is attached; call detach() first.")
        with asked(self._model):
            return self._strength * self._next()

    def attach(self, optimizer: Any) -> Distillation:
        """Add the gradient of the loss in every step of `optimizer`, after clipping and once a step.

        Gradient accumulation and loss scaling make no difference to it. Clipping does: where it shortens the gradient
        of the new labels, old answers count more than λ says, unless each step is told of it by `clipped`, or `loss()`
        is added to the loss instead. Several optimizers take a batch each. `steps` counts them, and stands still where
        the optimizer is not the one that trains.

        Args:
            optimizer: trains parameters of the model; wrappers and several as for `Anchor.attach`.

        Returns:
            The distillation.

        Raises:
            ForgetlessError: attached already, none of the model's parameters in the optimizer, one that cannot be
                followed (LBFGS, LOMO, …) or that a frozen core is attached to, or several processes whose model is not
                given as the wrapped one.
        """
        if self._handles:
            raise ForgetlessError("an optimizer is attached already; call detach() first.")
        found = Inner(optimizer).optimizers
        mine = set(self._model.parameters())
        if not any(each in mine for inner in found for each in _trained(inner)):
            raise ForgetlessError("the optimizer holds none of the model's parameters, so it cannot keep its answers.")
        for inner in found:
            refuse_unhookable(inner, "distillation.loss()")
        if self._ranks is None and not alone():
            raise ForgetlessError(
                "several processes train, and each would go its own way; give Distillation the model as "
                "DistributedDataParallel wraps it."
            )
        self._handles = [inner.register_step_pre_hook(self._before) for inner in found]
        return self

    def detach(self) -> None:
        """Let the optimizers go."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Tensor]:
        """What a training needs to go on: the copy of the model, or "base", and how many batches were used.

        Of numbered samples (a tensor, a `Dataset`, a list with `collate_fn`) it also tells which they are: their count
        and a hash of the first batch.
        """
        noted = {} if self._noted is None else {"samples": self._noted}
        return {"steps": torch.tensor(self._steps), **noted, **self._teacher.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; of an iterable, the batches that were used are read and dropped.

        Other old samples than those that the state was made with are warned of, where they are numbered.

        Raises:
            ForgetlessError: the state of another model or of another teacher, or none.
        """
        steps = state.get("steps")
        whole = (
            isinstance(steps, Tensor) and steps.numel() == 1 and not (steps.is_floating_point() or steps.is_complex())
        )
        if not isinstance(steps, Tensor) or not whole or int(steps) < 0:
            raise ForgetlessError("the distillation's state has no 'steps'; give what state_dict() returned.")
        samples = state.get("samples")
        if samples is not None and not (
            isinstance(samples, Tensor) and samples.dtype == torch.int64 and samples.shape == (2,)
        ):
            raise ForgetlessError("the distillation's state is damaged: its 'samples' are not two numbers.")
        self._teacher.load(state)
        if samples is not None and self._noted is not None and (other := self._differing(*map(int, samples))):
            warnings.warn(
                f"the old samples are not those that the training began with: {other}; give the same ones, or begin "
                "anew.",
                stacklevel=2,
            )
        self._steps = int(steps)
        self._old.seek(self._steps)

    def _differing(self, count: int, first: int) -> str | None:
        """How the old samples differ from those of a state, in words."""
        assert self._noted is not None
        now, found = map(int, self._noted)
        if count != now:
            return f"there were {count:,}, and there are {now:,} now"
        # What a process draws for a batch (an augmentation) is its own; the first one's is in the state.
        if first and found and first != found and (self._ranks is None or self._ranks.rank == 0):
            return "the first batch is another (other samples, batch_size, collate_fn or seed)"
        return None

    def _try(self) -> None:
        """Ask for the answers to the first batch, so that what does not fit is said before training."""
        batch = self._old.first()
        try:
            with torch.enable_grad(), asked(self._model):
                if (shared := self._depends(batch)) and isinstance(self._teacher, Copied):
                    self._teacher = OldWeights(self._model)  # a replaced forward calls the original's
                    shared = self._depends(batch)
            with torch.no_grad(), asked(self._model):
                found = self._distance(batch)
        except ForgetlessError as error:
            raise ForgetlessError(f"the old samples do not fit the model: {error}") from error
        except Exception as error:  # whatever a model raises
            raise ForgetlessError(f"the old samples do not fit the model: {brief(error)}.") from error
        if shared:
            raise ForgetlessError(
                "the teacher computes with weights of the model itself, so that its answers would change with them; "
                "give the old model as teacher=, loaded a second time."
            )
        if not bool(torch.isfinite(found)):
            raise ForgetlessError("the model answers the old samples with NaN or Inf, so no answers can be kept.")
        self._noted = self._old.noted(batch)

    def _depends(self, batch: Any) -> bool:
        """Whether the teacher's answers depend on the model's weights: a wrapped `forward` may be the model's own."""
        mine = [each for each in self._model.parameters() if each.requires_grad]
        with self.before_learning() as teacher:
            outputs = [each for each, _ in self._answers(teacher, self._moved(batch)) if each.requires_grad]
        if not mine or not outputs:
            return False
        found = torch.autograd.grad([each.sum() for each in outputs], mine, allow_unused=True)
        return any(each is not None for each in found)

    def _next(self) -> Tensor:
        """The divergence on the next batch, a scalar."""
        # The last one is looked at here: by now it is there, where asking at once would wait for the device.
        if self._last is not None and not bool(torch.isfinite(self._last)):
            raise ForgetlessError(f"the answers to the old samples became NaN or Inf in step {self._steps}.")
        found = self._distance(self._old.next())
        self._steps += 1
        self._last = found.detach()
        return found

    def _distance(self, batch: Any) -> Tensor:
        """`τ² / M Σ_m KL(p*_m ‖ p_m)`, over all outputs."""
        batch = self._moved(batch)
        with torch.no_grad(), self.before_learning() as teacher:
            wanted = [self._log(*each) for each in self._answers(teacher, batch)]
        total, number = torch.zeros(()), torch.zeros(())
        for (output, counts), old in zip(self._answers(self._model, batch), wanted, strict=True):
            gap = divergence_of(old, self._log(output, counts))
            rows = torch.ones_like(gap) if output.dim() == 2 else counts.to(gap.dtype)  # of [N, K] all rows count
            total, number = total.to(gap) + (gap * rows).sum(), number.to(gap) + rows.sum()
        return total * self._temperature**2 / number.clamp_min(1)

    def _moved(self, batch: Any) -> Any:
        return batches.moved(batch, next(self._model.parameters()).device)

    def _answers(self, model: nn.Module, batch: Any) -> list[tuple[Tensor, Tensor]]:
        """The logits, each beside what of it counts.

        Raises:
            ForgetlessError: an output that holds none.
        """
        found = self._output.counted(model, batch)
        if "last_hidden_state" in found and not self._named:
            raise ForgetlessError("the model gives last_hidden_state, which holds no logits; name them with output=.")
        for output, _ in found.values():
            if output.is_complex() or output.dim() > 3:
                raise ForgetlessError(
                    f"logits must be real, [N, K] or [N, T, K], and the output is {output.dtype} of shape "
                    f"{tuple(output.shape)}; choose or arrange it with output= (of pictures of classes [N, K, H, W]: "
                    "output=lambda out: out.flatten(2).transpose(1, 2))."
                )
        return [*found.values()]

    def _log(self, output: Tensor, counts: Tensor) -> Tensor:
        wide = output[:, None] if output.dim() == 1 else output
        wide = wide.to(torch.promote_types(wide.dtype, torch.float32)) / self._temperature
        return log_probabilities(wide.masked_fill(~counts, _NEVER) if output.dim() == 2 else wide)

    def clipped(self, norm: float | Tensor, most: float | None = None) -> None:
        """Tell, before the optimizer's step, that gradients of this norm were clipped; old answers are shortened alike.

            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            distillation.clipped(norm, 1.0)
            optimizer.step()

        Args:
            norm: of the gradients before clipping.
            most: the norm that they were clipped to; None where they were clipped otherwise, such as by value: `norm`
                is that of the gradients of what the optimizer trains, and old answers are shortened as much as this
                norm is by the time of the step.

        Raises:
            ForgetlessError: a bound that is not positive.
        """
        if most is not None and not most > 0:
            raise ForgetlessError(f"gradients are clipped to a norm above 0, not {most!r}.")
        self._unclipped = float(norm) if most is None else None
        self._shortened = 1.0 if most is None else _share(most, float(norm) + 1e-6)  # as clip_grad_norm_ has it

    def _left(self, optimizer: Optimizer) -> float:
        """How much of the gradient clipping has left in this step."""
        if self._unclipped is not None:
            gradients = [each.grad for each in _trained(optimizer) if each.grad is not None]
            self._shortened = _share(float(nn.utils.get_total_norm(gradients)), self._unclipped)
        left, self._shortened, self._unclipped = self._shortened, 1.0, None
        return left

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        return before_step(partial(self._add, optimizer), args, kwargs)

    def _add(self, optimizer: Optimizer) -> None:
        left = self._left(optimizer)
        if not self._strength:
            return
        parameters = list(_trained(optimizer))
        with torch.enable_grad(), asked(self._model):
            loss = self._strength * left * self._next()
            if not loss.requires_grad:  # the answers depend on nothing that learns: they stay
                return
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer divides by it inside its step
        climbing = {each for group in optimizer.param_groups if group.get("maximize") for each in group["params"]}
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is None:
                continue
            if self._ranks is not None:
                dense = gradient.to_dense() if gradient.is_sparse else gradient.contiguous()
                gradient = self._ranks.total(dense) / self._ranks.size
            if scale is not None:
                gradient = gradient * scale.to(gradient)
            if parameter in climbing:
                gradient = -gradient
            _accumulate(parameter, gradient.to(parameter.dtype))


def _share(after: float, before: float) -> float:
    """How much of a norm is left, at most all; NaN shortens nothing: the step is lost anyway."""
    return after / before if after < before else 1.0


def _accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add to a parameter's gradient; it stays sparse where both are."""
    before = parameter.grad
    if before is None:
        parameter.grad = gradient
    elif before.is_sparse:
        parameter.grad = before + gradient if gradient.is_sparse else gradient + before
    else:
        before.add_(gradient)


def _copy(model: nn.Module) -> OldModel:
    try:
        return Copied(model)
    except Exception:  # hooks with closures, tensors inside of a graph, …
        return OldWeights(model)


def _trained(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from (each for each in group["params"] if each.requires_grad)

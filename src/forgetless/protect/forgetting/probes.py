"""`Probes`: what a network answered on a few samples of its old use, and how far its answers are from that now."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.model import batches
from forgetless.model.outputs import Forward, Output, Select
from forgetless.model.parameters import fingerprint, unwrapped
from forgetless.model.restored import REPACKS, repacking
from forgetless.protect.forgetting.divergence import divergence_of, log_probabilities

MOST = 1024  # samples that are kept
_MOST_NUMBERS = 1 << 26  # of the old answers' log-probabilities: more than 256 MB are not kept, and there is no KL


_Span = tuple[int, int, int]  # a batch's number, and the first and last row of a piece of it
_Old = list[tuple[Tensor, Tensor | None]]  # of each output: the answers, and the log-probabilities if they fitted


@dataclass(frozen=True)
class Reading:
    """How far the answers are from the old ones.

    Attributes:
        agreement: the share of answers that are the same.
        kl: the mean of `KL(p_old ‖ p_now)` in nats; None if the old probabilities would not have fitted the memory.
        accuracy: the share of right answers; None without labels.
        samples: how many samples it is over.
    """

    agreement: float
    kl: float | None
    accuracy: float | None
    samples: int


class Probes:
    """Samples of the old use, split into pieces, with the network's answers at some time, the *old* ones.

    An answer is the largest entry along an output's last axis: one a sample, or one at every position that is not
    padding. Along a last axis of 1 (a yes or no) it is the sign. New classes may join; answering with one of them is
    another answer.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Any,
        *,
        output: Select = None,
        forward: Forward | None = None,
        labeled: bool | None = False,
        rows: int | None = None,
        whose: str = "the probes",
    ) -> None:
        """Keep the samples and ask the model for its answers, the old ones from now on.

        Args:
            model: the network, as it is to be remembered. It is left unchanged.
            samples: a tensor, tuple (inputs first) or dict is one batch; a `Dataset` is batched; any other iterable
                yields batches. At most 1,024 samples are kept, the first ones.
            output: which tensors are the answers; see `forgetless.mas`.
            forward: (model, batch) → output, where `model(inputs)` is not the way.
            labeled: whether the batches hold labels, one a sample, to tell right answers by; None to look.
            rows: samples that pass through the network at once; 32 by default.
            whose: what a complaint calls them.

        Raises:
            ForgetlessError: no samples, NaN or Inf in them, labels that are missing or not one a sample, or samples
                that the model cannot take.
        """
        self._function = Output(output, forward)
        self._whose = whose
        self._batches = list(_batches(samples, whose))
        if not self._batches:
            raise ForgetlessError(f"{whose} hold no samples, so no answers can be compared.")
        if labeled is None:
            labeled = all(map(_is_labeled, self._batches))
        self._labels = [batches.labels(batch) for batch in self._batches] if labeled else None
        self.split(rows or 32)
        self.retake(model)

    def __len__(self) -> int:
        return sum(map(batches.size, self._batches))

    def fingerprint(self) -> list[str]:
        """Of every tensor of the samples, in order: equal where the samples are."""
        return [fingerprint(tensor) for tensor in batches.tensors(self._batches)]

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return len(self._spans)

    def split(self, rows: int) -> None:
        """Split the samples anew, into pieces of at most `rows`."""
        self.rows = rows
        self._spans = [
            (number, start, min(start + rows, batches.size(batch)))
            for number, batch in enumerate(self._batches)
            for start in range(0, batches.size(batch), rows)
        ]

    def retake(self, model: nn.Module) -> None:
        """Let the model's current answers be the old ones.

        Raises:
            ForgetlessError: samples that the model cannot take, or an answer that is NaN or Inf; the old ones stay.
        """
        taken: list[_Old] = []
        numbers = 0
        with asked(model):
            for span in self._spans:
                outputs = self._asked(model, span)
                if not all(bool(torch.isfinite(output).all()) for output in outputs):
                    raise ForgetlessError(f"the model answers {self._whose} with NaN or Inf, so none can be kept.")
                numbers += sum(output.numel() for output in outputs)
                kept = numbers <= _MOST_NUMBERS
                taken.append([(_answers(each), log_probabilities(each) if kept else None) for each in outputs])
        self._old = []
        for number in range(len(self._batches)):
            own = [old for old, span in zip(taken, self._spans, strict=True) if span[0] == number]
            self._old.append([_joined(parts, numbers <= _MOST_NUMBERS) for parts in zip(*own, strict=True)])

    @torch.no_grad()
    def read(self, model: nn.Module, numbers: Sequence[int] | None = None) -> list[Reading]:
        """The current answers against the old ones, one reading for each of the pieces `numbers` (all by default).

        The network answers in eval mode and is left unchanged.

        Raises:
            ForgetlessError: the model's outputs have other axes than they had.
        """
        chosen = range(self.pieces) if numbers is None else numbers
        with asked(model):
            return [self._read(model, self._spans[number]) for number in chosen]

    def _read(self, model: nn.Module, span: _Span) -> Reading:
        number, start, stop = span
        old = [(answer[start:stop], None if p is None else p[start:stop]) for answer, p in self._old[number]]
        outputs = self._asked(model, span)
        given = batches.inputs(self._piece(span))
        mask = given.get("attention_mask") if isinstance(given, dict) else None
        same = divergence = total = 0.0
        for output, (answer, log_p) in zip(outputs, old, strict=True):
            now = _answers(output)
            if now.shape != answer.shape:
                raise ForgetlessError(
                    f"the model answers {self._whose} in the shape {tuple(now.shape)} now and in {tuple(answer.shape)} "
                    "when they were taken; give probes and forward= for an output that keeps its axes."
                )
            counted = _counted(answer, mask)
            total += float(counted.sum())
            same += float(((now == answer) * counted).sum())
            if log_p is not None:
                divergence += float((divergence_of(log_p, log_probabilities(output)) * counted).sum())
        share = 1 / max(total, 1.0)
        exact = None
        if self._labels is not None:
            labels = self._labels[number][start:stop].to(outputs[0].device)
            exact = float((_answers(outputs[0]) == labels).double().mean())
        kl = None if old[0][1] is None else divergence * share
        return Reading(same * share, kl, exact, stop - start)

    def _piece(self, span: _Span) -> Any:
        number, start, stop = span
        return batches.rows(self._batches[number], start, stop)

    @torch.no_grad()
    def _asked(self, model: nn.Module, span: _Span) -> list[Tensor]:
        piece, number = self._piece(span), span[0]
        device = next(model.parameters(), torch.empty(0)).device
        try:
            outputs = self._function.tensors(unwrapped(model), batches.mapped(piece, lambda tensor: tensor.to(device)))
        except ForgetlessError as error:
            raise ForgetlessError(f"{self._whose} do not fit the model: {error}") from error
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ForgetlessError(
                f"{self._whose} do not fit the model: {type(unwrapped(model)).__name__} fails on "
                f"{_described(piece)} with {type(error).__name__}: {said}."
            ) from error
        outputs = [output if output.dim() > 1 else output[:, None] for output in outputs]
        if self._labels is not None and _answers(outputs[0]).dim() != self._labels[number].dim():
            raise ForgetlessError(
                f"{self._whose} have labels of shape {tuple(self._labels[number].shape)} for answers of shape "
                f"{tuple(_answers(outputs[0]).shape)}: right answers are told by one label a sample."
            )
        return outputs


def pooled(readings: Sequence[Reading]) -> Reading:
    """One reading for several, each weighed by its samples."""
    samples = sum(each.samples for each in readings)

    def mean(values: list[float | None]) -> float | None:
        if any(value is None for value in values):
            return None
        known = [value for value in values if value is not None]
        return math.fsum(v * r.samples for v, r in zip(known, readings, strict=True)) / samples

    agreement = mean([each.agreement for each in readings])
    assert agreement is not None
    return Reading(agreement, mean([r.kl for r in readings]), mean([r.accuracy for r in readings]), samples)


@contextlib.contextmanager
def asked(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module's mode and torch's random numbers are as they were."""
    modes = [(module, module.training) for module in model.modules() if module.training]
    state, repacked = torch.get_rng_state(), repacking(model)
    for module, _ in modes:
        module.training = False
    for module in repacked:
        setattr(module, REPACKS, False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module in repacked:
            setattr(module, REPACKS, True)
        torch.set_rng_state(state)


def _is_labeled(batch: Any) -> bool:
    try:
        labels = batches.labels(batch)
    except ForgetlessError:
        return False
    return labels.dim() == 1 and not labels.is_floating_point()


def _batches(samples: Any, whose: str) -> Iterator[Any]:
    left = MOST
    for number, batch in enumerate(batches.of(samples, None)):
        batches.refuse_non_finite(batch, f"batch {number} of {whose}")
        own = min(batches.size(batch), left)
        if own:
            yield batches.mapped(batches.rows(batch, 0, own), lambda tensor: tensor.detach().clone())
        left -= own
        if not left:
            return


def _joined(parts: tuple[tuple[Tensor, Tensor | None], ...], whole: bool) -> tuple[Tensor, Tensor | None]:
    """The old answers and log-probabilities of a batch, from those of its pieces."""
    given = [log_p for _, log_p in parts if log_p is not None]
    return torch.cat([answer for answer, _ in parts]), torch.cat(given) if whole else None


def _answers(output: Tensor) -> Tensor:
    return (output[..., 0] > 0).long() if output.shape[-1] == 1 else output.argmax(-1)


def _counted(answers: Tensor, mask: Any) -> Tensor:
    """1 for an answer, 0 at padding."""
    if isinstance(mask, Tensor) and answers.dim() == mask.dim() == 2 and answers.shape == mask.shape:
        return mask.to(answers.device, torch.float64)
    return torch.ones_like(answers, dtype=torch.float64)


def _described(piece: Any) -> str:
    shapes = ", ".join(
        f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in batches.tensors(batches.inputs(piece))
    )
    return f"a piece of {shapes}"

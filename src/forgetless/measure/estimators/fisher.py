"""The diagonal of the Fisher information: how sensitive what the network predicts is to each parameter.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017 (EWC). Of its three readings,
Kunstner, Balles, Hennig, "Limitations of the empirical Fisher approximation", NeurIPS 2019, tell which is which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure import draws
from forgetless.measure.accumulator import Estimator, Until, measure
from forgetless.measure.engine.target import Quantity
from forgetless.measure.importance import Importance
from forgetless.model import batches
from forgetless.model.collation import Collate
from forgetless.model.masks import IGNORED, Mask
from forgetless.model.network import Network
from forgetless.model.outputs import Forward, Output, Select

Labels = Literal["sampled", "expected", "empirical"]
Form = Literal["square", "modulus"]


def fisher(
    model: nn.Module,
    data: Any,
    *,
    labels: Labels = "sampled",
    form: Form = "square",
    seed: int = 0,
    into: Importance | None = None,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
    exclude: str | Iterable[str] = (),
    collate_fn: Collate | None = None,
    batch_size: int | None = None,
    until: Until = None,
    prove: bool = True,
    progress: bool = True,
) -> Importance:
    """Measure the diagonal Fisher information of a classifier, exact per sample.

        F = 1/N Σ_n (∂ log p(y_n | x_n; θ) / ∂θ)²,  y_n ~ p(y | x_n; θ)          labels="sampled"
        F = 1/N Σ_n Σ_c p(c | x_n; θ) (∂ log p(c | x_n; θ) / ∂θ)²                labels="expected"
        F = 1/N Σ_n (∂ log p(y_n | x_n; θ) / ∂θ)²,  y_n as in the data           labels="empirical"

    form="modulus" takes |∂ log p / ∂θ| in place of its square: with labels="empirical" the mean modulus of the samples'
    gradients of the loss, `1/N Σ_n |∂ℓ(x_n, y_n; θ) / ∂θ|` (Wan and Zhao, arXiv 2604.17051, Eq. 4).

    One logit z is a Bernoulli variable: p(1 | x) = σ(z), p(0 | x) = 1 − σ(z).

    Where F(x) has logits at every position t, as a language model has, `log p(y|x) = Σ_t log p(y_t|x)` and a sample is
    the whole sequence. Eval mode; the model is left unchanged. EWC's `λ/2 Σ F (θ − θ*)²` is an anchor of strength λ/2.

    Args:
        model: a trained classifier.
        data: as for `forgetless.mas`; unlabeled, except for "empirical".
        labels: "sampled" is the true Fisher information by one draw a sample, at the price of one backward pass;
            "expected" is its exact expectation, at the price of as many passes as there are classes (times positions);
            "empirical" takes the labels of the data: the second of a tuple, or "labels" of a dict; −100 leaves a
            position out. It is no estimate of the other two, and vanishes where the network is right and sure.
        form: "square" is the Fisher information; "modulus" is of its first power.
        seed: which labels are drawn; the random generators of torch are neither used nor moved. Of W processes that
            measure together, rank r takes its samples to be r, r + W, r + 2 W, …, as DistributedSampler deals them out.
        into: an earlier measurement of the same network to pool with; it is left unchanged.
        output: which tensor of the model's output are the logits, `[N, C]` or `[N, T, C]`; see `forgetless.mas`.
        forward: (model, batch) → output, where `model(inputs)` is not the way.
        mask: which positions of the output count; see `forgetless.mas`.
        exclude: parameters to leave out: names, module names ("head") or patterns ("*.bias").
        collate_fn: a list of samples → a batch; see `forgetless.mas`.
        batch_size: samples at a time, for memory; it never changes the numbers.
        until: stop early; see `forgetless.mas`.
        prove: check samples against themselves alone; see `forgetless.mas`.
        progress: show a progress bar on a terminal.

    Returns:
        Sums and count over the samples, float32 or wider; `.mean()` is F.

    Raises:
        ForgetlessError: logits of another shape, labels that are missing, no class indices or out of range (named
            sample), and all that `forgetless.mas` refuses.
    """
    network = Network.of(model, exclude)
    made = estimator(network, labels=labels, form=form, seed=seed, output=output, forward=forward, mask=mask)
    data = batches.of(data, batch_size, collate_fn)
    return measure(network, data, made, into=into, batch_size=batch_size, until=until, prove=prove, progress=progress)


def estimator(
    network: Network,
    *,
    labels: Labels = "sampled",
    form: Form = "square",
    seed: int = 0,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
) -> Estimator:
    """What `fisher` sums over samples.

    Raises:
        ForgetlessError: another reading of the labels, another form, or a mask by labels that are read already.
    """
    if form not in ("square", "modulus"):
        raise ForgetlessError(f'form must be "square" or "modulus", not {form!r}.')
    if labels not in ("sampled", "expected", "empirical"):
        raise ForgetlessError(f'labels must be "sampled", "expected" or "empirical", not {labels!r}.')
    if labels == "empirical" and mask == "labels":
        raise ForgetlessError('labels="empirical" leaves out positions without a label by itself; drop mask="labels".')
    function, power = Output(output, forward, mask), 2 if form == "square" else 1

    def sampled(model: nn.Module, batch: Any) -> Tensor:
        log_p = log_probabilities(function, model, batch["samples"])
        return _chosen(log_p, draws.labels(log_p, seed, batch["numbers"]))

    def expected(model: nn.Module, batch: Any) -> Tensor:
        log_p = log_probabilities(function, model, batch)
        finite = log_p.clamp(min=torch.finfo(log_p.dtype).min)  # a class that is ruled out has log p = −∞ and p = 0
        return ((log_p.detach() / power).exp() * finite).flatten(1)  # (√p ∂ log p)² = p (∂ log p)²

    def empirical(model: nn.Module, batch: Any) -> Tensor:
        log_p = log_probabilities(function, model, batch["samples"])
        return _chosen(log_p, checked(batch["targets"], log_p, batch["numbers"]))

    def rows(batch: Any, numbers: Tensor) -> dict[str, Any]:
        marked = {"samples": batch, "numbers": numbers}
        return marked | {"targets": given_labels(batch)} if labels == "empirical" else marked

    scalars = {"sampled": sampled, "expected": expected, "empirical": empirical}[labels]
    quantity = Quantity(scalars, power=power, several=labels == "expected")
    numbered = None if labels == "expected" else rows
    return Estimator(
        f"fisher, {labels} labels" if form == "square" else f"modulus of log p, {labels} labels",
        quantity,
        numbered,
        lambda model, _, batch: function.look(model, batch),
    )


def log_probabilities(function: Output, model: nn.Module, batch: Any) -> Tensor:
    """`log p(c | x_n)` at every position, `[N, T, C]`, T = 1 where there are none; at least float32.

    C = 2 where there is one logit: `[N]`, `[N, 1]` or `[N, T, 1]`.

    Raises:
        ForgetlessError: the output is not one tensor of logits `[N, C]` or `[N, T, C]`.
    """
    tensors = function.tensors(model, batch)
    logits = tensors[0]
    if len(tensors) == 1 and logits.dim() == 1:
        logits = logits.unsqueeze(1)
    if len(tensors) != 1 or logits.dim() not in (2, 3):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ForgetlessError(
            f"the Fisher information needs the logits of classes, [N, C] or [N, T, C], and the output is {shapes}; "
            "choose with output= or forward=, or measure what any output has with forgetless.mas."
        )
    logits = logits if logits.element_size() >= 4 else logits.float()
    if logits.shape[-1] == 1:  # log σ(−z), log σ(z)
        log_p = nn.functional.logsigmoid(logits * torch.tensor([-1.0, 1.0], dtype=logits.dtype, device=logits.device))
    else:
        log_p = logits.log_softmax(-1)
    return log_p if log_p.dim() == 3 else log_p.unsqueeze(1)


def given_labels(batch: Any) -> Tensor:
    """The labels of the data.

    Raises:
        ForgetlessError: there are none, or they are the inputs themselves, not yet shifted to what comes next.
    """
    targets = batches.labels(batch)
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if isinstance(ids, Tensor) and ids.shape == targets.shape and bool(((targets == ids) | (targets == IGNORED)).all()):
        raise ForgetlessError(
            "the labels are the input_ids themselves, and a causal language model predicts the next one: shift them "
            "(labels[:, :-1] = input_ids[:, 1:], and -100 in the last column)."
        )
    return targets


def checked(targets: Tensor, log_p: Tensor, numbers: Tensor) -> Tensor:
    """The labels as `[N, T]`.

    Raises:
        ForgetlessError: they are no class indices of these logits.
    """
    samples, positions, classes = log_p.shape
    if classes == 2 and targets.dtype != torch.int64 and bool(((targets == 0) | (targets == 1)).all()):
        targets = targets.long()  # as binary cross entropy takes them
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ForgetlessError(f"labels must be class indices (integers), not {targets.dtype}.")
    if targets.numel() != samples * positions or targets.shape[0] != samples:
        expected = (samples, positions) if positions > 1 else (samples,)
        raise ForgetlessError(f"the labels have shape {tuple(targets.shape)} where the logits need {expected}.")
    targets = targets.reshape(samples, positions)
    wrong = (targets != IGNORED) & ((targets < 0) | (targets >= classes))
    if bool(wrong.any()):
        n = int(wrong.any(1).nonzero()[0])
        raise ForgetlessError(
            f"label {int(targets[n][wrong[n]][0])} of sample {int(numbers[n])} is none of the {classes} classes that "
            f"the logits have, 0 to {classes - 1}."
        )
    return targets


def _chosen(log_p: Tensor, targets: Tensor) -> Tensor:
    """`Σ_t log p(y_nt | x_n)` over the positions that have a label, `[N]`."""
    known = targets != IGNORED
    found = log_p.gather(2, targets.clamp(min=0).unsqueeze(2)).squeeze(2)
    return torch.where(known, found, 0).sum(1)

"""A first fit of a new classification head: logistic regression on the features that the backbone has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network
from forgetless.learn.samples import samples_of
from forgetless.model import batches

_ITERATIONS = 100


def warm_start(model: Network, task: str, data: Any, batch_size: int) -> None:
    """Fit the linear head of `task` to the features that the backbone has now; nothing else changes.

    Multinomial logistic regression on the features in eval mode: with `z = (f − μ)/σ`, σ² the mean of the features'
    variances, the minimum of `1/N Σ_n −log softmax(V z_n + c)[y_n] + 1/(2N) ‖V‖²` (scikit-learn's C = 1), found by
    L-BFGS from zero, so that no random number is used; then `W = V/σ, b = c − W μ`. V is `[classes, features]`. One σ
    serves all features: with one σ for each, a feature that hardly varies gets a huge weight, and the first training
    steps through it damage the backbone. Training from a fitted head distorts features less than from a random one
    (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022).

    Args:
        model: the network, with a linear head for `task`.
        task: the task's name.
        data: its training samples: inputs `[N, …]` and labels `[N]`, or another form that `Task` takes.
        batch_size: inputs that pass through the backbone at once.

    Raises:
        ForgetlessError: the head is not linear, or the backbone's features are not finite or not `[N, features]`.
    """
    head = model.head(task)
    if not isinstance(head, nn.Linear):
        raise ForgetlessError(f"a warm start needs a linear head, and that of task {task!r} is {type(head).__name__}.")
    features, labels = _features(model, data, batch_size)
    if features.shape != (len(labels), head.in_features):
        raise ForgetlessError(
            f"the backbone gives {list(features.shape)} for {len(labels)} inputs of task {task!r}, "
            f"not [{len(labels)}, {head.in_features}]."
        )
    if not bool(torch.isfinite(features).all()):
        raise ForgetlessError(f"the backbone's features of task {task!r} hold NaN or Inf.")
    mean = features.mean(0)
    deviation = (features - mean).square().mean().sqrt()
    if deviation <= 1e-6 * features.abs().max():  # constant features, up to rounding
        deviation = torch.ones_like(deviation)
    weight, bias = _logistic_regression((features - mean) / deviation, labels.to(features.device), head.out_features)
    with torch.no_grad():
        head.weight.copy_(weight / deviation)
        head.bias.copy_(bias - (weight / deviation) @ mean)


@torch.no_grad()
def _features(model: Network, data: Any, batch_size: int) -> tuple[Tensor, Tensor]:
    """The backbone's features in eval mode, `[N, features]` in float32 or wider, and the labels `[N]`."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    features, labels = [], []
    for batch in samples_of(data).batches(batch_size):
        inputs = batches.mapped(batches.inputs(batch), lambda tensor: tensor.to(device))
        features.append(model.backbone(inputs))
        labels.append(batches.labels(batch))
    model.train(training)
    found = torch.cat(features)
    return found.to(torch.promote_types(found.dtype, torch.float32)), torch.cat(labels)


def _logistic_regression(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The minimum of `1/N Σ cross-entropy + 1/(2N) ‖V‖²`: V `[classes, features]` and c `[classes]`."""
    weight = features.new_zeros(classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels)
        loss = loss + weight.square().sum() / (2 * len(labels))
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()

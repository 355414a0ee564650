"""Ω on the buffer's samples, which need no labels for it: what an online learner can measure without its past tasks."""

from __future__ import annotations

from forgetless.learn.families.memory import Remembered
from forgetless.learn.network import Network
from forgetless.learn.streaming.passes import Passes
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from forgetless.model import batches


def importance_of(model: Network, parts: list[Remembered], passes: Passes) -> Importance:
    """`Ω = 1/N Σ_n |∂‖F(x_n)‖²/∂θ|` over all samples, each through the head of its task; exact, see `forgetless.mas`.

    Args:
        model: the network; left as it was.
        parts: one or more.
        passes: counts a forward and a backward pass of every sample.

    Raises:
        ForgetlessError: what `forgetless.mas` refuses.
    """
    found: Importance | None = None
    device = next(model.parameters()).device
    for part in parts:
        inputs = batches.mapped(batches.inputs(part.batch), lambda tensor: tensor.to(device))
        passes.forward, passes.backward = passes.forward + len(part), passes.backward + len(part)
        found = mas(
            model,
            inputs,
            forward=lambda network, batch, task=part.task: network(batches.inputs(batch), task),  # type: ignore[misc]
            into=found,
            progress=False,
        )
    assert found is not None
    return found

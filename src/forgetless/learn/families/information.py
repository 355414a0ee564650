"""The Fisher information of a task that was learned, for the methods that weigh parameters by it."""

from __future__ import annotations

from typing import Any

from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.estimators.fisher import fisher
from forgetless.measure.estimators.output_curvature import output_curvature
from forgetless.measure.importance import Importance


def information(model: Network, task: Task, most: int) -> Importance:
    """The diagonal Fisher information on the task's training inputs, exact per sample.

        F = 1/N Σ_n Σ_c p(c|x_n) (∂ log p(c|x_n)/∂θ)²        up to `most` classes
        F = 1/N Σ_n (∂ log p(y_n|x_n)/∂θ)², y_n ~ p(y|x_n)   beyond: one label is drawn for each sample
        F = 1/N Σ_n Σ_o (∂F_o(x_n)/∂θ)²                      outputs that are no logits: y ~ N(F(x), 1)

    Args:
        model: the network that has learned the task.
        task: gives its training inputs; targets are not used.
        most: up to as many outputs, the expectation over all classes or outputs, at a backward pass each. Beyond, one
            label, or one sign for each output, is drawn for each sample.
    """
    few = model.width(task.name) <= most
    options: dict[str, Any] = {
        "forward": lambda network, inputs: network(inputs, task.name),
        "exclude": model.unshared,
        "progress": False,
    }
    if task.objective.logits:
        return fisher(model, task.inputs(), labels="expected" if few else "sampled", **options)
    return output_curvature(model, task.inputs(), form="exact" if few else "sampled", **options)

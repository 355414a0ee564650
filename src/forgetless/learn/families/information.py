"""The Fisher information of a task that was learned, for the methods that weigh parameters by it."""

from __future__ import annotations

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.estimators.fisher import fisher
from forgetless.measure.importance import Importance


def information(model: Network, task: Task, most: int) -> Importance:
    """The diagonal Fisher information on the task's training inputs, exact per sample.

        F = 1/N Σ_n Σ_c p(c|x_n) (∂ log p(c|x_n)/∂θ)²        up to `most` classes
        F = 1/N Σ_n (∂ log p(y_n|x_n)/∂θ)², y_n ~ p(y|x_n)   beyond: one label is drawn for each sample

    Args:
        model: the network that has learned the task.
        task: gives its training inputs; targets are not used.
        most: up to as many outputs, the expectation over all classes, at a backward pass each.

    Raises:
        ForgetlessError: the outputs of the task's objective are not logits.
    """
    if not task.objective.logits:
        raise ForgetlessError(
            f"Fisher information needs logits, and the outputs of task {task.name!r} are not logits; take a method "
            "that measures the outputs themselves, such as mas."
        )
    return fisher(
        model,
        task.inputs(),
        labels="expected" if model.width(task.name) <= most else "sampled",
        forward=lambda network, inputs: network(inputs, task.name),
        exclude=model.unshared,
        progress=False,
    )

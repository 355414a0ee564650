"""An entry of the accuracy matrix R: the score of a task's held-out samples."""

from __future__ import annotations

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network
from forgetless.learn.task import Task


def evaluate(model: Network, task: Task, batch_size: int) -> float:
    """The score of the task's held-out samples in eval mode: an entry of R.

    Args:
        model: the network, with outputs for the task; left in eval mode.
        task: the task.
        batch_size: the most samples at once.

    Raises:
        ForgetlessError: outputs that are NaN or Inf, or a score outside [0, 1].
    """
    found = task.objective.evaluate(model, task.name, task.test, batch_size)
    if not 0 <= found <= 1:
        raise ForgetlessError(
            f"the score {task.objective.score!r} of task {task.name!r} is {found!r}: a score is a share in [0, 1], "
            "and 1 is best."
        )
    return found

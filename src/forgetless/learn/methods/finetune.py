"""Fine-tuning: learn each task and protect nothing; what every other method is held against."""

from __future__ import annotations

from typing import ClassVar

from forgetless.learn.task import Method


class Finetune(Method):
    """Plain gradient descent on the task at hand."""

    name: ClassVar[str] = "finetune"

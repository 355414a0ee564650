"""Fine-tuning: learn each task and protect nothing; the baseline of every other method."""

from __future__ import annotations

from typing import ClassVar

from forgetless.learn.method import Method


class Finetune(Method):
    """Plain gradient descent on the present task."""

    name: ClassVar[str] = "finetune"

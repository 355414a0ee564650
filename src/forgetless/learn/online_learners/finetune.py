"""Online fine-tuning: every batch is learned, nothing is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.streaming.learner import Learner


@dataclass
class Finetune(Learner):
    """Learn the stream's batches and nothing else."""

    name: ClassVar[str] = "finetune"

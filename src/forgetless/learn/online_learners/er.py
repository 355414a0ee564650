"""Experience replay from a reservoir.

Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019, arXiv 1902.10486.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.streaming.learner import Replaying


@dataclass
class ER(Replaying):
    """The mean loss of the stream's batch plus that of samples from the buffer."""

    name: ClassVar[str] = "er"

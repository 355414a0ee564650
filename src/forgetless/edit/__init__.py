"""Checkpoints edited with what is known about them: weights → weights, without training.

`repair` undoes what fine-tuning has damaged, on disk; `repaired` does so for state dicts. `merge` makes one model of
several of one architecture, on disk; `merged` does so for state dicts.
"""

from forgetless.edit.merge import merge, merged
from forgetless.edit.merging import METHODS
from forgetless.edit.repair import repair, repaired
from forgetless.edit.repairing import REPAIRS
from forgetless.edit.weight import Settings

__all__ = ["METHODS", "REPAIRS", "Settings", "merge", "merged", "repair", "repaired"]

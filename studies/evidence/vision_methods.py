"""The points of the vision study: every method at every strength, and what a user would get without a search."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless import Anchor, HoldShare, KeepAgreement, files
from forgetless.learn.heads import MultiHead
from forgetless.learn.method import Method
from forgetless.learn.methods.er import ER
from forgetless.learn.methods.frozen import Frozen
from forgetless.learn.methods.lwf import LwF
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.seeding import derive
from forgetless.learn.task import Task
from forgetless.model import batches
from studies.evidence.vision_scene import BATCH, Scene
from studies.given_anchor import GivenAnchor
from studies.repair_methods import blended, wise_ft

#: λ of the anchored methods, as multiples of the λ at which the whole training holds a quarter of the weights: a grid
#: that no accuracy has a part in. The outer two come last.
MULTIPLES = (1 / 8, 1 / 2, 2, 8, 1 / 32, 32)
#: λ of the methods with a term in the loss: around the 1 of LwF's and ER's papers.
WEIGHTS = (0.3, 1, 3, 10, 0.1, 30)
ALPHAS = (0.3, 0.5, 0.7, 0.85, 0.15, 0.95)
BLENDS = (0.03, 0.1, 0.3, 1, 0.01, 3)
#: The pictures that replay may keep; the share of the weights that MAS holds where WiSE-FT follows it.
REPLAYED, SHARE = 10, 0.25


@dataclass(frozen=True)
class Kind:
    """What a method is.

    Attributes:
        settings: its grid; the inner four first.
        setting: what its setting is called.
        data: what it sees of the old task.
        omega: which Ω it anchors by; None for a method that is no anchor.
    """

    settings: tuple[float, ...]
    setting: str
    data: str
    omega: str | None = None


_PICTURES = "300 training pictures, no labels"
#: In the order in which they run.
METHODS = {
    "WiSE-FT": Kind(ALPHAS, "α", "none"),
    "blend by Ω": Kind(BLENDS, "s", _PICTURES),
    "MAS, then WiSE-FT": Kind(ALPHAS, "α", _PICTURES),
    "MAS": Kind(MULTIPLES, "× λ¼", _PICTURES, "mas"),
    "KL on old pictures": Kind(WEIGHTS, "λ", f"{_PICTURES}, in every step"),
    "EWC": Kind(MULTIPLES, "× λ¼", f"{_PICTURES}: drawn from the model", "fisher"),
    "LwF": Kind(WEIGHTS, "λ", "none: old answers on the new pictures"),
    "L2-SP": Kind(MULTIPLES, "× λ¼", "none", "ones"),
    "replay of 10": Kind(WEIGHTS, "λ", "10 training pictures with labels, in every step"),
    "local MAS": Kind(MULTIPLES, "× λ¼", _PICTURES, "local mas"),
}
#: Points without a search: what a user gets by default.
DEFAULTS = ("HoldShare(0.25)", "auto", "half", "HoldShare(0.5)", "KeepAgreement(0.98)", "λ = 1")
#: The two ends of every frontier: fine-tuning and the frozen backbone.
ENDS = ("fine-tuned", "base")


def wanted(settings: int) -> Iterator[tuple[str, float]]:
    """The method and the setting of every point, in the order in which they run.

    Args:
        settings: how many of each method's settings, from the first on.
    """
    yield from ((method, 0) for method in (*ENDS, DEFAULTS[0]))
    for number, (method, kind) in enumerate(METHODS.items()):
        if number == 4:  # those before share their trainings, or are MAS
            yield from ((default, 0) for default in DEFAULTS[1:])
        yield from ((method, setting) for setting in kind.settings[:settings])


@dataclass
class OldAnswers(Method):
    """`λ KL(softmax(z*/τ) ‖ softmax(z/τ))` on a batch of old pictures, as large as the new one; z* before the new task.

    Attributes:
        pictures: unlabeled, of the old task.
        logits: z* of all of them.
        task: the old one.
        strength: λ.
        temperature: τ, that of LwF.
    """

    name: ClassVar[str] = "old-answers"
    pictures: Tensor = field(repr=False, kw_only=True)
    logits: Tensor = field(repr=False, kw_only=True)
    task: Task = field(repr=False, kw_only=True)
    strength: float = 1.0
    temperature: float = 2.0
    _model: Network | None = field(default=None, init=False, repr=False)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """λ and τ; the pictures are no setting."""
        return {"strength": self.strength, "temperature": self.temperature}

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Remember the network."""
        self._model = model

    def penalty(self, batch: Batch) -> Tensor:
        """How far the answers to some of the old pictures have moved."""
        assert self._model is not None
        chosen = torch.randperm(len(self.pictures))[: batches.size(batch)]
        now = self._model(self.pictures[chosen], self.task.name)
        return self.strength * self.task.objective.divergence(now, self.logits[chosen], self.temperature)


@torch.no_grad()
def old_answers(scene: Scene, strength: float) -> OldAnswers:
    """That method on all pictures that Ω was measured on."""
    pictures = scene.old.train[0]
    scene.model.eval()
    logits = torch.cat([scene.model(part, scene.old.name) for part in torch.split(pictures, BATCH)])
    return OldAnswers(strength, pictures=pictures, logits=logits, task=scene.old)


def replay(scene: Scene, strength: float) -> ER:
    """Replay of a few labeled pictures of the old task; the same ones at every λ."""
    method = ER(strength, memory=REPLAYED)
    with torch.random.fork_rng([]):
        torch.manual_seed(derive(scene.seed, "replayed"))
        method.end(scene.model, scene.old)
    return method


def anchored(scene: Scene, omega: str, strength: Any) -> Callable[[MultiHead], Method]:
    """Learning under an anchor by that Ω, at a λ or what chooses it."""
    return lambda model: GivenAnchor(Anchor(model, scene.omegas[omega], strength))


def model_of(scene: Scene, cache: Path, method: str, setting: float) -> MultiHead:
    """The model of a point.

    Args:
        scene: where it starts.
        cache: a folder for models that several points share.
        method: one of `ENDS`, `DEFAULTS` or `METHODS`.
        setting: of its grid; without meaning where there is none.
    """
    if method == "fine-tuned":
        return _cached(scene, cache / "fine-tuned.safetensors", lambda model: GivenAnchor(Anchor(model, None, 0.0)))
    if method == "HoldShare(0.25)":
        held = anchored(scene, "mas", HoldShare(SHARE, steps=scene.steps, of="weights"))
        return _cached(scene, cache / "held.safetensors", held)
    if method == "KeepAgreement(0.98)":
        dial = KeepAgreement(0.98, scene.probes, forward=_through(scene.old))
        return scene.trained(anchored(scene, "mas", dial), dial.settle)
    if method in ("WiSE-FT", "blend by Ω"):
        return _edited(scene, model_of(scene, cache, "fine-tuned", 0), method, setting)
    if method == "MAS, then WiSE-FT":
        return _edited(scene, model_of(scene, cache, "HoldShare(0.25)", 0), method, setting)
    return scene.trained(_trained_by(scene, method, setting))


def _trained_by(scene: Scene, method: str, setting: float) -> Callable[[MultiHead], Method]:
    if method == "base":
        return lambda _: Frozen()
    told = HoldShare(0.5, steps=scene.steps)
    defaults = {"λ = 1": 1.0, "auto": "auto", "half": HoldShare(0.5), "HoldShare(0.5)": told}
    if method in defaults:
        return anchored(scene, "mas", defaults[method])
    if method == "LwF":
        return lambda _: LwF(setting)
    if method == "KL on old pictures":
        return lambda _: old_answers(scene, setting)
    if method == "replay of 10":
        return lambda _: replay(scene, setting)
    omega = METHODS[method].omega
    assert omega is not None
    return anchored(scene, omega, setting * scene.holding(omega, SHARE))


def _through(task: Task) -> Callable[[nn.Module, Any], Tensor]:
    def forward(network: nn.Module, inputs: Any) -> Tensor:
        logits: Tensor = network(inputs, task.name)
        return logits

    return forward


def _edited(scene: Scene, model: MultiHead, method: str, setting: float) -> MultiHead:
    """The model with its backbone on the way back to the old one; the heads stay."""
    first, last = (
        {f"backbone.{name}": weights.detach() for name, weights in each.backbone.named_parameters()}
        for each in (scene.model, model)
    )
    repair = blended if method == "blend by Ω" else wise_ft
    model.load_state_dict(repair(scene.omegas["mas"], first, last, setting), strict=False)
    return model


def _cached(scene: Scene, path: Path, method: Callable[[MultiHead], Method]) -> MultiHead:
    """A trained model, from its file where there is one."""
    if not path.exists():
        model = scene.trained(method)
        files.write_tensors(path, model.state_dict(), "scene", {})
        return model
    model = copy.deepcopy(scene.model)
    model.grow(scene.new.name, scene.new.objective.outputs)
    model.load_state_dict(files.read_tensors(path, "scene")[0])
    return model

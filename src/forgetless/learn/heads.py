"""One backbone, its linear heads as the scenario has them, and how a new head starts."""

from __future__ import annotations

import functools
from urllib.parse import quote

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError

_ITERATIONS = 100


SCENARIOS = ("task", "domain", "class")


class MultiHead(nn.Module):
    """A shared backbone and linear heads: `logits = W · backbone(x) + b`.

    Which head answers for a task is the scenario (van de Ven and Tolias, "Three scenarios for continual learning",
    2019): "task", a head for each, so that whoever asks must name the task; "domain", one head for all, whose class c
    means the same throughout; "class", one head that grows by every task's classes and must tell all of them apart.

    Args:
        backbone: any module from inputs `[N, …]` to features `[N, features]`; it normalizes its inputs itself.
        features: the width of its output.
        pretrained: whether the backbone knows something before the first task. If not, it learns the first task
            whole, whatever the method.
        scenario: "task", "domain" or "class".

    Raises:
        ForgetlessError: there is no such scenario.
    """

    def __init__(self, backbone: nn.Module, features: int, *, pretrained: bool = False, scenario: str = "task") -> None:
        super().__init__()
        if scenario not in SCENARIOS:
            raise ForgetlessError(f"a scenario is 'task', 'domain' or 'class', not {scenario!r}.")
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        self.features = features
        self.pretrained = pretrained
        self.scenario = scenario
        self._first: dict[str, int] = {}  # task → the column of its first class
        self._frozen = False

    def grow(self, task: str, classes: int) -> None:
        """Make room for `task`, with the backbone's device and dtype: a head, more rows, or nothing, by the scenario.

        New weights are drawn from torch's global generator; old rows stay as they are.

        Raises:
            ForgetlessError: the task has a head already, fewer than one class, or in the domain scenario another
                number of classes than the head.
        """
        if classes < 1:
            raise ForgetlessError(f"the head of task {task!r} needs at least one class, not {classes}.")
        if task in self._first:
            raise ForgetlessError(f"task {task!r} has a head already.")
        key = self._key(task)
        old = dict(self.heads.items()).get(key)
        rows = old.out_features if isinstance(old, nn.Linear) else 0
        if self.scenario == "domain" and rows not in (0, classes):
            raise ForgetlessError(f"all tasks share a head of {rows} classes, and task {task!r} has {classes}.")
        self._first[task] = rows if self.scenario == "class" else 0
        if self.scenario == "domain" and rows:
            return
        like = next(self.backbone.parameters(), torch.empty(0))
        head = nn.Linear(self.features, rows + classes, device=like.device, dtype=like.dtype)
        if isinstance(old, nn.Linear):
            with torch.no_grad():
                head.weight[:rows], head.bias[:rows] = old.weight, old.bias
        self.heads[key] = head

    def head(self, task: str) -> nn.Linear:
        """The head that answers for `task`.

        Raises:
            ForgetlessError: there is none.
        """
        key = self._key(task)
        if key not in self.heads:
            known = ", ".join(repr(key) for key in self.heads) or "none"
            raise ForgetlessError(f"task {task!r} has no head; the heads are {known}.")
        head = self.heads[key]
        assert isinstance(head, nn.Linear)
        return head

    def forward(self, inputs: Tensor, task: str) -> Tensor:
        """Logits `[N, classes]` of the inputs `[N, …]` under the head that answers for `task`."""
        logits: Tensor = self.head(task)(self.backbone(inputs))
        return logits

    def first(self, task: str) -> int:
        """The column of the logits that is the task's class 0; other than 0 only where one head grows."""
        return self._first[task] if self.scenario == "class" else 0

    @property
    def unshared(self) -> tuple[str, ...]:
        """What a single task trains and no other, for `exclude=`: its own head, where each task has one."""
        return ("heads",) if self.scenario == "task" else ()

    @property
    def tasks(self) -> int:
        """How many tasks it has room for."""
        return len(self._first)

    @property
    def knows_something(self) -> bool:
        """Whether there is knowledge in the backbone: it is pretrained, or past its first task."""
        return self.pretrained or self.tasks > 1

    def _key(self, task: str) -> str:
        return _key(task) if self.scenario == "task" else "shared"

    def freeze(self, frozen: bool = True) -> None:
        """Freeze the backbone (no gradients, eval mode whatever `train` says), or let it learn again."""
        self._frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> MultiHead:
        """Set training mode, except for a frozen backbone: what it computes must not change."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def warm_start(model: MultiHead, task: str, inputs: Tensor, labels: Tensor, batch_size: int) -> None:
    """Fit the head of `task` to the features the backbone has now; nothing else changes.

    Multinomial logistic regression on the features in eval mode: with z = (f − μ)/σ, σ² the features' mean
    variance, the minimum of `1/N Σ_n −log softmax(V z_n + c)[y_n] + 1/(2N) ‖V‖²` (scikit-learn's C = 1), found
    by L-BFGS from zero, so that no random number is used; then `W = V/σ, b = c − W μ`. One σ for all features:
    with each one's own, a feature that hardly varies gets a huge weight, and the first steps through it wreck
    the backbone. Training on from a fitted head distorts
    features less than from a random one (Kumar et al., "Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution", ICLR 2022).

    Args:
        model: the network, with a head for `task`.
        task: the task's name.
        inputs: its training inputs `[N, …]`.
        labels: its training labels `[N]`.
        batch_size: inputs that pass through the backbone at once.

    Raises:
        ForgetlessError: the backbone's features are not finite, or not `[N, features]`.
    """
    head = model.head(task)
    features = _features(model, inputs, batch_size)
    if features.shape != (len(inputs), model.features):
        raise ForgetlessError(
            f"the backbone gives {list(features.shape)} for {len(inputs)} inputs of task {task!r}, "
            f"not [{len(inputs)}, {model.features}]."
        )
    if not bool(torch.isfinite(features).all()):
        raise ForgetlessError(f"the backbone's features of task {task!r} hold NaN or Inf.")
    mean = features.mean(0)
    deviation = (features - mean).square().mean().sqrt()
    if deviation <= 1e-6 * features.abs().max():  # constant features, up to rounding
        deviation = torch.ones_like(deviation)
    weight, bias = _logistic_regression((features - mean) / deviation, labels.to(features.device), head.out_features)
    with torch.no_grad():
        head.weight.copy_(weight / deviation)
        head.bias.copy_(bias - (weight / deviation) @ mean)


@torch.no_grad()
def _features(model: MultiHead, inputs: Tensor, batch_size: int) -> Tensor:
    """What the backbone gives in eval mode, `[N, features]`, in float32 or wider."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    features = torch.cat([model.backbone(batch.to(device)) for batch in torch.split(inputs, batch_size)])
    model.train(training)
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _logistic_regression(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The minimum of `1/N Σ cross-entropy + 1/(2N) ‖V‖²`: V `[classes, features]` and c `[classes]`."""
    weight = features.new_zeros(classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels)
        loss = loss + weight.square().sum() / (2 * len(labels))
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


@functools.cache
def _key(task: str) -> str:
    """The task's name as a key `nn.ModuleDict` takes: no dots, not empty, none of its attributes' names."""
    key = quote(task, safe=" ").replace(".", "%2E")
    return f"{key}%" if not key or hasattr(nn.ModuleDict(), key) else key

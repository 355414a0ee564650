"""Encoder-Based Lifelong Learning: keep the old answers, and what of the features each old task was about.

Rannen Triki, Aljundi, Blaschko, Tuytelaars, "Encoder Based Lifelong Learning", ICCV 2017, arXiv 1704.01920.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.learn.families.distilled import Distilled
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task

_BATCH = 128


@dataclass
class EBLL(Distilled):
    """Learning without Forgetting, plus `λ α/2 Σ_k ‖c_k(f) − c_k(f*)‖²`: f the features now, f* those before the task.

    The code `c_k(f) = σ(W_k f + b_k)` is that of an autoencoder of one hidden layer, fitted when task k ends to rebuild
    the features in such a way that the task's head still answers rightly:
    `‖r(f) − f‖² / ‖f‖² + cross-entropy(head(r(f)), y)`. Memory: a copy of the network, and the encoder of every task.

    What differs from the paper: the autoencoder is fitted by Adam on features in eval mode, their scale divided out;
    its two losses weigh alike; what decodes is thrown away once the encoder is fitted.

    Attributes:
        strength: λ, of both parts; the paper's 1 for the answers.
        temperature: τ; 2, as in Learning without Forgetting.
        alpha: α; not tuned.
        code: how many numbers a code has; the paper takes 100 or 300 for AlexNet's features.
        fitting: steps in which an autoencoder is fitted, each on 128 samples.
    """

    name: ClassVar[str] = "ebll"
    alpha: float = 1.0
    code: int = 100
    fitting: int = 300
    _encoders: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def distance(self, features: Tensor, remembered: Tensor) -> Tensor:
        """How far the old answers and the codes of the old tasks have moved."""
        total = super().distance(features, remembered)
        for weight, bias in self._encoders.values():
            now, then = (torch.sigmoid(F.linear(each, weight, bias)) for each in (features, remembered))
            total = total + self.alpha / 2 * (now - then).square().sum(1).mean()
        return total

    def end(self, model: MultiHead, task: Task) -> None:
        """Let the copy go, and fit the task's encoder."""
        super().end(model, task)
        if self.strength:
            self._encoders[task.name] = self._fit(model, task)

    def state(self) -> dict[str, Tensor]:
        """The encoders, and inside a task the copy."""
        encoders = {
            f"encoder.{kind}.{name}": tensor
            for name, encoder in self._encoders.items()
            for kind, tensor in zip(("weight", "bias"), encoder, strict=True)
        }
        return {**super().state(), **encoders}

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take the copy and the encoders back."""
        super().load_state(model, tensors)
        device = next(model.parameters()).device
        names = [key.removeprefix("encoder.bias.") for key in tensors if key.startswith("encoder.bias.")]
        self._encoders = {
            name: (tensors[f"encoder.weight.{name}"].to(device), tensors[f"encoder.bias.{name}"].to(device))
            for name in names
        }

    @torch.enable_grad()
    def _fit(self, model: MultiHead, task: Task) -> tuple[Tensor, Tensor]:
        """W `[code, features]` and b `[code]` of the task's encoder."""
        head = model.head(task.name)
        features, labels = _features(model, task.train[0]), task.train[1].to(head.weight.device)
        scale = features.square().mean().sqrt().clamp_min(1e-12)
        z = features / scale
        encoder = torch.nn.Linear(model.features, self.code, device=z.device, dtype=z.dtype)
        decoder = torch.nn.Linear(self.code, model.features, device=z.device, dtype=z.dtype)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-2)
        for _ in range(self.fitting):
            chosen = torch.randint(len(labels), (min(_BATCH, len(labels)),))
            rebuilt = decoder(torch.sigmoid(encoder(z[chosen])))
            logits = F.linear(rebuilt * scale, head.weight.detach(), head.bias.detach())
            loss = F.mse_loss(rebuilt, z[chosen]) + F.cross_entropy(logits, labels[chosen] + model.first(task.name))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        return encoder.weight.detach() / scale, encoder.bias.detach()


@torch.no_grad()
def _features(model: MultiHead, inputs: Tensor) -> Tensor:
    """What the backbone gives in eval mode, `[N, features]`."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    features = torch.cat([model.backbone(batch.to(device)) for batch in torch.split(inputs, _BATCH)])
    model.train(training)
    return features

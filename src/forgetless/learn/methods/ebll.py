"""Encoder-Based Lifelong Learning: keep the old outputs, and the part of the features that each old task used.

Rannen Triki, Aljundi, Blaschko, Tuytelaars, "Encoder Based Lifelong Learning", ICCV 2017, arXiv 1704.01920.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from forgetless.learn.families.distilled import Distilled
from forgetless.learn.families.state import on_device_of, pack, unpack
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.model import batches

_BATCH = 128


@dataclass
class EBLL(Distilled):
    """Learning without Forgetting, plus `λ α/2 Σ_k ‖c_k(f) − c_k(f*)‖²`: f the features now, f* those before the task.

    The code `c_k(f) = σ(W_k f + b_k)`, W_k `[code, features]`, is that of an autoencoder of one hidden layer, fitted
    when task k ends so that it rebuilds the features and the task's head still gives the right outputs for them:
    `‖r(f) − f‖² / ‖f‖² + loss(head(r(f)), y)`. Memory: a copy of the network, and the encoder of every task.

    Differences from the paper: the autoencoder is fitted by Adam on features in eval mode, divided by their scale; its
    two losses have the same weight; the decoder is not kept.

    Attributes:
        strength: λ, of both parts; the paper's 1 for the outputs.
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
        """How far the old outputs and the codes of the old tasks have moved."""
        total = super().distance(features, remembered)
        for weight, bias in self._encoders.values():
            now, then = (torch.sigmoid(F.linear(each, weight, bias)) for each in (features, remembered))
            total = total + self.alpha / 2 * (now - then).square().sum(-1).mean()
        return total

    def end(self, model: Network, task: Task) -> None:
        """Drop the copy, and fit the task's encoder."""
        super().end(model, task)
        if self.strength:
            self._encoders[task.name] = self._fit(model, task)

    def state(self) -> dict[str, Tensor]:
        """The encoders, and inside a task the copy."""
        encoders = {name: {"weight": weight, "bias": bias} for name, (weight, bias) in self._encoders.items()}
        return {**super().state(), **pack({"encoder": encoders})}

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take the copy and the encoders back."""
        super().load_state(model, tensors, tasks)
        kept = on_device_of(model, unpack(tensors).get("encoder", {}))
        self._encoders = {name: (each["weight"], each["bias"]) for name, each in kept.items()}

    @torch.enable_grad()
    def _fit(self, model: Network, task: Task) -> tuple[Tensor, Tensor]:
        """W `[code, features]` and b `[code]` of the task's encoder."""
        features = _features(model, task)
        scale = features.square().mean().sqrt().clamp_min(1e-12)
        z = features / scale
        head, width, count = model.head(task.name), z.shape[-1], len(z)
        fixed = {name: weights.detach() for name, weights in head.named_parameters()}
        encoder = torch.nn.Linear(width, self.code, device=z.device, dtype=z.dtype)
        decoder = torch.nn.Linear(self.code, width, device=z.device, dtype=z.dtype)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-2)
        for _ in range(self.fitting):
            chosen = torch.randint(count, (min(_BATCH, count),))
            rebuilt = decoder(torch.sigmoid(encoder(z[chosen])))
            batch = batches.mapped(task.samples.take(chosen), lambda tensor: tensor.to(z.device))
            outputs = functional_call(head, fixed, (rebuilt * scale,))
            losses = task.objective.losses(model, task.name, outputs, batch)
            loss = F.mse_loss(rebuilt, z[chosen]) + losses.mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        return encoder.weight.detach() / scale, encoder.bias.detach()


@torch.no_grad()
def _features(model: Network, task: Task) -> Tensor:
    """The backbone's features of the training samples in eval mode, `[N, …, features]`."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    features = [
        model.backbone(batches.mapped(batches.inputs(batch), lambda tensor: tensor.to(device)))
        for batch in task.samples.batches(_BATCH)
    ]
    model.train(training)
    return torch.cat(features)

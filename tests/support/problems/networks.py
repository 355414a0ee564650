"""Small whole networks of the common kinds; their activations may have kinks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.vgg import make_layers

from forgetless.lab.networks import pretrained
from problems.models import BERT, GPT, Llama, RecurrentLM, UNet, WindowedAttention
from problems.problem import Batch, Problem, ids, module


def network(name: str, build: Callable[[], nn.Module], batch: Batch, **options: Any) -> Problem:
    """A whole network on a batch."""
    return module(name, "network", build, batch, **options)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 5))


def lenet() -> nn.Module:
    features = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(True))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(128, 10))


def alexnet() -> nn.Module:
    """AlexNet's layout, narrow."""
    first = nn.Sequential(nn.Conv2d(3, 8, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2))
    more = nn.Sequential(nn.Conv2d(8, 12, 5, padding=2), nn.ReLU(True), nn.AdaptiveAvgPool2d(3), nn.Flatten())
    return nn.Sequential(first, more, nn.Dropout(), nn.Linear(108, 16), nn.ReLU(True), nn.Linear(16, 5))


def vgg() -> nn.Module:
    """VGG's layout, narrow."""
    return nn.Sequential(make_layers([8, "M", 12, 12, "M"], True), nn.Flatten(), nn.Linear(192, 5))


def mobilenet_v3() -> nn.Module:
    settings = [
        InvertedResidualConfig(8, 3, 16, 8, True, "RE", 2, 1, 1),
        InvertedResidualConfig(8, 5, 24, 8, True, "HS", 1, 1, 1),
    ]
    return MobileNetV3(settings, 32, 5)


def efficientnet() -> nn.Module:
    return EfficientNet([MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(4, 5, 2, 8, 12, 2)], 0.2, num_classes=5)


def lite0() -> nn.Module:
    """A real network: weights that were trained on ImageNet, as a package carries them, and a head."""
    return nn.Sequential(pretrained.efficientnet_lite0(), nn.Linear(1280, 5))


def photographs() -> torch.Tensor:
    """Smooth pictures of 0 … 255."""
    return nn.functional.interpolate(255 * torch.rand(2, 3, 4, 4), size=(32, 32), mode="bicubic").clamp(0, 255)


def padded() -> dict[str, torch.Tensor]:
    """Texts of 8, 3, 5 and 8 tokens."""
    mask = torch.arange(8) < torch.tensor([[8], [3], [5], [8]])
    tokens, segments = ids(17, 4, 8)(), ids(2, 4, 8)()
    return {"input_ids": tokens, "attention_mask": mask.long(), "token_type_ids": segments, "labels": ids(2, 4)()}


_models = torchvision.models
_mobilenet_v2 = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]

NETWORKS = [
    network("MLP", mlp, (16, 1, 6, 6)),
    network("LeNet", lenet, (8, 1, 16, 16)),
    network("AlexNet, narrow", alexnet, (3, 3, 63, 63)),
    network("VGG with batch norm, narrow", vgg, (3, 3, 16, 16)),
    network("EfficientNet-Lite0 with its ImageNet weights", lite0, photographs, trained=True),
    network("ResNet-18", partial(_models.resnet18, num_classes=7), (2, 3, 32, 32)),
    network("SqueezeNet 1.1", partial(_models.squeezenet1_1, num_classes=5), (2, 3, 48, 48)),
    network("DenseNet, small", partial(_models.DenseNet, 4, (2, 2), 8, 2, num_classes=5), (3, 3, 32, 32)),
    network("MobileNetV2, narrow", partial(_models.MobileNetV2, 5, 0.35, _mobilenet_v2), (3, 3, 32, 32)),
    network("MobileNetV3, small", mobilenet_v3, (3, 3, 32, 32)),
    network("ShuffleNetV2, narrow", partial(_models.ShuffleNetV2, [2, 2, 2], [8, 16, 24, 32, 40], 5), (2, 3, 32, 32)),
    network("EfficientNet, small", efficientnet, (3, 3, 32, 32)),
    network(
        "ConvNeXt, small", partial(ConvNeXt, [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)]), (3, 3, 32, 32)
    ),
    network("U-Net", UNet, (3, 3, 8, 8)),
    network("ViT, small", partial(_models.VisionTransformer, 16, 4, 2, 2, 8, 16, num_classes=5), (3, 3, 16, 16)),
    network("Swin, small", partial(_models.SwinTransformer, [2, 2], 8, [2, 2], [2, 4], [4, 4]), (2, 3, 32, 32)),
    network("windowed attention", WindowedAttention, (3, 8, 6)),
    network("GPT with a tied head and a position table", GPT, ids(19, 4, 9)),
    network("Llama", Llama, ids(15, 4, 7)),
    network("BERT on padded texts", BERT, padded),
    network("LSTM language model", partial(RecurrentLM, nn.LSTM, True, num_layers=2), ids(13, 4, 6)),
    network(
        "GRU language model, samples second", partial(RecurrentLM, nn.GRU, False, bidirectional=True), ids(13, 4, 6)
    ),
]

"""torchvision's Faster R-CNN, with and without the two lines: what finds bright squares learns to find dark disks.

python examples/detection.py          (pip install '.[vision]' in the clone; a pretrained detector takes the same lines)
"""

import copy

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, box_iou

import forgetless
from forgetless.integrations.torchvision import detector_outputs

SIDE, STEPS, (y, x) = 48, 100, torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
LOW, SPAN = torch.tensor([6, 10, 10]), torch.tensor([3, 28, 28])  # of half a shape's size, and of its middle


def pictures(kind: int, count: int, seed: int):  # of gray noise with one shape: 1, a bright square, or 2, a dark disk
    draw, found, targets = torch.Generator().manual_seed(seed), [], []
    for half, cy, cx in (LOW + SPAN * torch.rand(count, 3, generator=draw)).int():
        inside = (y - cy).abs().maximum((x - cx).abs()) < half if kind == 1 else (y - cy) ** 2 + (x - cx) ** 2 < half**2
        found.append((0.1 * torch.randn(3, SIDE, SIDE, generator=draw) + 0.5 + (1.5 - kind) * inside).clamp(0, 1))
        box = torch.stack([cx - half, cy - half, cx + half, cy + half]).float()
        targets.append({"boxes": box[None], "labels": torch.tensor([1])})
    return found, targets


def train(model: nn.Module, kind: int, optimizer: torch.optim.Optimizer) -> None:  # any loop: it has no forgetless
    for step in range(STEPS):
        optimizer.zero_grad()
        sum(model.train()(*pictures(kind, 8, 1000 * kind + step)).values()).backward()
        optimizer.step()


@torch.no_grad()
def right(model: nn.Module, kind: int) -> float:  # of the surest boxes: those with an overlap of a half, percent
    images, targets = pictures(kind, 200, 1)
    pairs = zip(model.eval()(images), targets, strict=True)
    return 0.5 * sum(bool((box_iou(answer["boxes"][:1], target["boxes"]) > 0.5).any()) for answer, target in pairs)


torch.manual_seed(0)
backbone = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 4, 1), nn.ReLU())
backbone.out_channels = 32
head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 16, 64), nn.ReLU())
parts = {"box_head": head, "box_predictor": FastRCNNPredictor(64, 2), "box_roi_pool": MultiScaleRoIAlign(["0"], 4, 2)}
sizes = {"min_size": SIDE, "max_size": SIDE, "rpn_post_nms_top_n_test": 50, "rpn_post_nms_top_n_train": 100}
first = FasterRCNN(backbone, rpn_anchor_generator=AnchorGenerator(((16,),), ((1.0,),)), **sizes, **parts)
train(first, 1, torch.optim.AdamW(first.parameters(), lr=2e-3))
for name in ("plain fine-tuning", "with forgetless"):
    optimizer = torch.optim.AdamW((model := copy.deepcopy(first)).parameters(), lr=1e-3)
    if name == "with forgetless":
        importance = forgetless.mas(model, [pictures(1, 30, 2)], forward=detector_outputs)
        forgetless.Anchor(model, importance).attach(optimizer)
    train(model, 2, optimizer)
    print(f"{name:>17}: squares {right(first, 1):.0f} % → {right(model, 1):.0f} %, disks {right(model, 2):.0f} %")

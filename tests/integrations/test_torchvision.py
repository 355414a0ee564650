"""torchvision's detectors: what their heads compute is measured, picture by picture, and Lightning protects it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

pytest.importorskip("torchvision")

from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

import forgetless
from forgetless.integrations.torchvision import detector_outputs

SIDE = 24
DRAW = torch.Generator().manual_seed(0)
UNEQUAL = [torch.rand(3, SIDE, SIDE - 3 * n, generator=DRAW, dtype=torch.float64) for n in range(3)]
EQUAL = torch.rand(3, 3, SIDE, SIDE, generator=DRAW, dtype=torch.float64)
TARGET = {"boxes": torch.tensor([[2.0, 2.0, 14.0, 14.0]], dtype=torch.float64), "labels": torch.tensor([1])}


def backbone() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
    made.out_channels = 4  # type: ignore[assignment]
    return made


def faster() -> FasterRCNN:
    return FasterRCNN(
        backbone(),
        min_size=SIDE,
        max_size=SIDE,
        rpn_anchor_generator=AnchorGenerator(((8, 12),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 2, 2),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU()),
        box_predictor=FastRCNNPredictor(6, 3),
    ).double()


def by_parts(model: FasterRCNN, picture: Tensor) -> Tensor:
    """`‖F‖²` of one picture, by the detector's parts one after the other."""
    images, _ = model.transform([picture])
    features = {"0": model.backbone(images.tensors)}
    scores, deltas = model.rpn.head(list(features.values()))
    proposals, _ = model.rpn(images, features)
    pooled = model.roi_heads.box_roi_pool(features, proposals, images.image_sizes)
    classes, boxes = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    return torch.stack([each.square().sum() for each in (*scores, *deltas, classes, boxes)]).sum()


def expected(pictures: Any) -> dict[str, Tensor]:
    model = faster().eval()
    names, parameters = zip(*model.named_parameters(), strict=True)
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for picture in pictures:
        for total, gradient in zip(sums, torch.autograd.grad(by_parts(model, picture), parameters), strict=True):
            total += gradient.abs() / len(pictures)
    return dict(zip(names, sums, strict=True))


class Pictures(Dataset[Any]):
    def __init__(self, pictures: Any) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> Any:
        return self.pictures[number], TARGET


def apart(samples: list[Any]) -> Any:
    return tuple(zip(*samples, strict=True))


@pytest.mark.parametrize(
    ("pictures", "data", "options"),
    [
        (UNEQUAL, DataLoader(Pictures(UNEQUAL), batch_size=2, collate_fn=apart), {}),
        (UNEQUAL, Pictures(UNEQUAL), {"collate_fn": apart}),
        (UNEQUAL, [(UNEQUAL, None)], {}),
        (EQUAL, EQUAL, {"batch_size": 1}),
        (EQUAL, Pictures(EQUAL), {"batch_size": 1}),
    ],
    ids=["loader", "collate_fn", "lists", "tensor", "Dataset"],
)
def test_a_picture_is_a_sample(pictures: Any, data: Any, options: dict[str, Any]) -> None:
    found = forgetless.mas(faster(), data, forward=detector_outputs, progress=False, **options)
    assert found.count == 3
    assert not found.unused
    for name, omega in expected(pictures).items():
        torch.testing.assert_close(found.mean()[name], omega, rtol=1e-10, atol=1e-12)


def test_stacked_pictures_are_followed_or_measured_alone() -> None:
    with pytest.warns(UserWarning, match="parameters are measured one sample at a time"):
        found = forgetless.mas(faster(), EQUAL, forward=detector_outputs, progress=False)
    for name, omega in expected(EQUAL).items():
        torch.testing.assert_close(found.mean()[name], omega, rtol=1e-10, atol=1e-12)


def test_the_other_detectors_have_heads_too() -> None:
    model = RetinaNet(backbone(), 2, 16, 24, anchor_generator=AnchorGenerator(((8,),), ((1.0,),))).double()
    found = forgetless.mas(model, [(UNEQUAL, None)], forward=detector_outputs, progress=False)
    assert not found.unused


def test_detections_are_no_output_that_can_be_measured() -> None:
    with pytest.raises(
        forgetless.ForgetlessError, match=r"is a list of detections, .* forward=forgetless\.integrations"
    ):
        forgetless.mas(faster(), EQUAL, progress=False)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.ModuleList([faster(), faster()])], ids=["none", "two"])
def test_what_has_no_detector_is_refused(model: nn.Module) -> None:
    with pytest.raises(forgetless.ForgetlessError, match=r"has (no|2) detectors of torchvision"):
        detector_outputs(model, (UNEQUAL, None))


def test_in_a_lightning_module() -> None:
    lightning = pytest.importorskip("lightning")
    from forgetless.integrations.lightning import ForgetlessCallback

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.detector = faster()

        def training_step(self, batch: Any, number: int) -> Tensor:
            return torch.stack(list(self.detector(*batch).values())).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    loader = DataLoader(Pictures(UNEQUAL), batch_size=2, collate_fn=apart)
    callback = ForgetlessCallback(loader, forward=detector_outputs)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    where = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False}
    lightning.Trainer(max_steps=3, callbacks=[callback], **quiet, **where).fit(Module(), loader)
    assert callback.anchor is not None
    assert callback.anchor.status().steps == 3
    for name, omega in expected(UNEQUAL).items():
        torch.testing.assert_close(callback.anchor.importance[f"detector.{name}"], omega)

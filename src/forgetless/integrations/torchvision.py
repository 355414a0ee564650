"""Detectors of torchvision: what of them is measured.

A detector answers with lists of boxes, of which there are as many as scores above a threshold leave after the
suppression of those that overlap. None may be left, and so these answers are no F. What its heads compute before is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from forgetless.errors import ForgetlessError
from forgetless.model import batches

_DETECTORS = (GeneralizedRCNN, RetinaNet, FCOS, SSD)  # Faster, Mask and Keypoint R-CNN are the first
_HEADS = ("rpn.head", "roi_heads.box_predictor", "roi_heads.mask_predictor", "roi_heads.keypoint_predictor", "head")


def detector_outputs(model: nn.Module, batch: Any) -> Tensor:
    """What the heads of a detector compute for each picture, in a row: F, for `forward=`.

        importance = forgetless.mas(detector, old_loader, forward=detector_outputs)

    Of Faster R-CNN these are the objectness and the box of every anchor, and the class scores and boxes of every
    proposal (Mask and Keypoint R-CNN: and what they say of each box found); of RetinaNet, FCOS and SSD the class scores
    and boxes of every anchor. `‖F‖²` is the sum of all their squares. Which proposals there are is a constant, as in
    training.

    Args:
        model: one of torchvision's detectors, or a module that has one, such as a `LightningModule`.
        batch: pictures `[C, H, W]` in a list that comes first in a tuple, or `[N, C, H, W]`. A batch of such a list is
            measured one picture at a time, so that pictures of any sizes go together.

    Returns:
        `[N, D]`, with zeros behind the outputs of a picture that has fewer proposals than another.

    Raises:
        ForgetlessError: no detector of torchvision, or several.
    """
    found = [each for each in model.modules() if isinstance(each, _DETECTORS)]
    if len(found) != 1:
        raise ForgetlessError(
            f"{type(model).__name__} has {len(found) or 'no'} detectors of torchvision (Faster, Mask or Keypoint "
            "R-CNN, RetinaNet, FCOS, SSD); give a forward= of your own, which returns what its heads compute, [N, …]."
        )
    return pad_sequence([_of(found[0], picture) for picture in batches.inputs(batch)], batch_first=True)


def _of(detector: nn.Module, picture: Tensor) -> Tensor:
    """What the heads compute for one picture, `[D]`."""
    outputs: list[Tensor] = []
    modules = dict(detector.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda _, __, result: outputs.extend(batches.tensors(result)))
        for name in _HEADS
        if name in modules
    ]
    try:
        detector([picture])
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([each.flatten() for each in outputs])

from __future__ import annotations

import pytest
import torch

from forgetless.lab.networks.residual import resnet18, three_layers
from forgetless.learn.streaming.groups import groups_of


@pytest.mark.parametrize(("size", "stem"), [(32, (3, 1)), (64, (7, 2))])
def test_resnet18_is_resnet18(size: int, stem: tuple[int, int]) -> None:
    """As many weights as torchvision's, but for the head and the first convolution of small pictures."""
    torchvision = pytest.importorskip("torchvision.models")
    model = resnet18(0, size=size)
    theirs = torchvision.resnet18(num_classes=5)
    theirs.conv1 = torch.nn.Conv2d(3, 64, *stem, bias=False)
    theirs.fc = torch.nn.Identity()
    count = [sum(each.numel() for each in network.parameters()) for network in (model.backbone, theirs)]
    assert count[0] == count[1]
    maps = model.backbone[:-2](torch.zeros(2, 3, size, size, dtype=torch.uint8))
    assert maps.shape == (2, 512, 4 if size == 32 else 2, 4 if size == 32 else 2)


def test_the_weights_are_the_seeds_and_the_groups_the_stages() -> None:
    one, same, other = resnet18(1, width=4), resnet18(1, width=4), resnet18(2, width=4)
    first = [next(each.parameters()) for each in (one, same, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    one.grow("task", 2)
    assert list(groups_of(one, 6)) == ["stem", "layer1", "layer2", "layer3", "layer4", "heads"]
    assert list(groups_of(one, 5)) == ["stem", "layer2", "layer3", "layer4", "heads"]


def test_three_layers_take_pictures_of_any_size() -> None:
    model = three_layers(0)
    for size in (32, 28, 64):
        assert model.backbone(torch.zeros(2, 3, size, size, dtype=torch.uint8)).shape == (2, 512)

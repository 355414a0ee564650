"""The networks that start from scratch."""

from __future__ import annotations

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.networks.scratch import Augment, small_vgg, wide_resnet


def test_sizes_and_shapes() -> None:
    resnet, vgg = wide_resnet(0), small_vgg(0)
    assert (
        sum(p.numel() for p in resnet.backbone.parameters()) == 1_467_610 - 1_290
    )  # as published, without ten classes
    assert sum(1 for p in resnet.backbone.modules() if isinstance(p, torch.nn.Conv2d)) == 1 + 24 + 3
    resnet.eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert resnet.backbone(pixels).shape == (2, 128)
    assert vgg.backbone(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).shape == (2, 128)


def test_a_seed_draws_the_weights_and_nothing_else() -> None:
    state = torch.get_rng_state()
    for make in (lambda seed: wide_resnet(seed, depth=10), small_vgg):
        one, same, other = (make(seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_augmented_picture_is_a_window_of_the_padded_one() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(1, 256, (40, 3, 6, 5), dtype=torch.uint8)
    augment = Augment(2)
    found = augment(pictures)
    assert (found.shape, found.dtype) == (pictures.shape, pictures.dtype)
    seen = set()
    for picture, cut in zip(pictures, found, strict=True):
        padded = torch.nn.functional.pad(picture, (2, 2, 2, 2))
        windows = {
            (row, column, mirrored): window.flip(2) if mirrored else window
            for row in range(5)
            for column in range(5)
            for mirrored in (False, True)
            for window in [padded[:, row : row + 6, column : column + 5]]
        }
        (where,) = [key for key, window in windows.items() if torch.equal(window, cut)]
        seen.add(where)
    assert len(seen) > 20
    augment.eval()
    assert augment(pictures) is pictures


@pytest.mark.parametrize("depth", [-2, 4, 9, 11, 27])
def test_a_depth_that_no_such_network_has(depth: int) -> None:
    with pytest.raises(ForgetlessError) as caught:
        wide_resnet(0, depth=depth)
    assert str(caught.value) == f"the depth of a wide residual network is 10, 16, 22, 28, …, not {depth}."

from __future__ import annotations

import torch

from forgetless.lab.networks.parts.normalize import Normalize


def test_pictures_are_normalized_channel_by_channel_and_laid_out_channels_last() -> None:
    pictures = torch.randint(0, 256, (4, 3, 5, 7), dtype=torch.uint8)
    normalized = Normalize((10.0, 20.0, 30.0), (2.0, 4.0, 8.0))(pictures)
    for channel, (mean, std) in enumerate(((10, 2), (20, 4), (30, 8))):
        torch.testing.assert_close(normalized[:, channel], (pictures[:, channel].float() - mean) / std)
    assert normalized.is_contiguous(memory_format=torch.channels_last)

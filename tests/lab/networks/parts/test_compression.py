from __future__ import annotations

import torch
from torch.nn import functional as F

from forgetless.lab.networks.parts.compression import COMPRESSORS, Decoder, autoencoding_loss, compressor


def old(count: int = 12) -> torch.Tensor:
    return torch.randn(2, count, 4, generator=torch.Generator().manual_seed(count))


def test_the_convolution_is_torchs() -> None:
    found = compressor("conv", 4, 3, "attention")
    weight, bias = found.convolution.weight, found.convolution.bias
    wanted = F.conv1d(old().transpose(1, 2), weight, bias, stride=3).transpose(1, 2)
    torch.testing.assert_close(found(old()), wanted)


def test_the_dilated_convolution_is_torchs() -> None:
    """12 memories at a rate of 3: four results, of memories that are 4 apart."""
    found = compressor("dilated", 4, 3, "attention")
    weight, bias = found.convolution.weight, found.convolution.bias
    wanted = F.conv1d(old().transpose(1, 2), weight, bias, dilation=4).transpose(1, 2)
    torch.testing.assert_close(found(old()), wanted)
    torch.testing.assert_close(found(old(3)), compressor_like(found)(old(3)))


def compressor_like(found: torch.nn.Module) -> torch.nn.Module:
    """A convolution with the weights of a dilated one."""
    other = compressor("conv", 4, 3, "attention")
    other.load_state_dict(found.state_dict())
    return other


def test_pools_by_hand() -> None:
    groups = old().view(2, 4, 3, 4)
    torch.testing.assert_close(compressor("mean", 4, 3, "none")(old()), groups.sum(2) / 3)
    torch.testing.assert_close(compressor("max", 4, 3, "none")(old()), groups.max(2).values)


def test_the_most_used_stay_as_they_are_in_their_order() -> None:
    attention = torch.tensor([[0.1, 0.9, 0.2, 0.3, 0.8, 0.0], [0.7, 0.0, 0.0, 0.0, 0.1, 0.9]])
    found = compressor("most-used", 4, 3, "none")(old(6), attention)
    torch.testing.assert_close(found, torch.stack([old(6)[0, [1, 4]], old(6)[1, [0, 5]]]))


def test_auto_encoding_of_what_can_be_restored_is_free() -> None:
    """A compressor and a decoder that are each other's inverse, of memories that are alike in a group."""
    found, decoder = compressor("conv", 4, 3, "autoencoding"), Decoder(4, 3)
    alike = torch.randn(2, 2, 1, 4).expand(-1, -1, 3, -1).flatten(1, 2)
    with torch.no_grad():
        for parameter in (*found.parameters(), *decoder.parameters()):
            parameter.zero_()
        found.convolution.weight.copy_(torch.eye(4)[..., None].expand(-1, -1, 3) / 3)
        decoder.convolution.weight.copy_(torch.eye(4)[..., None].expand(-1, -1, 3))
        assert float(autoencoding_loss(decoder, alike, found(alike))) < 1e-12
        assert float(autoencoding_loss(decoder, old(), found(old()))) > 0.1


def test_every_compressor_is_here() -> None:
    assert list(COMPRESSORS) == ["max", "mean", "conv", "dilated", "most-used"]

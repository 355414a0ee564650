"""The key of a picture, by the network of a trained run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.decoding import decode_one
from forgetless.lab.datasets.reading.fact import PARTS
from forgetless.lab.facts.forked import forked
from forgetless.lab.facts.kept import Header
from forgetless.lab.networks.pretrained import pretrained
from forgetless.learn.facts import picture_keys


class Pictured:
    """The trained network of a run.

    Args:
        header: names the backbone, and the size of its pictures.
        method: whose run it is.
        dimensions: D, of the vectors of words.
        weights: the network's, by name.

    Raises:
        ForgetlessError: no network has that name, its packages are not installed, or the weights are not its own.
    """

    def __init__(self, header: Header, method: str, dimensions: int, weights: Mapping[str, np.ndarray]) -> None:
        start = pretrained(header.network)
        network = forked(start.backbone, start.features, dimensions, 0)
        try:
            network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        except RuntimeError as error:
            raise ForgetlessError(f"the weights of {method} do not fit {header.network}.") from error
        self._network, self._size = network.eval(), header.size

    def key(self, picture: Path) -> np.ndarray:
        """The key of a picture, float32 `[1, P·D]`.

        Raises:
            ForgetlessError: the picture cannot be read.
        """
        pixels = decode_one(picture, self._size)[None]
        with torch.no_grad():
            found: np.ndarray = picture_keys(self._network(pixels, "asked").float(), len(PARTS)).numpy()
        return found

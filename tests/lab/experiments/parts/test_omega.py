from __future__ import annotations

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts.omega import SOURCES, create, elsewhere
from forgetless.learn import methods
from forgetless.learn.classification import classes_of
from streams import network, stream

TASK = stream(1)[0]


@pytest.mark.parametrize("name", ["mas", "local-mas"])
@pytest.mark.parametrize("source", SOURCES)
def test_omega_is_that_of_the_chosen_inputs(name: str, source: str) -> None:
    model = network()
    model.grow(TASK.name, len(classes_of(TASK)))
    measured = create(source, name, 0.5)
    assert (measured.name, measured.strength) == (name, 0.5)
    found = measured.measure(model, TASK)  # type: ignore[attr-defined]
    inputs = {"train": TASK.train[0], "test": TASK.test[0], "both": torch.cat([TASK.train[0], TASK.test[0]])}[source]
    alone = elsewhere(TASK, source)
    assert torch.equal(alone.samples.take(torch.arange(len(inputs)))[0], inputs)
    expected = methods.create(name).measure(model, alone)  # type: ignore[attr-defined]
    assert found.count == len(inputs)
    for each, sums in expected.sums.items():
        assert torch.equal(found.sums[each], sums)


def test_what_cannot_be_measured_elsewhere() -> None:
    with pytest.raises(ForgetlessError) as caught:
        create("test", "si")
    assert str(caught.value) == "--omega test is for 'mas' and 'local-mas'; the method 'si' measures otherwise."
    with pytest.raises(ForgetlessError) as caught:
        create("elsewhere", "mas")
    assert str(caught.value) == "omega must be 'train', 'test' or 'both', not 'elsewhere'."
    assert create("train", "si").settings() == methods.create("si").settings()


def test_the_source_is_a_setting_that_a_checkpoint_knows() -> None:
    assert create("test", "mas").settings() == {**methods.create("mas").settings(), "source": "test"}

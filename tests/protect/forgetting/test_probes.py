"""What a network answered and answers: agreement, divergence and accuracy against slow definitions."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from forgetless.errors import ForgetlessError
from forgetless.protect.forgetting.probes import Probes, pooled


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$")


def network(seed: int = 0, inputs: int = 4, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, classes))


def moved(model: nn.Module, by: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model


def inputs(rows: int = 23) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(3))


@settings(max_examples=25)
@given(rows=st.integers(1, 40), piece=st.integers(1, 50), again=st.integers(1, 50), classes=st.integers(2, 5))
def test_readings_are_the_definitions_however_the_samples_are_split(rows, piece, again, classes):
    model = network(classes=classes).eval()
    samples, labels = inputs(rows), torch.arange(rows) % classes
    old = model(samples).detach().double()
    probes = Probes(model, (samples, labels), labeled=None, rows=piece)
    probes.split(again)
    now = moved(model)(samples).detach().double()
    found = pooled(probes.read(model))
    agree = right = divergence = 0.0
    for was, has, label in zip(old.softmax(1), now.softmax(1), labels, strict=True):
        agree += float(was.argmax() == has.argmax())
        right += float(has.argmax() == label)
        divergence += sum(float(p * (p / q).log()) for p, q in zip(was, has, strict=True))
    assert found.samples == len(probes) == rows
    assert found.agreement == pytest.approx(agree / rows)
    assert found.accuracy == pytest.approx(right / rows)
    assert found.kl == pytest.approx(divergence / rows, rel=1e-4, abs=1e-6)


def test_nothing_has_changed_at_first():
    model = network()
    found = pooled(Probes(model, inputs()).read(model))
    assert (found.agreement, found.accuracy, found.samples) == (1, None, 23)
    assert found.kl == pytest.approx(0, abs=1e-6)


def test_the_network_and_the_random_numbers_are_left_as_found():
    model = network().train()
    model[1].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    seed = torch.get_rng_state()
    probes = Probes(model, inputs())
    probes.read(model)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(seed, torch.get_rng_state())


def test_they_are_in_eval_mode_also_when_the_network_trains():
    model = network().train()
    probes = Probes(model, inputs())
    assert all(pooled(probes.read(model)).agreement == 1 for _ in range(3))  # dropout would change answers


def test_padding_does_not_count():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(7, 5)

        def forward(self, input_ids, attention_mask):
            return {"logits": self.table(input_ids)}

    model = Tokens()
    batch = {"input_ids": torch.tensor([[1, 2, 3], [4, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])}
    probes = Probes(model, batch)
    with torch.no_grad():
        model.table.weight[4] = -model.table.weight[4]
    assert pooled(probes.read(model)).agreement == pytest.approx(0.75)


def test_a_last_axis_of_one_is_a_yes_or_no():
    model = nn.Linear(4, 1)
    probes = Probes(model, inputs())
    old = model(inputs()).detach()[:, 0]
    moved(model, 1.0)
    now = model(inputs()).detach()[:, 0]
    found = pooled(probes.read(model))
    assert found.agreement == pytest.approx(float(((old > 0) == (now > 0)).float().mean()))
    p, q = old.double().sigmoid(), now.double().sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert found.kl == pytest.approx(float(expected), rel=1e-4)
    flat = Probes(model, inputs(), forward=lambda network, batch: network(batch)[:, 0])
    assert pooled(flat.read(model)).agreement == 1


def test_new_classes_may_join():
    model = nn.Linear(4, 3)
    probes = Probes(model, inputs())
    old = model(inputs()).detach().double()
    grown = nn.Linear(4, 5)
    with torch.no_grad():
        grown.weight[:3], grown.bias[:3], grown.bias[3] = model.weight, model.bias, 0.5
    now = grown(inputs()).detach().double()
    found = pooled(probes.read(grown))
    assert found.agreement == pytest.approx(float((old.argmax(1) == now.argmax(1)).double().mean()))
    assert 0 < found.agreement < 1
    gap = old.log_softmax(1) - now.log_softmax(1)[:, :3]
    assert found.kl == pytest.approx(float((old.softmax(1) * gap).sum(1).mean()), rel=1e-4)


def test_several_outputs_count_alike():
    model = nn.Linear(4, 6)

    def forward(network, batch):
        return network(batch).split(3, 1)

    probes = Probes(model, inputs(), forward=forward, output=[0, 1])
    old = forward(model, inputs())
    moved(model)
    now = forward(model, inputs())
    expected = torch.cat([a.argmax(1) == b.argmax(1) for a, b in zip(old, now, strict=True)]).double().mean()
    assert pooled(probes.read(model)).agreement == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", ["tensor", "tuple", "list of batches", "dataset"])
def test_every_kind_of_data_is_taken(kind):
    model, samples = network(), inputs(90)
    given_data = {
        "tensor": samples,
        "tuple": (samples, torch.zeros(90)),
        "list of batches": [samples[:64], samples[64:]],  # the same pieces of 32, so the same to the last bit
        "dataset": TensorDataset(samples),
    }[kind]
    probes = Probes(model, given_data)
    assert len(probes) == 90
    assert pooled(probes.read(moved(model))) == pooled(Probes(network(), samples).read(model))


def test_batches_that_split_into_other_pieces_give_the_same_reading_but_for_rounding():
    samples = inputs(90)
    found = pooled(Probes(network(), [samples[:50], samples[50:]]).read(moved(network())))
    whole = pooled(Probes(network(), samples).read(moved(network())))
    assert dataclasses.replace(found, kl=None) == dataclasses.replace(whole, kl=None)
    assert found.kl == pytest.approx(whole.kl, rel=1e-6)


def test_at_most_1024_samples_are_kept_of_data_without_end():
    def endless():
        while True:
            yield torch.randn(100, 4)

    assert len(Probes(network(), endless())) == 1024


def test_probabilities_that_do_not_fit_are_not_kept(monkeypatch):
    monkeypatch.setattr("forgetless.protect.forgetting.probes._MOST_NUMBERS", 60)
    model = network()
    probes = Probes(model, inputs(), rows=8)
    found = pooled(probes.read(moved(model)))
    assert found.kl is None
    assert 0 <= found.agreement <= 1


def test_retaking_makes_the_answers_of_now_the_old_ones():
    model = network()
    probes = Probes(model, inputs())
    moved(model)
    probes.retake(model)
    assert pooled(probes.read(model)).agreement == 1


def test_bad_probes():
    model = network()
    with refused("the probes hold no samples, so no answers can be compared."):
        Probes(model, torch.empty(0, 4))
    with refused("the probes hold no samples, so no answers can be compared."):
        Probes(model, [])
    with refused("the inputs hold NaN or Inf: batch 0 of the probes, sample 2; clean the data first."):
        Probes(model, inputs().index_fill(0, torch.tensor([2]), torch.nan))
    with refused(
        "the probes do not fit the model: Sequential fails on a piece of float32 [8, 5] with RuntimeError: "
        "mat1 and mat2 shapes cannot be multiplied (8x5 and 4x6)."
    ):
        Probes(model, torch.randn(8, 5))
    with refused(
        "the probes do not fit the model: the output has shape (4,) for 8 samples: its first axis must be the sample "
        "axis (choose another tensor with output=, or give forward=)."
    ):
        Probes(model, inputs(8), forward=lambda network, batch: batch[0])
    with refused("a batch has no labels: they are the second of a tuple, or 'labels' of a dict."):
        Probes(model, inputs(), labeled=True)
    with refused(
        "the probes have labels of shape (8,) for answers of shape (8, 2): right answers are told by one label a "
        "sample."
    ):
        Probes(
            nn.Linear(4, 6),
            (inputs(8), torch.zeros(8, dtype=torch.int64)),
            labeled=None,
            forward=lambda network, batch: network(batch[0]).reshape(-1, 2, 3),
        )


def test_a_model_that_answers_nan_has_nothing_to_be_remembered():
    model = network()
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    with refused("the model answers the probes with NaN or Inf, so none can be kept."):
        Probes(model, inputs())


def test_an_output_that_changes_its_axes():
    model = nn.Linear(4, 6)
    shape = [6]

    def forward(network, batch):
        return network(batch).reshape(-1, *shape)

    probes = Probes(model, inputs(8), forward=forward)
    shape[:] = [2, 3]
    with refused(
        "the model answers the probes in the shape (8, 2) now and in (8,) when they were taken; give probes and "
        "forward= for an output that keeps its axes."
    ):
        probes.read(model)

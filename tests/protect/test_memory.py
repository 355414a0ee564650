"""What an anchor holds: θ* and Ω, once, and not the importance that it was made from; or θ* in the model's own file."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn, optim

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.model.parameters import fingerprints, trainable
from forgetless.protect import coded
from forgetless.protect.anchor import Anchor
from forgetless.protect.coded import Coded
from forgetless.protect.strength.keep_agreement import KeepAgreement
from peak import Peak

COMPACT = [(False, 4), (True, 2), ("8bit", 1)]  # and the bytes of an Ω


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(40, 50), nn.Linear(50, 60), nn.Linear(60, 40))


def measured(model: nn.Module, seed: int = 0) -> Importance:
    named = trainable(model)
    generator = torch.Generator().manual_seed(seed)
    sums = {name: torch.rand(p.shape, generator=generator) for name, p in named.items()}
    return Importance(sums, 8.0, weights=fingerprints(named))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def kept(anchor: Anchor) -> list[Tensor]:
    each = anchor.anchored().values()
    omegas = [one.importance for one in each]
    return [one.weights for one in each] + [one.codes if isinstance(one, Coded) else one for one in omegas]


def train(model: nn.Module, anchor: Anchor, steps: int = 3) -> nn.Module:
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    anchor.attach(optimizer)
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(4, 40, generator=generator).to(next(model.parameters()).dtype)
        model(inputs).square().sum().backward()
        optimizer.step()
    return model


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The network in a file of its own, in bfloat16 as language models are."""
    tensors = {name: tensor.bfloat16() for name, tensor in network().state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def loaded(stored: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    from safetensors.torch import load_file

    model = network(1).to(dtype)
    model.load_state_dict(load_file(stored))
    return model


@pytest.mark.parametrize(("compact", "bytes_of_omega"), COMPACT)
def test_memory_is_theta_and_omega_and_flat_in_the_number_of_tasks(compact, bytes_of_omega):
    model = network()
    anchor = Anchor(model, None, 1.0, compact=compact)
    for task in range(3):
        anchor.consolidate(measured(model, task))
        assert sum(tensor.untyped_storage().nbytes() for tensor in kept(anchor)) == (
            (4 + bytes_of_omega) * count(model)
        )


@pytest.mark.parametrize(("compact", "bytes_of_omega"), COMPACT)
def test_the_importance_is_not_kept(compact, bytes_of_omega):
    model = network()
    importance = measured(model)
    held = [weakref.ref(total) for total in importance.sums.values()]
    places = {total.untyped_storage().data_ptr() for total in importance.sums.values()}
    anchor = Anchor(model, importance, 1.0, compact=compact)
    assert places.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in kept(anchor))
    del importance
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("compact", "bytes_of_omega"), COMPACT)
@pytest.mark.parametrize("mapped", [False, True])
def test_while_it_is_made_an_anchor_takes_one_layer_more(
    compact, bytes_of_omega, mapped, tmp_path, stored, monkeypatch
):
    monkeypatch.setattr(coded, "_PIECE", 256)
    model = loaded(stored)
    measured(model).save(tmp_path / "importance")
    importance = Importance.load(tmp_path / "importance", mmap=True)
    with Peak() as peak:
        anchor = Anchor(model, importance, 1.0, compact=compact, base=stored if mapped else None)
    largest = max(parameter.numel() for parameter in model.parameters())
    held = (0 if mapped else 4) + bytes_of_omega
    assert peak.most <= held * count(model) + 5 * 4 * largest
    assert anchor.drift() == 0


def test_a_mapped_importance_is_the_same(tmp_path):
    importance = measured(network())
    importance.save(tmp_path / "importance")
    found = Importance.load(tmp_path / "importance", mmap=True)
    assert all(torch.equal(found.sums[name], total) for name, total in importance.sums.items())
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [[int(end, 16) for end in m.split()[0].split("-")] for m in maps if m.endswith("importance")]
    for total in found.sums.values():
        assert any(low <= total.data_ptr() < high for low, high in spans)


@pytest.mark.parametrize("compact", [False, True, "8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_theta_in_the_models_file_protects_as_in_memory(compact, dtype, stored):
    first, second = loaded(stored, dtype), loaded(stored, dtype)
    in_memory = Anchor(first, measured(first), 3.0, compact=compact)
    in_file = Anchor(second, measured(second), 3.0, compact=compact, base=stored)
    assert all(weights.dtype == torch.bfloat16 for weights in in_file.weights.values())
    train(first, in_memory)
    train(second, in_file)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name)), name
    assert in_file.drift() == pytest.approx(in_memory.drift(), rel=1e-6)


def test_theta_comes_back_after_training_went_on(stored, tmp_path):
    """As in a run that resumes from a checkpoint: the model has other weights by then."""
    model = loaded(stored)
    importance = measured(model)
    for parameter in model.parameters():
        parameter.data += 0.1
    anchor = Anchor(model, importance, 1.0, base=stored)
    start = loaded(stored)
    assert all(torch.equal(w.float(), start.get_parameter(name)) for name, w in anchor.weights.items())
    anchor.save(tmp_path / "anchor")
    for mmap in (False, True):
        again = Anchor.load(tmp_path / "anchor", model, mmap=mmap)
        assert again.drift() == anchor.drift() > 0


def test_a_dial_asks_for_the_answers_at_theta(stored, monkeypatch):
    model, probes = loaded(stored), torch.randn(8, 40)
    importance = measured(model)
    for parameter in model.parameters():
        parameter.data += 0.1
    before = [parameter.clone() for parameter in model.parameters()]
    seen = []
    monkeypatch.setattr(KeepAgreement, "remember", lambda dial, model: seen.append(model(probes)))
    Anchor(model, importance, KeepAgreement(0.1, probes, freeze_batchnorm=False), base=stored)
    assert torch.equal(seen[0], loaded(stored)(probes))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_consolidate_brings_theta_into_memory(stored):
    model = loaded(stored)
    anchor = Anchor(model, measured(model), 1.0, base=stored)
    anchor.consolidate(measured(model, 1))
    stored.unlink()
    assert all(weights.dtype == torch.float32 for weights in anchor.weights.values())
    train(model, anchor)


def test_a_base_that_was_cut_moves_nothing(stored):
    model = loaded(stored)
    anchor = Anchor(model, measured(model), 1.0, base=stored)
    os.truncate(stored, 100)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ForgetlessError, match="was cut from"):
        train(model, anchor)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.usefixtures("unchecked")
def test_settings_that_do_not_fit_are_refused(stored):
    with pytest.raises(ForgetlessError, match="compact must be True, False or '8bit', not 'half'"):
        Anchor(network(), None, 1.0, compact="half")
    with pytest.raises(ForgetlessError, match="base= needs an importance"):
        Anchor(network(), None, 1.0, base=stored)


@pytest.mark.parametrize("compact", [True, "8bit"])
def test_a_file_keeps_how_omega_is_kept(compact, tmp_path):
    model = network()
    anchor = Anchor(model, measured(model), 1.0, compact=compact)
    anchor.save(tmp_path / "anchor")
    for mmap in (False, True):
        found = Anchor.load(tmp_path / "anchor", model, mmap=mmap)
        assert [each.dtype for each in kept(found)] == [each.dtype for each in kept(anchor)]
        assert all(torch.equal(omega, anchor.importance[name]) for name, omega in found.importance.items())
        found.consolidate(measured(model, 1))
        assert [each.dtype for each in kept(found)] == [each.dtype for each in kept(anchor)]

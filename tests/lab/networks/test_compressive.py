"""The Compressive Transformer: what it may see, what it keeps, where gradients go; faults of public code too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.lab.networks.compressive import CompressiveTransformer, Pass, Sizes, compressive_transformer
from forgetless.lab.networks.parts.compression import Compressor
from forgetless.lab.networks.parts.memory import Memory

SYMBOLS = 11
LEARNED = (("conv", "attention"), ("conv", "autoencoding"), ("conv", "bptt"), ("dilated", "attention"))
KINDS = (("max", "none"), ("mean", "none"), ("most-used", "none"), *LEARNED)


def network(**sizes: Any) -> CompressiveTransformer:
    given = {"width": 8, "heads": 2, "layers": 2, "memory": 4, "compressed": 4, "rate": 2, **sizes}
    return compressive_transformer(0, symbols=SYMBOLS, **given).double()


def texts(length: int, count: int = 2) -> Tensor:
    return torch.randint(SYMBOLS, (count, length), generator=torch.Generator().manual_seed(length))


def read(model: CompressiveTransformer, tokens: Tensor, *windows: int) -> tuple[Tensor, Memory]:
    """The logits of windows of these lengths, one after the other, and the memory in the end."""
    found, memory = [], None
    for window in tokens.split(list(windows), 1):
        logits, memory = model(window, memory)
        found.append(logits)
    assert memory is not None
    return torch.cat(found, 1), memory


def learned(model: CompressiveTransformer, tokens: Tensor, windows: int) -> tuple[list[Pass], Tensor]:
    """All passes over windows of equal length in training, and the network's own loss."""
    passes, memory, losses = [], None, []
    for window in tokens.chunk(windows, 1):
        passes.append(model.step(window[:, :-1], memory))
        memory = passes[-1].memory
        losses.append(F.cross_entropy(passes[-1].logits.flatten(0, 1), window[:, 1:].flatten()))
    return passes, torch.stack(losses).sum()


def of_compressors(model: CompressiveTransformer) -> set[str]:
    parts = {id(parameter) for parameter in model.compressor_parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in parts}


def reached(model: CompressiveTransformer) -> set[str]:
    return {name for name, each in model.named_parameters() if each.grad is not None and bool(each.grad.any())}


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(("compressor", "loss"), KINDS)
def test_a_later_token_changes_nothing_before_it(compressor: str, loss: str, pre_norm: bool) -> None:
    model, tokens = network(compressor=compressor, loss=loss, pre_norm=pre_norm), texts(18)
    with torch.no_grad():
        before, _ = read(model, tokens, 6, 6, 6)
        for place in (7, 11, 16):
            changed = tokens.clone()
            changed[:, place] = (changed[:, place] + 1) % SYMBOLS
            after, _ = read(model, changed, 6, 6, 6)
            assert torch.equal(before[:, :place], after[:, :place])
            assert not torch.equal(before[:, place], after[:, place])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans())
def test_windows_do_not_matter_where_nothing_is_forgotten(windows: list[int], pre_norm: bool) -> None:
    model, tokens = network(memory=30, compressed=0, pre_norm=pre_norm), texts(sum(windows))
    with torch.no_grad():
        whole, kept = model(tokens)
        cut, also_kept = read(model, tokens, *windows)
    torch.testing.assert_close(cut, whole)
    torch.testing.assert_close(also_kept.recent, kept.recent)
    assert also_kept.seen == kept.seen == sum(windows)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(2, 4), st.integers(0, 5), st.integers(1, 6))
def test_the_oldest_are_compressed_in_groups_whatever_the_windows(
    windows: list[int], rate: int, memory: int, compressed: int
) -> None:
    """The first layer keeps embeddings, so what must be in its memories can be said without the network."""
    sizes = {"rate": rate, "memory": memory, "compressed": compressed, "layers": 1}
    model, tokens = network(compressor="mean", loss="none", **sizes), texts(sum(windows))
    with torch.no_grad():
        _, kept = read(model, tokens, *windows)
        inputs = model.embedding(tokens) * model.sizes.width**0.5
    evicted = max(0, sum(windows) - memory) // rate * rate
    torch.testing.assert_close(kept.recent[0], inputs[:, evicted:])
    groups = inputs[:, :evicted].unflatten(1, (-1, rate)).mean(2) if evicted else inputs[:, :0]
    torch.testing.assert_close(kept.compressed[0], groups[:, -compressed:])
    assert memory <= kept.recent.shape[2] < memory + rate or evicted == 0


def test_transformer_xl_keeps_exactly_the_latest() -> None:
    model, tokens = network(compressed=0, memory=5, layers=1), texts(13)
    with torch.no_grad():
        _, kept = read(model, tokens, 4, 6, 3)
        torch.testing.assert_close(kept.recent[0], (model.embedding(tokens) * 8**0.5)[:, -5:])
    assert kept.compressed.shape[2] == 0


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(("compressor", "loss"), LEARNED)
def test_the_networks_loss_reaches_a_compressor_with_bptt_only(compressor: str, loss: str, pre_norm: bool) -> None:
    model = network(compressor=compressor, loss=loss, pre_norm=pre_norm)
    _, task = learned(model, texts(18), 3)
    task.backward()
    everything = {name for name, _ in model.named_parameters()}
    assert reached(model) == (everything if loss == "bptt" else everything - of_compressors(model))


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(("compressor", "loss"), [each for each in LEARNED if each[1] != "bptt"])
def test_the_compression_loss_reaches_compressors_only(compressor: str, loss: str, pre_norm: bool) -> None:
    model = network(compressor=compressor, loss=loss, pre_norm=pre_norm)
    passes, _ = learned(model, texts(18), 3)
    torch.stack([each.loss for each in passes]).sum().backward()
    assert reached(model) == of_compressors(model)
    assert of_compressors(model)


@pytest.mark.parametrize(("compressor", "loss"), KINDS)
def test_no_parameter_is_frozen_by_compressing(compressor: str, loss: str) -> None:
    model = network(compressor=compressor, loss=loss)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        before = {name: each.detach().clone() for name, each in model.named_parameters()}
        passes, task = learned(model, texts(18), 3)
        optimizer.zero_grad()
        (task + torch.stack([each.loss for each in passes]).sum()).backward()
        optimizer.step()
        assert all(each.requires_grad for each in model.parameters())
        assert all(not torch.equal(each, before[name]) for name, each in model.named_parameters())


def test_reconstruction_is_of_exactly_the_evicted_part() -> None:
    """Recent memories that stay change nothing in the loss; evicted ones do."""
    model, tokens = network(layers=1, memory=6, compressed=4), texts(10)
    with torch.no_grad():
        memory = model.step(tokens[:, :6]).memory
        query = tokens[:, 6:]  # evicts the first four
        wanted = None
        for place, same in ((5, True), (4, True), (3, False), (0, False)):
            changed = memory.recent.clone()
            changed[:, :, place] += 1
            other = dataclasses.replace(memory, recent=changed)
            # the window's own input is the embedding, which no memory changes
            losses = [_reconstruction(model, each, query) for each in (memory, other)]
            wanted = losses[0] if wanted is None else wanted
            assert bool(torch.equal(losses[0], losses[1])) is same
            assert torch.equal(losses[0], wanted)


def _reconstruction(model: CompressiveTransformer, memory: Memory, query: Tensor) -> Tensor:
    with torch.enable_grad():
        found = model.step(query, memory)
    block: Any = model.blocks[0]
    old = memory.recent[0, :, :4]
    x = model.embedding(query) * model.sizes.width**0.5
    made = block.compressor(old)
    (one,), (other,) = block.attention.content(x, made), block.attention.content(x, old)
    by_hand = (one - other).pow(2).mean()
    torch.testing.assert_close(found.loss.detach(), by_hand.detach())
    return found.loss.detach()


@pytest.mark.parametrize(("compressor", "loss"), KINDS)
def test_memories_lead_nowhere_back(compressor: str, loss: str) -> None:
    """Not even after many windows in training; with bptt the compressed ones do until they are detached."""
    model = network(compressor=compressor, loss=loss)
    passes, _ = learned(model, texts(30), 5)
    for each in passes:
        assert each.memory.recent.grad_fn is None
        assert (each.memory.compressed.grad_fn is not None) is (loss == "bptt" and each.memory.compressed.shape[2] > 0)
    _, kept = model(texts(6), passes[-1].memory.detach())
    assert not any(tensor.requires_grad for tensor in kept.tensors().values())


def test_most_used_keeps_what_was_attended_to() -> None:
    model, tokens = network(compressor="most-used", loss="none", layers=1, memory=4, compressed=8, rate=2), texts(8, 1)
    with torch.no_grad():
        inputs = (model.embedding(tokens) * model.sizes.width**0.5)[0]
        _, kept = read(model, tokens, 4, 4)
        model.keep(100, 0)
        memory, received = None, torch.zeros(4, dtype=torch.float64)
        for window in tokens.split(4, 1):
            weights = _weights(model, window, memory)
            _, memory = model(window, memory)
            received += weights.mean(0)[0, :, :4].sum(0)
        used = received / torch.tensor([8.0, 7, 6, 5])
        torch.testing.assert_close(kept.compressed[0, 0], inputs[used.topk(2).indices.sort().values])
        assert kept.queries is not None
        assert kept.queries.tolist() == [4, 3, 2, 1]


def _weights(model: CompressiveTransformer, window: Tensor, memory: Memory | None) -> Tensor:
    """The first layer's attention weights."""
    seen: list[Tensor] = []
    block: Any = model.blocks[0]
    handle = block.attention.register_forward_hook(lambda module, inputs, output: seen.append(output[1]))
    model.step(window, memory)
    handle.remove()
    return seen[0]


def test_shares_of_attention_add_up() -> None:
    model = network()
    memory = model.step(texts(14)).memory
    found = model.step(texts(6), memory, attention=True).attention
    assert found is not None
    assert found.shape == (2, 3)
    torch.testing.assert_close(found.sum(1), torch.ones(2, dtype=torch.float64))
    assert bool((found > 0).all())


@pytest.mark.parametrize(("compressor", "loss"), KINDS)
def test_single_precision_is_near_double(compressor: str, loss: str) -> None:
    model = network(compressor=compressor, loss=loss)
    single = compressive_transformer(0, symbols=SYMBOLS, **_given(model.sizes))
    with torch.no_grad():
        wanted, _ = read(model, texts(24), 6, 6, 6, 6)
        found, _ = read(single, texts(24), 6, 6, 6, 6)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


def _given(sizes: Sizes) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(sizes).items() if name != "symbols"}


@pytest.mark.parametrize("compressor", ["most-used", "mean", "max"])
def test_texts_do_not_see_each_other_and_a_memory_is_cut(compressor: str, tmp_path: Path) -> None:
    model, tokens = network(compressor=compressor, loss="none"), texts(20, 3)
    with torch.no_grad():
        _, kept = read(model, tokens[:, :14], 7, 7)
        together, _ = model(tokens[:, 14:], kept)
        kept[1:2].save(tmp_path / "memory.safetensors")
        again = Memory.load(tmp_path / "memory.safetensors")
        assert (len(kept), len(again)) == (3, 1)
        for name, tensor in kept[1:2].tensors().items():
            assert torch.equal(again.tensors()[name], tensor)
        assert again.seen == 14
        alone, _ = model(tokens[1:2, 14:], again)
    torch.testing.assert_close(alone, together[1:2])


def test_a_longer_memory_than_in_training() -> None:
    model, tokens = network(memory=2, compressed=2), texts(16)
    model.keep(4, 6)
    _, kept = read(model, tokens, 8, 8)
    assert kept.recent.shape[2] == 4
    assert kept.compressed.shape[2] == 6
    model.keep(2, 1)  # and a shorter one again: the oldest go at the next window
    _, kept = model(texts(2), kept)
    assert (kept.recent.shape[2], kept.compressed.shape[2]) == (2, 1)


def test_memory_stays_as_large_as_it_is() -> None:
    model, memory = network(), None
    sizes = set()
    with torch.no_grad():
        for _ in range(40):
            _, memory = model(texts(3), memory)
            sizes.add((memory.recent.shape[2], memory.compressed.shape[2]))
    assert max(sizes) <= (4 + 1, 4)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"width": 9}, "a width of 9 does not fit 2 heads"),
        ({"heads": 3}, "a width of 8 does not fit 3 heads"),
        ({"rate": 1}, "a rate of 1 compresses nothing"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"memory": -1}, "memory must be at least 0"),
        ({"compressor": "sum"}, "there is no compressor 'sum'"),
        ({"loss": "l2"}, "there is no compression loss 'l2'"),
        ({"compressor": "mean"}, "'mean' has nothing to learn"),
        ({"loss": "none"}, "'conv' has weights"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1"),
    ],
)
def test_sizes_that_do_not_fit(sizes: dict[str, Any], said: str) -> None:
    with pytest.raises(ForgetlessError, match=said):
        network(**sizes)


def test_memories_that_do_not_fit(tmp_path: Path) -> None:
    model = network()
    kept = model.empty(2)
    for other, said in (
        (network(width=4), "another network: it has 2 layers of width 8"),
        (network(layers=1), "another network"),
        (network(compressor="most-used", loss="none"), "another compressor"),
    ):
        with pytest.raises(ForgetlessError, match=said):
            other(texts(2), kept)
    with pytest.raises(ForgetlessError, match="of 2 texts and 3 were given"):
        model(texts(2, 3), kept)
    with pytest.raises(ForgetlessError, match="one or more each"):
        model(texts(2)[:, :0])
    with pytest.raises(ForgetlessError, match="cut with a slice"):
        kept[0]
    with pytest.raises(ForgetlessError, match="has no compressor"):
        network(compressed=0).keep(4, 4)
    kept.save(tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[:-3])
    with pytest.raises(ForgetlessError, match="damaged"):
        Memory.load(tmp_path / "x")


def test_the_ten_lines_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_bytes(bytes(range(256)) * 2)
    page = (Path(__file__).parents[3] / "docs" / "long-text.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    assert names["logits"].shape == (1, 500, 256)
    assert names["memory"].seen == 7 * 64 + 500


def test_every_compressor_gives_one_for_each_group() -> None:
    for compressor, loss in KINDS:
        block: Any = network(compressor=compressor, loss=loss, rate=3).blocks[0]
        assert isinstance(block.compressor, Compressor)
        old = torch.randn(2, 12, 8, dtype=torch.float64)
        assert block.compress(old, torch.rand(2, 12)).shape == (2, 4, 8)

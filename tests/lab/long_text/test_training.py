from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import forgetless
from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.reading import Tokens, window
from forgetless.lab.long_text.recipes import Recipe
from forgetless.lab.long_text.training import Trained, train
from forgetless.lab.networks.compressive import CompressiveTransformer, Sizes
from forgetless.learn.position import Progress

SIZES = Sizes(symbols=256, width=8, heads=2, layers=2, memory=5, compressed=4, rate=2, dropout=0.1)
#: Windows of 5 against a rate of 2: groups stay open between windows. Updates become rare in the middle.
RECIPE = Recipe(steps=14, window=5, rows=4, warm_up=3, decay=11, high=3e-3, rare_after=6, rare=3)
KINDS = (("conv", "attention"), ("conv", "autoencoding"), ("conv", "bptt"), ("most-used", "none"))


def text(length: int = 400) -> Tokens:
    written = torch.randint(97, 123, (length,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Tokens(written, length)


def network(**changes: Any) -> CompressiveTransformer:
    torch.manual_seed(0)
    return CompressiveTransformer(dataclasses.replace(SIZES, **changes))


class Pressed(KeyboardInterrupt):
    pass


def trained(model: CompressiveTransformer, path: Path | None = None, stop: int = 0, **more: Any) -> Trained:
    def look(progress: Progress) -> None:
        if progress.step == stop:
            raise Pressed

    recipe = more.pop("recipe", RECIPE)
    return train(model, more.pop("text", text()), recipe, seed=3, checkpoint=path, on_progress=look, **more)


@pytest.mark.parametrize(("compressor", "loss"), KINDS)
@pytest.mark.parametrize("stop", [1, 8])
def test_resumed_in_the_middle_of_a_text_it_ends_with_the_same_bits(
    compressor: str, loss: str, stop: int, tmp_path: Path
) -> None:
    """Also between two updates, where gradients wait, and with dropout."""
    whole, path = network(compressor=compressor, loss=loss), tmp_path / "c"
    curve = trained(whole).curve
    with pytest.raises(Pressed):
        trained(network(compressor=compressor, loss=loss), path, stop)
    again = network(compressor=compressor, loss=loss)
    torch.manual_seed(99)  # what else was drawn meanwhile does not matter
    assert trained(again, path).curve == curve
    assert len(curve) == RECIPE.steps
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert trained(network(compressor=compressor, loss=loss), path).curve == curve  # it is finished: nothing to do


def test_it_learns_what_follows_what() -> None:
    """A text that repeats itself."""
    written = torch.arange(97, 107, dtype=torch.uint8).repeat(60)
    recipe = Recipe(steps=60, window=5, rows=4, high=2e-2)
    found = trained(network(dropout=0.0), recipe=recipe, text=Tokens(written, len(written)))
    assert found.curve[-1] < 1 < 3 < found.curve[0]


def test_gradients_wait_for_a_rare_update() -> None:
    recipe = dataclasses.replace(RECIPE, steps=9, rare_after=0, rare=4)
    model, changed = network(), list[bool]()
    before = model.bias.detach().clone()

    def look(progress: Progress) -> None:
        nonlocal before
        changed.append(not torch.equal(before, model.bias))
        before = model.bias.detach().clone()

    train(model, text(), recipe, seed=0, on_progress=look)
    assert changed == [False, False, False, True, False, False, False, True, True]


def test_compressors_are_clipped_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clipped: list[int] = []
    monkeypatch.setattr(
        "torch.nn.utils.clip_grad_norm_", lambda parameters, most: clipped.append(len(list(parameters)))
    )
    model = network()
    trained(model, recipe=dataclasses.replace(RECIPE, steps=1))
    of_compressors = len(model.compressor_parameters())
    assert clipped == [len(list(model.parameters())) - of_compressors, of_compressors]


def test_what_is_attached_acts_on_the_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    held, free = network(dropout=0.0), network(dropout=0.0)
    start = {name: each.detach().clone() for name, each in held.named_parameters()}
    importance = forgetless.Importance({name: torch.ones_like(each) for name, each in start.items()}, 1)
    trained(held, attach=forgetless.Anchor(held, importance, 1e9).attach)
    trained(free)
    assert all(torch.allclose(each, start[name], atol=1e-5) for name, each in held.named_parameters())
    assert not torch.allclose(free.bias, start["bias"], atol=1e-5)
    with pytest.raises(ForgetlessError, match="give `attach` or `checkpoint`"):
        trained(network(), tmp_path / "c", attach=print)


def test_rows_read_on_where_their_last_window_ended() -> None:
    tokens: Tensor = torch.arange(20)
    read, target = window(tokens, 3, 0, 2, 4)
    assert read.tolist() == [[3, 4, 5, 6], [13, 14, 15, 16]]
    assert target.tolist() == [[4, 5, 6, 7], [14, 15, 16, 17]]
    assert window(tokens, 3, 1, 2, 4)[0].tolist() == [[7, 8, 9, 10], [17, 18, 19, 0]]


def test_what_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="20 tokens in 4 rows leave 5 each, and a window has 5"):
        trained(network(), text=text(20))
    with pytest.raises(ForgetlessError, match="give 2 rows or more"):
        trained(network(loss="bptt"), recipe=dataclasses.replace(RECIPE, rows=1))
    broken = network()
    torch.nn.init.constant_(broken.bias, math.nan)
    with pytest.raises(ForgetlessError, match="the loss is nan in step 1"):
        trained(broken)
    path = tmp_path / "c"
    with pytest.raises(Pressed):
        trained(network(), path, 4)
    with pytest.raises(ForgetlessError, match="another run: the network's rate is 2 there and 3 here"):
        trained(network(rate=3), path)
    with pytest.raises(ForgetlessError, match="another run: the text is"):
        trained(network(), path, text=text(401))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ForgetlessError, match="damaged"):
        trained(network(), path)

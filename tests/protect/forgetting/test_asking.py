"""One loop that asks a network about its probes, for meter and dial."""

from __future__ import annotations

import torch
from torch import nn

from forgetless.protect.forgetting.asking import Asking
from forgetless.protect.forgetting.probes import Probes


def asking(every: int | None = 2, rows: int = 4) -> tuple[nn.Module, Asking]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    probes = Probes(model, torch.randn(8, 3), rows=rows)
    return model, Asking(model, probes, every)


def test_a_piece_is_asked_about_every_few_steps_and_a_round_ends_after_all_of_them():
    _, loop = asking()
    seen = []
    for _ in range(9):
        loop.stepped(lambda fresh, ends: seen.append((loop.steps, fresh.samples, ends)))
    assert seen == [(2, 4, False), (4, 4, True), (6, 4, False), (8, 4, True)]


def test_the_latest_reading_pools_each_pieces_own():
    model, loop = asking()
    with torch.no_grad():
        model.weight.neg_()
        model.bias.neg_()
    found = []
    for _ in range(4):
        loop.stepped(lambda fresh, _: found.append((fresh.agreement, loop.latest.agreement)))
    (first, half), (_, now) = found
    assert half == (first + 1) / 2
    assert now == loop.read().agreement < 1


def test_starting_again_begins_a_new_round_at_step_0():
    _, loop = asking()
    for _ in range(3):
        loop.stepped(lambda *_: None)
    loop.start()
    assert loop.steps == 0
    seen = []
    for _ in range(4):
        loop.stepped(lambda _, ends: seen.append(ends))
    assert seen == [False, True]
    assert loop.cost >= 0


def test_without_every_the_first_steps_forward_pass_sets_the_pace():
    model, loop = asking(every=None)
    loop.start()
    model(torch.randn(32, 3))
    loop.stepped(lambda *_: None)
    assert loop.pace is not None
    assert (loop.pace.rows, loop.pace.every) == (32, 17)

"""The trials of a search on disk: never made twice, refused when damaged or of another search."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.running.trials import Trials
from forgetless.protect.strength.stability_decay import Trial

SETTINGS = {"rate": 0.1, "start": 3.0}


def trials(path: Path, made: list[tuple[float, float]], told: list[Trial] | None = None, **settings: float) -> Trials:
    def train(rate: float, strength: float) -> float:
        made.append((rate, strength))
        return strength / 10

    return Trials(train, {**SETTINGS, **settings}, path, None if told is None else told.append)


def test_a_known_trial_is_neither_made_nor_told_again(tmp_path: Path) -> None:
    made: list[tuple[float, float]] = []
    told: list[Trial] = []
    first = trials(tmp_path / "t.json", made, told)
    assert first.train(0.1, 3.0) == 0.3
    first.tell(Trial(0.1, 3.0, 0.3))
    again = trials(tmp_path / "t.json", made, told)
    assert again.train(0.1, 3.0) == 0.3
    again.tell(Trial(0.1, 3.0, 0.3))
    assert again.train(0.1, 1.5) == 0.15
    assert made == [(0.1, 3.0), (0.1, 1.5)]
    assert told == [Trial(0.1, 3.0, 0.3)]


def test_a_changed_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    trials(path, []).train(0.1, 3.0)
    with pytest.raises(ForgetlessError) as caught:
        trials(path, [], start=5.0)
    assert str(caught.value) == (f"{path} holds another search (different: start); remove it, or choose another --out.")
    path.write_text(path.read_text().replace("0.3]", "0.4]"))
    with pytest.raises(ForgetlessError, match="does not match its checksum"):
        trials(path, [])

"""Stability decay: which trainings it asks for, what it decides, and that it goes on where it was stopped."""

from __future__ import annotations

import pickle
import re

import jaxtyping
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless import files, stability_decay
from forgetless.errors import ForgetlessError
from forgetless.protect.strength.stability_decay import Trial


@pytest.fixture
def unchecked():
    """Without the tests' own checks of annotations, which would refuse wrong types before the package does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$")


def accuracy(rate: float, strength: float) -> float:
    """Best at a rate of 0.1; falls from 0.9 with the strength: to 0.72, 80 % of it, at a strength of 0.25."""
    return (0.9 if rate == 0.1 else 0.5) / (1 + strength)


def same(value: float) -> float:
    return value


def test_the_rate_is_chosen_by_fine_tuning_and_the_strength_falls_until_enough_is_learned():
    trials: list[Trial] = []
    found = stability_decay(accuracy, same, [0.01, 0.1, 1.0], on_trial=trials.append)
    assert found == 0.1875  # 3 · ½ · ½ · ½ · ½
    assert isinstance(found, float)
    assert (found.rate, found.best, found.accepted) == (0.1, 0.9, True)
    assert [(each.rate, each.strength) for each in found.trials] == [
        *((rate, 0) for rate in (0.01, 0.1, 1.0)),
        *((0.1, strength) for strength in (3, 1.5, 0.75, 0.375, 0.1875)),
    ]
    assert list(found.trials) == trials
    assert all(each.accuracy == accuracy(each.rate, each.strength) for each in trials)
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.trials, again.accepted) == (found, found.trials, True)


@given(
    start=st.floats(0.01, 1000),
    drop=st.floats(0, 0.9),
    factor=st.floats(0.1, 0.9),
    most=st.integers(1, 12),
    weight=st.floats(1e-3, 1e3),
)
def test_it_is_the_first_strength_of_the_series_that_keeps_enough(start, drop, factor, most, weight):
    def kept(strength: float) -> float:
        return 0.8 / (1 + weight * strength)

    series = [start]
    while len(series) < most:
        series.append(series[-1] * factor)
    good = [strength for strength in series if kept(strength) >= (1 - drop) * 0.8]
    if good:
        found = stability_decay(lambda r, s: kept(s), same, [1.0], start=start, drop=drop, factor=factor, most=most)
        assert (found, found.accepted) == (good[0], True)
    else:
        with pytest.warns(UserWarning, match="no strength was accepted"):
            found = stability_decay(lambda r, s: kept(s), same, [1.0], start=start, drop=drop, factor=factor, most=most)
        assert (found, found.accepted) == (series[-1], False)
    assert len(found.trials) == 1 + (series.index(found) + 1)


@given(
    start=st.floats(0.01, 1000),
    drop=st.floats(0.05, 0.9),
    factor=st.floats(0.1, 0.9),
    weight=st.floats(1e-3, 1e3),
)
def test_rising_finds_the_greatest_strength_that_keeps_enough_to_within_the_factor(start, drop, factor, weight):
    greatest = drop / (1 - drop) / weight  # 1 / (1 + weight · strength) = 1 - drop

    def kept(strength: float) -> float:
        return 0.8 / (1 + weight * strength)

    found = stability_decay(
        lambda r, s: kept(s), same, [1.0], start=start, drop=drop, factor=factor, most=200, rise=True
    )
    good = [each.strength for each in found.trials if each.accuracy >= (1 - drop) * 0.8]
    assert found.accepted
    assert found == max(good)
    if found < 1e6 * start:
        assert found <= greatest * (1 + 1e-9) < found / factor * (1 + 1e-8)
    assert len({each.strength for each in found.trials}) == len(found.trials)  # nothing is trained twice


@pytest.mark.parametrize(
    ("greatest", "most", "strengths"),
    [
        (20000, 9, [1, 2, 8, 128, 32768, 2048, 8192, 16384]),  # ends by itself: the next would be within the factor
        (20000, 5, [1, 2, 8, 128, 32768]),  # the trials have run out: 128 is what was accepted
        (1, 9, [1, 2]),
        (0.3, 9, [1, 0.5, 0.25]),  # an accepted one below a refused one: nothing lies between
        (1e9, 9, [1, 2, 8, 128, 32768, 1e6]),  # nothing keeps it from learning
    ],
)
def test_rising_takes_few_trials(greatest, most, strengths):
    found = stability_decay(
        lambda rate, strength: float(strength <= greatest), same, [0.1], start=1.0, most=most, rise=True
    )
    assert [each.strength for each in found.trials] == [0, *strengths]
    assert found == max(strength for strength in strengths if strength <= greatest)
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.trials, again.accepted) == (found, found.trials, True)


def test_a_rising_search_goes_on_where_it_stopped_and_is_not_taken_for_a_falling_one(tmp_path):
    path = tmp_path / "trials.json"
    whole = stability_decay(accuracy, same, [0.1], start=0.01, rise=True, path=path)
    content = files.read_sealed(path)
    content["trials"] = content["trials"][:3]
    files.write_sealed(path, content)
    assert stability_decay(accuracy, same, [0.1], start=0.01, rise=True, path=path).trials == whole.trials
    with refused(
        f"{path} holds another search: its rise is True and not False; remove it to start over, or name another."
    ):
        stability_decay(accuracy, same, [0.1], start=0.01, path=path)


def test_when_nothing_is_accepted_it_says_so():
    sentence = (
        "no strength was accepted: 3 trials down to 0.75 stayed below 0.72, 80% of what fine-tuning reached; "
        "start lower, or allow a greater drop."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(sentence)}$"):
        found = stability_decay(accuracy, same, [0.1], most=3)
    assert found == 0.75
    assert not found.accepted


def test_fine_tuning_that_learned_nothing_is_refused():
    with refused("fine-tuning reached an accuracy of 0 at every rate: nothing can be compared; lower the rates."):
        stability_decay(lambda rate, strength: 0.0, same, [0.1, 1.0])


def test_the_model_that_train_gives_is_what_evaluate_gets():
    found = stability_decay(lambda rate, strength: {"strength": strength}, lambda model: 1 - model["strength"] / 4, [1])
    assert found == 0.75


@pytest.mark.parametrize("killed_at", range(7))
def test_a_search_killed_anywhere_goes_on_to_the_same_result(tmp_path, killed_at):
    path = tmp_path / "trials.json"
    calls: list[tuple[float, float]] = []

    def train(rate: float, strength: float) -> float:
        if len(calls) == killed_at:
            calls.append((-1, -1))
            raise KeyboardInterrupt
        calls.append((rate, strength))
        return accuracy(rate, strength)

    with pytest.raises(KeyboardInterrupt):
        stability_decay(train, same, [0.01, 0.1], path=path)
    assert path.exists() == (killed_at > 0)
    found = stability_decay(train, same, [0.01, 0.1], path=path)
    whole = stability_decay(accuracy, same, [0.01, 0.1])
    assert (found, found.trials, found.rate, found.best) == (whole, whole.trials, whole.rate, whole.best)
    made = [call for call in calls if call != (-1, -1)]
    assert made == [(each.rate, each.strength) for each in whole.trials]  # none twice
    calls.clear()
    assert stability_decay(train, same, [0.01, 0.1], path=path).trials == whole.trials
    assert not calls
    assert [each["strength"] for each in files.read_sealed(path)["trials"]] == [t.strength for t in whole.trials]


def test_the_trials_of_another_search_are_refused(tmp_path):
    path = tmp_path / "trials.json"
    stability_decay(accuracy, same, [0.1], path=path)
    before = path.read_text()
    with refused(
        f"{path} holds another search: its start is 3.0 and not 2.0; remove it to start over, or name another."
    ):
        stability_decay(accuracy, same, [0.1], start=2.0, path=path)
    with refused(
        f"{path} holds another search: its rates is [0.1] and not [0.2]; remove it to start over, or name another."
    ):
        stability_decay(accuracy, same, [0.2], path=path)
    assert path.read_text() == before
    content = files.read_sealed(path)
    content["trials"][1]["strength"] = 17
    files.write_sealed(path, content)
    with refused(f"{path} is damaged: its trial 2 does not belong to this search."):
        stability_decay(accuracy, same, [0.1], path=path)


@pytest.mark.parametrize("content", [{}, {"rates": [0.1], "start": 3.0}])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "trials.json"
    files.write_sealed(path, content)
    with refused(f"{path} does not hold the trials of a search; remove it, or name another."):
        stability_decay(accuracy, same, [0.1], path=path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rates": []}, "rates must be one or more learning rates above 0, not []."),
        ({"rates": [0.1, 0.0]}, "rates must be one or more learning rates above 0, not [0.1, 0.0]."),
        ({"rates": [0.1, float("nan")]}, "rates must be one or more learning rates above 0, not [0.1, nan]."),
        ({"rates": [0.1, 0.1]}, "rates must be different learning rates, not [0.1, 0.1]."),
        ({"start": 0.0}, "start must be a finite strength above 0, not 0.0."),
        ({"start": float("inf")}, "start must be a finite strength above 0, not inf."),
        ({"drop": 1.0}, "drop must be a share in [0, 1), not 1.0."),
        ({"drop": -0.1}, "drop must be a share in [0, 1), not -0.1."),
        ({"factor": 1.0}, "factor must be between 0 and 1, not 1.0."),
        ({"most": 0}, "most must be 1 or more trials, not 0."),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(changes, sentence):
    def train(rate: float, strength: float) -> float:
        raise AssertionError

    with refused(sentence):
        stability_decay(train, same, **{"rates": [0.1], **changes})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [float("nan"), -0.5, float("inf"), None])
def test_an_accuracy_that_is_none_is_refused(tmp_path, value):
    path = tmp_path / "trials.json"
    with refused(
        f"evaluate() must give an accuracy of 0 or more, not {value!r} (at a rate of 0.1 and a strength of 0)."
    ):
        stability_decay(accuracy, lambda model: value, [0.1], path=path)
    assert not path.exists()

from __future__ import annotations

import copy
from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.report.sections.streamed import charts
from forgetless.lab.results import check

ONLINE = {
    "looks": [[2, [0.5]], [4, [0.5, 1.0]]],
    "groups": ["stem", "heads"],
    "lambdas": [[2.0, 1e-3, 2e-3], [4.0, 3e-3, 4e-3]],
    "gates": [[[0, 4], [1, 1]], [[1, 3], [2, 2]]],
}
OTHER = [[2, [1.0]], [4, [0, 0]]]
RESULTS: dict[str, Any] = {
    "experiment": "online",
    "tasks": ["a", "b"],
    "environment": {},
    "runs": [
        {"method": "er", "seed": 0, "accuracy": [[0.5, None], [0.5, 1.0]], "online": {"looks": ONLINE["looks"]}},
        {
            "method": "er",
            "seed": 1,
            "accuracy": [[1.0, None], [0, 0.0]],
            "online": {"looks": [[2, [1.0]], [4, [0, 0]]]},
        },
        {"method": "mango", "seed": 0, "accuracy": [[0.5, None], [0.5, 1.0]], "online": ONLINE},
    ],
}


def test_accuracy_λ_and_gates() -> None:
    check(RESULTS)
    over, coefficients, gates = charts(RESULTS)
    assert over.lines == (("er", [(2, 0.75), (4, 0.375)]), ("mango", [(2, 0.5), (4, 0.75)]))
    assert coefficients.lines == (("stem", [(2.0, 1e-3), (4.0, 3e-3)]), ("heads", [(2.0, 2e-3), (4.0, 4e-3)]))
    assert gates.lines == (("stem", [(0.25, 0.25), (0.75, 0.75)]), ("heads", [(0.25, 0.5), (0.75, 0.5)]))
    assert over.path([(2, 0.0), (4, 0.75)]) == "M42.0 138.0 L272.0 12.0"
    assert over.heights() == ((138.0, "0"), (12.0, "75"))
    assert coefficients.heights() == ((138.0, "0.001"), (12.0, "0.004"))
    assert over.ends() == ((42.0, "2"), (272.0, "4"))


def test_other_results_have_none() -> None:
    assert charts({"runs": [{"method": "mas"}]}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"looks": []},
        {"looks": [[1, []]]},
        {"looks": [[1, [1.5]]]},
        {"looks": [["1", [0.5]]]},
        {"groups": [1, 2]},
        {"lambdas": [[1.0, 2.0]]},
        {"lambdas": [[1.0, 2.0, float("nan")]]},
        {"gates": [[[1, 2]]]},
        {"gates": [[[1, 2], []]]},
        {"gates": [[[1, 2], [-1, 0]]]},
    ],
)
def test_damaged_results_are_refused(change: dict[str, Any]) -> None:
    results = copy.deepcopy(RESULTS)
    results["runs"][2]["online"] |= change
    with pytest.raises(ForgetlessError, match="run 2 has an 'online' whose looks, lambdas or gates"):
        check(results)

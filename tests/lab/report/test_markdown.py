from __future__ import annotations

from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.report import markdown


def results(**environment: Any) -> dict[str, Any]:
    def run(method: str, seed: int, left: float, strength: float | None) -> dict[str, Any]:
        return {
            "method": method,
            "seed": seed,
            "strength": strength,
            "accuracy": [[0.9, None], [left, 0.7]],
            "seconds": {"train": 60.0, "evaluate": 30.0},
        }

    runs = [run("finetune", 0, 0.5, None), run("finetune", 1, 0.7, None), run("mas", 0, 0.9, 1.0)]
    return {"experiment": "e", "tasks": ["a|b", "c"], "runs": runs, "environment": environment}


def test_the_command_the_table_and_the_machine() -> None:
    assert markdown(results(command="forgetless run e --out runs/e", torch="2.14")) == (
        "```console\n"
        "$ forgetless run e --out runs/e\n"
        "```\n"
        "\n"
        "| task | finetune | mas, λ = 1 |\n"
        "|---|---|---|\n"
        "| a\\|b | 90.0 → 60.0 ± 14.1 | 90.0 → 90.0 |\n"
        "| c | 70.0 → 70.0 ± 0.0 | 70.0 → 70.0 |\n"
        "| **average** | **80.0 → 65.0 ± 7.1** | **80.0 → 80.0** |\n"
        "| **forgetting** | 30.0 ± 14.1 | 0.0 |\n"
        "| minutes | 1.5 | 1.5 |\n"
        "\n"
        "Accuracy on test data in percent, when learned → now; 1 to 2 seeds. torch 2.14.\n"
    )


def test_no_run_yet() -> None:
    with pytest.raises(ForgetlessError, match="these results hold no finished run yet"):
        markdown({**results(), "runs": []})

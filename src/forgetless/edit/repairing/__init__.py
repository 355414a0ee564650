"""Ways to repair a fine-tuned weight, one a file: an open list of pure functions on one weight's two versions."""

from collections.abc import Callable

from forgetless.edit.repairing import dg_hard, importance, importance_dg_hard, wise_ft
from forgetless.edit.weight import Repaired, Settings, Versions

REPAIRS: dict[str, Callable[[Versions, Settings], Repaired]] = {
    "dg-hard": dg_hard.repair,
    "wise-ft": wise_ft.repair,
    "importance": importance.repair,
    "importance-dg-hard": importance_dg_hard.repair,
}

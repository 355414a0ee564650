"""The open list of what importance is measured on: every layer, use and network that the package promises.

To add one, append a line to `layers`, `uses`, `routed`, `alike`, `late`, `networks` or `foreign`. Every contract test
runs over all of them.
"""

from problems.alike import ALIKE
from problems.foreign import FOREIGN
from problems.late import LATE
from problems.layers import LAYERS
from problems.networks import NETWORKS
from problems.problem import Problem
from problems.routed import ROUTED
from problems.uses import USES

PROBLEMS: list[Problem] = [*LAYERS, *USES, *ROUTED, *ALIKE, *LATE, *NETWORKS, *FOREIGN]

__all__ = ["ALIKE", "FOREIGN", "LATE", "LAYERS", "NETWORKS", "PROBLEMS", "ROUTED", "USES", "Problem"]

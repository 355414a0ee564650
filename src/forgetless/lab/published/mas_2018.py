"""Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses", ECCV 2018, arXiv 1711.09601.

Accuracies in percent, as printed in the paper.
"""

from __future__ import annotations

#: The two-task sequences, by the names of our folders.
PAIRS = ("birds-scenes", "scenes-birds", "flowers-birds", "flowers-scenes")
#: The paper's name of each method.
TITLES = {
    "finetune": "FineTune",
    "joint": "joint training (not in the paper's table)",
    "frozen": "frozen backbone (not in the paper)",
    "lwf": "LwF",
    "ebll": "EBLL",
    "imm-mean": "IMM, mean",
    "imm-mode": "IMM, mode",
    "ewc": "EWC",
    "si": "SI",
    "local-mas": "local MAS",
    "mas": "MAS",
}
_IMM = ((51.51, -2.1, 52.62), (54.76, -4.2, 52.20), (75.68, -2.4, 48.32), (76.28, -1.8, 55.64))
#: Table 2: method → for each pair, the first task at the end, what it lost since it was learned, the second task.
TWO_TASKS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "finetune": ((45.20, -8.0, 57.8), (49.7, -9.3, 52.8), (64.87, -13.2, 53.8), (70.17, -7.9, 57.31)),
    "lwf": ((51.65, -2.0, 55.59), (55.89, -3.1, 49.46), (73.97, -4.1, 53.64), (76.20, -1.9, 58.05)),
    "ebll": ((52.79, -0.8, 55.67), (56.34, -2.7, 49.41), (75.45, -2.6, 50.51), (76.20, -1.9, 58.35)),
    "imm-mean": _IMM,  # the paper does not say which of the two
    "imm-mode": _IMM,
    "ewc": ((52.19, -1.4, 55.74), (58.28, -0.8, 49.65), (76.46, -1.6, 50.7), (77.0, -1.1, 57.53)),
    "si": ((52.64, -1.0, 55.89), (57.46, -1.5, 49.70), (75.19, -2.9, 51.20), (76.61, -1.5, 57.53)),
    "mas": ((53.24, -0.4, 55.0), (57.61, -1.4, 49.62), (77.33, -0.7, 50.39), (77.24, -0.8, 57.38)),
}
#: Table 3: (method, what Ω was measured on) → as above.
MEASURED_ON: dict[tuple[str, str], tuple[tuple[float, float, float], ...]] = {
    ("mas", "train"): TWO_TASKS["mas"],
    ("mas", "test"): ((53.43, -0.2, 55.07), (57.31, -1.7, 49.01), (77.62, -0.5, 50.29), (77.45, -0.6, 57.45)),
    ("mas", "both"): ((53.29, -0.3, 56.04), (57.83, -1.2, 49.56), (77.52, -0.6, 49.70), (77.54, -0.5, 57.39)),
    ("local-mas", "train"): ((51.36, -2.3, 55.67), (57.61, -1.4, 49.86), (73.96, -4.1, 50.5), (76.20, -1.9, 56.68)),
    ("local-mas", "test"): ((51.62, -2.0, 53.95), (55.74, -3.3, 50.43), (74.48, -3.6, 50.32), (76.56, -1.5, 57.83)),
    ("local-mas", "both"): ((52.15, -1.5, 54.40), (56.79, -2.2, 48.92), (73.73, -4.3, 50.5), (76.41, -1.7, 57.91)),
}
#: Eight tasks (figure 5): method → average accuracy at the end, average forgetting (its sign as there).
EIGHT_TASKS: dict[str, tuple[float, float]] = {
    "mas": (52.69, -0.49),
    "si": (50.49, -1.27),
    "ebll": (50.29, -7.83),
    "ewc": (50.00, -3.18),
    "lwf": (49.49, -8.47),
    "imm-mean": (46.83, -12.13),
    "imm-mode": (46.83, -12.13),
    "finetune": (32.67, -26.29),
}

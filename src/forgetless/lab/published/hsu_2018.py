"""Hsu, Liu, Ramasamy, Kira, "Re-evaluating Continual Learning Scenarios", 2018, arXiv 1810.12488.

What the paper leaves open is taken from the authors' public code. Rows have our names of the
methods; accuracies are in percent.
"""

from __future__ import annotations

from forgetless.lab.published import Published

#: Split MNIST, average accuracy after the last task: mean and standard deviation of 10 runs.
SPLIT_MNIST: dict[str, dict[str, tuple[float, float]]] = {
    "task": {
        "finetune": (93.46, 2.01),
        "l2sp": (98.18, 0.96),
        "ewc": (97.70, 0.81),
        "online-ewc": (98.04, 1.10),
        "si": (98.56, 0.49),
        "mas": (99.22, 0.21),
        "lwf": (99.60, 0.03),
        "er": (99.40, 0.08),
        "joint": (99.52, 0.16),
    },
    "domain": {
        "finetune": (55.16, 1.38),
        "l2sp": (66.00, 3.73),
        "ewc": (58.85, 2.59),
        "online-ewc": (57.33, 1.44),
        "si": (64.76, 3.09),
        "mas": (68.57, 6.85),
        "lwf": (71.02, 1.26),
        "er": (95.16, 0.49),
        "joint": (98.59, 0.15),
    },
    "class": {
        "finetune": (19.71, 0.08),
        "l2sp": (22.52, 1.08),
        "ewc": (19.80, 0.05),
        "online-ewc": (19.77, 0.04),
        "si": (19.67, 0.09),
        "mas": (19.52, 0.29),
        "lwf": (24.17, 0.33),
        "er": (90.78, 0.85),
        "joint": (97.53, 0.30),
    },
}
#: λ in the scripts for split MNIST (λ Σ Ω Δ², as ours), by scenario.
SPLIT_MNIST_STRENGTHS: dict[str, dict[str, float]] = {
    "task": {"l2sp": 0.01, "ewc": 100, "online-ewc": 400, "si": 300, "mas": 1},
    "domain": {"l2sp": 0.5, "ewc": 100, "online-ewc": 700, "si": 3000, "mas": 10000},
    "class": {"l2sp": 100, "ewc": 600, "online-ewc": 100, "si": 600, "mas": 1},
}
#: Split CIFAR-100; the standard deviation where it is known.
SPLIT_CIFAR100: Published = {
    "task": {
        "finetune": (30.53, None),
        "ewc": (61.11, None),
        "si": (64.81, None),
        "mas": (64.77, 0.78),
        "joint": (84.28, None),
    }
}
#: λ in the scripts for split CIFAR-100.
SPLIT_CIFAR100_STRENGTHS = {"l2sp": 1.0, "ewc": 100.0, "online-ewc": 3000.0, "si": 2.0, "mas": 10.0}

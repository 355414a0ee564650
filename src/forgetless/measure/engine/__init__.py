"""From a batch to `Σ_n |g_n|` of every parameter, exact for every network; no trace is left in the model.

`tape` makes one backward pass leave the sums, `plan` checks which parameters may take it, `sweep` runs over the data.
"""

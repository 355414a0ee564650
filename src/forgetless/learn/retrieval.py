"""How well a ranking finds what it should: average precision, recall at k, ranks. Functions of scores and relevance.

For all of them a higher score means a better match, and what they give does not depend on the order of the entries:
equal scores share a place. All raise `ForgetlessError` where nothing is relevant or a score is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.model.shapes import Bool, Float


def average_precision(scores: Float[Tensor, "q n"], relevant: Bool[Tensor, "q n"]) -> Float[Tensor, " q"]:
    """The average precision of every query, `AP_q = Σ_k (R_k − R_{k−1}) P_k`, in [0, 1].

    P_k and R_k are the precision and the recall among the entries whose score is at least the k-th distinct one.
    Without equal scores that is the mean, over the relevant entries, of the precision at their place. It is what
    scikit-learn's `average_precision_score` computes; some codes interpolate (VOC's eleven points), which gives more.

    Args:
        scores: of N entries for each of Q queries, `[Q, N]`.
        relevant: which entries the query should find, `[Q, N]`; at least one of each query.

    Returns:
        float64, `[Q]`.

    Raises:
        ForgetlessError: a query without a relevant entry, or a score that is NaN.
    """
    _refuse(scores, relevant)
    scores, order = scores.double().sort(dim=1, descending=True, stable=True)
    hits = relevant.gather(1, order).double()
    found = hits.cumsum(1)
    places = torch.arange(1, scores.shape[1] + 1, dtype=torch.float64, device=scores.device)
    last = torch.ones_like(hits, dtype=torch.bool)
    last[:, :-1] = scores[:, 1:] != scores[:, :-1]  # the last entry of those that share a score
    recall = torch.where(last, found / found[:, -1:], 0.0).cummax(1).values
    gained = recall - torch.cat([torch.zeros_like(recall[:, :1]), recall[:, :-1]], 1)
    return (gained * found / places).sum(1)


def recall_at(scores: Float[Tensor, "q n"], relevant: Bool[Tensor, "q n"], k: int) -> Float[Tensor, " q"]:
    """Whether a query finds a relevant entry among its first k, in [0, 1]: "K@k", "Hits@k", top-k accuracy.

    Where entries of equal score compete for the last places, it is the probability under a random order of them.

    Args:
        scores: `[Q, N]`.
        relevant: `[Q, N]`.
        k: how many places count, 1 or more.

    Returns:
        float64, `[Q]`.

    Raises:
        ForgetlessError: k below 1, a query without a relevant entry, or a score that is NaN.
    """
    if k < 1:
        raise ForgetlessError(f"recall needs at least the first place, not the first {k}.")
    _refuse(scores, relevant)
    best = scores.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
    above = (scores > best).sum(1).double()
    tied = scores == best
    others = (tied & ~relevant).sum(1).double()
    all_tied = tied.sum(1).double()
    places = (k - above).clamp(min=0.0)
    missed = torch.ones_like(above)  # Π over the places: none of them goes to one of the relevant entries
    for place in range(min(k, int(all_tied.max()))):
        taken = ((others - place) / (all_tied - place).clamp(min=1.0)).clamp(min=0.0)
        missed = torch.where(places > place, missed * taken, missed)
    return 1 - missed


def percentile(scores: Float[Tensor, "q n"], relevant: Bool[Tensor, "q n"]) -> Float[Tensor, " q"]:
    """The share of the other entries that the best relevant one beats, in [0, 1]; ½ is chance, a tie counts half.

    Args:
        scores: `[Q, N]`.
        relevant: `[Q, N]`.

    Returns:
        float64, `[Q]`; 1 where all entries are relevant.

    Raises:
        ForgetlessError: a query without a relevant entry, or a score that is NaN.
    """
    _refuse(scores, relevant)
    best = scores.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
    beaten = ((scores < best) & ~relevant).double() + ((scores == best) & ~relevant).double() / 2
    others = (~relevant).sum(1).double()
    return torch.where(others > 0, beaten.sum(1) / others.clamp(min=1.0), 1.0)


def _refuse(scores: Tensor, relevant: Tensor) -> None:
    if bool(scores.isnan().any()):
        raise ForgetlessError("a score is NaN, so there is no ranking.")
    empty = (~relevant.any(1)).nonzero().flatten()
    if len(empty):
        raise ForgetlessError(f"query {int(empty[0])} has no relevant entry among {relevant.shape[1]}.")

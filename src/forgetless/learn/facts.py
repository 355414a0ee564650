"""Facts: a picture's `<subject, predicate, object>`, regressed to the vectors of its words and retrieved by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network
from forgetless.learn.objective import Objective, Settings, answers
from forgetless.learn.retrieval import average_precision
from forgetless.learn.samples import Batch
from forgetless.model import batches
from forgetless.model.parameters import fingerprint
from forgetless.model.shapes import Bool, Float


@dataclass(frozen=True, eq=False)
class Facts(Objective):
    """Regression to the word vectors of a fact's parts; the score is the mean average precision of retrieval.

        loss_n = Σ_p w_np ‖F_p(x_n) − v_p(y_n)‖          s(n, c) = 1/Σ_p w_cp · Σ_p w_cp cos(F_p(x_n), v_p(c))

    F_p(x) is the output for part p, v_p(c) the vector of part p of fact c, and w_cp whether fact c has that part. The
    distance is not squared. s ranks pictures for a fact, and facts for a picture. All tasks share the facts and the
    head, so that nothing tells the network which task a picture is from.

    Source: Elhoseiny et al., "Exploring the Challenges towards Lifelong Fact Learning", ACCV 2018, arXiv 1812.10524
    (the loss as in its code, with three parts where that has two branches).

    Attributes:
        names: the facts; label c is `names[c]`.
        vectors: float, `[C, P, D]`: a vector for each of a fact's P parts, zero where it has none.
        present: bool, `[C, P]`.

    Raises:
        ForgetlessError: shapes that do not fit, or a fact without a part.
    """

    score: ClassVar[str] = "mean average precision"
    names: tuple[str, ...]
    vectors: Float[Tensor, "c p d"]
    present: Bool[Tensor, "c p"]

    def __post_init__(self) -> None:
        if self.vectors.shape[:2] != self.present.shape or len(self.names) != len(self.vectors):
            raise ForgetlessError(
                f"{len(self.names)} facts need vectors [C, P, D] and parts [C, P], not {list(self.vectors.shape)} and "
                f"{list(self.present.shape)}."
            )
        bare = (~self.present.any(1)).nonzero().flatten()
        if len(bare):
            raise ForgetlessError(f"the fact {self.names[int(bare[0])]!r} has no part.")

    @property
    def outputs(self) -> int:
        """P · D."""
        return self.vectors.shape[1] * self.vectors.shape[2]

    def losses(self, model: Network, task: str, outputs: Tensor, batch: Batch) -> Tensor:
        """The summed distances of a picture's parts to their vectors, `[N]`.

        Raises:
            ForgetlessError: a label that is no fact's.
        """
        labels = self._labels(batch, task)
        wanted, present = self.vectors.to(outputs)[labels], self.present.to(outputs.device)[labels]
        distances = torch.linalg.vector_norm(outputs.view(wanted.shape) - wanted, dim=2)
        return torch.where(present, distances, 0.0).sum(1)

    @torch.no_grad()
    def evaluate(self, model: Network, task: str, data: Any, batch_size: int) -> float:
        """The mean average precision over the facts of `data`, each searched among all pictures of `data`."""
        similar, labels = self.similarities(model, task, data, batch_size)
        facts = torch.unique(labels)
        found = average_precision(similar[:, facts].T, labels == facts[:, None])
        return float(found.mean())

    @torch.no_grad()
    def similarities(self, model: Network, task: str, data: Any, batch_size: int) -> tuple[Tensor, Tensor]:
        """The s of every sample of `data` with every fact, in eval mode.

        Returns:
            s `[N, C]` in float32, and the samples' labels `[N]`.

        Raises:
            ForgetlessError: no samples, or outputs that are NaN or Inf.
        """
        keys = fact_keys(self.vectors, self.present)
        found, labels = [], []
        for outputs, batch in answers(model, task, data, batch_size):
            found.append(picture_keys(outputs.float().cpu(), self.vectors.shape[1]) @ keys.T)
            labels.append(self._labels(batch, task).cpu())
        if not found:
            raise ForgetlessError(f"task {task!r} has no samples to be evaluated on.")
        return torch.cat(found), torch.cat(labels)

    def check(self, data: Any, where: str) -> None:
        """Refuse tensors whose labels do not fit the pictures or the facts; datasets are checked as they are read.

        Raises:
            ForgetlessError: they do not fit, or there are none.
        """
        if not (isinstance(data, tuple) and len(data) == 2):
            return
        pictures, labels = data
        if labels.dtype != torch.int64 or labels.shape != (len(pictures),):
            raise ForgetlessError(
                f"{where} needs {len(pictures)} int64 labels, not {labels.dtype} {list(labels.shape)}."
            )
        if not len(labels):
            raise ForgetlessError(f"{where} is empty.")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(self.names):
            raise ForgetlessError(f"{where} has labels outside its {len(self.names)} facts.")

    def settings(self) -> Settings:
        """How many facts there are, the shape of their vectors, and a hash of them."""
        parts, dimensions = self.vectors.shape[1:]
        return {
            "facts": len(self.names),
            "parts": parts,
            "dimensions": dimensions,
            "vectors": fingerprint(self.vectors),
        }

    def _labels(self, batch: Batch, task: str) -> Tensor:
        labels = batches.labels(batch)
        if bool(((labels < 0) | (labels >= len(self.names))).any()):
            raise ForgetlessError(f"task {task!r} has labels outside its {len(self.names)} facts.")
        return labels


def fact_keys(vectors: Float[Tensor, "c p d"], present: Bool[Tensor, "c p"]) -> Float[Tensor, "c pd"]:
    """What a picture's key is multiplied by to give s: the unit vectors of a fact's parts over the number of parts."""
    unit = F.normalize(vectors.float(), dim=2) * present[..., None]
    return (unit / present.sum(1)[:, None, None]).flatten(1)


def picture_keys(outputs: Float[Tensor, "n pd"], parts: int) -> Float[Tensor, "n pd"]:
    """The outputs with every part scaled to length 1."""
    return F.normalize(outputs.view(len(outputs), parts, -1), dim=2).flatten(1)

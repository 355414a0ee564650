"""`Weighing`: the importance of each model's parameters, matched to its tensors and brought to one scale."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from forgetless.edit.blocks import Parts
from forgetless.edit.omegas import Omegas
from forgetless.edit.versions import Weights
from forgetless.errors import ForgetlessError, quoted
from forgetless.measure.importance import Importance
from forgetless.model.parameters import fingerprint, listing

SCALES = ("mean", "none")
_LOOKED_AT = 8  # tensors of each model


class Weighing:
    """Ω_k of every model, by tensor.

    Args:
        importances: one for each model, in the order of the models.
        models: what to call each → its weights.
        estimators: how the names of the estimators begin that are accepted.
        scale: "mean" divides each Ω_k by its mean over all of its elements, so that a model counts for where its
            importance lies and not for how large it is; "none" takes Ω as measured.

    Raises:
        ForgetlessError: another number of importances than of models, one by another estimator, of another
            architecture, 0 everywhere, or measured at the weights of another of the models.
    """

    def __init__(
        self,
        importances: Sequence[Importance],
        models: Mapping[str, Weights],
        estimators: Sequence[str],
        scale: str = "mean",
    ) -> None:
        if scale not in SCALES:
            raise ForgetlessError(f"an importance is scaled by {' or '.join(SCALES)}, not {quoted(scale)}.")
        if len(importances) != len(models):
            raise ForgetlessError(
                f"there are {len(importances)} importances for {len(models)} models; give one for each, in their order."
            )
        for importance, (title, weights) in zip(importances, models.items(), strict=True):
            _refuse_other(importance, title, weights, estimators)
        _refuse_swapped(importances, models)
        self._importances, self._scaled = importances, scale == "mean"
        self._omegas = []
        for importance, (title, weights) in zip(importances, models.items(), strict=True):
            try:
                self._omegas.append(Omegas(importance, weights.layout))
            except ForgetlessError as error:
                raise ForgetlessError(f"{title}: {error}") from error
        first = importances[0].sums
        for each, title in zip(importances[1:], [*models][1:], strict=True):
            if each.sums.keys() != first.keys():
                raise ForgetlessError(
                    f"the importance of {title} covers other tensors than that of {next(iter(models))}: "
                    f"{listing(sorted(each.sums.keys() ^ first.keys()))}; measure both with the same --exclude."
                )

    def __contains__(self, name: object) -> bool:
        return name in self._importances[0].sums

    def parts(self, name: str) -> list[Parts]:
        """Ω_k of that tensor in every model, in parts."""
        return [each.parts(name, self._scaled) for each in self._omegas]

    def mark(self) -> str:
        """What tells these importances from others."""
        return ", ".join([*(each.mark() for each in self._omegas), "scaled" if self._scaled else "as measured"])


def _refuse_other(importance: Importance, title: str, weights: Weights, estimators: Sequence[str]) -> None:
    if not importance.estimator.startswith(tuple(estimators)):
        raise ForgetlessError(
            f"the importance of {title} was measured by {quoted(importance.estimator)}; this method takes one by "
            f"{' or '.join(map(quoted, estimators))}."
        )
    absent = [name for name in importance.sums if name not in weights.layout]
    if absent:
        raise ForgetlessError(
            f"the importance of {title} has {listing(absent)}, which the model lacks; measure it on the network that "
            "the checkpoint is of."
        )
    for name, omega in importance.sums.items():
        if tuple(omega.shape) != tuple(weights.layout[name].shape):
            raise ForgetlessError(
                f"the importance of {title} has {quoted(name)} of shape {tuple(omega.shape)}, and the model of "
                f"{tuple(weights.layout[name].shape)}."
            )


def _refuse_swapped(importances: Sequence[Importance], models: Mapping[str, Weights]) -> None:
    """Compare fingerprints of a few tensors with those of the weights that each importance was measured at."""
    noted = [name for name in importances[0].sums if all(name in each.weights for each in importances)]
    looked = sorted(noted, key=lambda name: importances[0].sums[name].numel())[:_LOOKED_AT]
    prints = {title: {name: fingerprint(weights.tensor(name)) for name in looked} for title, weights in models.items()}
    for importance, title in zip(importances, models, strict=True):
        wrong = [name for name in looked if importance.weights[name] != prints[title][name]]
        if not wrong:
            continue
        for other in models:
            if all(importance.weights[name] == prints[other][name] for name in looked):
                raise ForgetlessError(
                    f"the importance of {title} was measured at the weights of {other}; give the importances in the "
                    "order of the models."
                )
        warnings.warn(
            f"the importance of {title} was measured at other weights than the model holds ({listing(wrong)}).",
            stacklevel=4,
        )

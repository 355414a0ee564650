"""The ways of fine-tuning a language model that are compared, all with one signature: a bench and a strength."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless import Anchor, Distillation, HoldShare
from forgetless.edit import Settings, repaired
from forgetless.learn.seeding import derive, permutation
from studies.evidence.language_bench import Bench, weights
from studies.evidence.language_cores import SHARES, VARIED, frozen
from studies.repair_measures import logits
from studies.repair_texts import Rows
from studies.repair_tuning import tune

#: Rows of old text that a step of replay or of distillation sees beside those of the domain, relative to them.
BESIDE = 0.5


def pulled(kind: str, how: str = "auto") -> Callable[[Bench, float], Any]:
    """Fine-tuning under an anchor with that Ω, attached to the optimizer."""

    def run(bench: Bench, strength: float) -> Any:
        model = bench.base.load()
        anchor = Anchor(model, bench.base.omega(kind), strength)
        tune(model, bench.domain, bench.seed, rate=bench.rate, anchor=anchor, how=how)
        return model

    return run


def in_loss(bench: Bench, strength: float) -> Any:
    """MAS as a term of the loss."""
    model = bench.base.load()
    anchor = Anchor(model, bench.base.omega("mas"), strength)
    tune(model, bench.domain, bench.seed, rate=bench.rate, added=lambda _: anchor.penalty())
    return model


def held(of: str, known: bool = True) -> Callable[[Bench, float], Any]:
    """MAS at the strength that holds a share of the movement or of the weights; the training's length may be known."""

    def run(bench: Bench, share: float) -> Any:
        model = bench.base.load()
        dial = HoldShare(share, steps=bench.steps if known else None, of=of)
        tune(model, bench.domain, bench.seed, rate=bench.rate, anchor=Anchor(model, bench.base.omega("mas"), dial))
        return model

    return run


def _old(bench: Bench, rows: Rows) -> Iterator[Rows]:
    size, epoch = max(1, round(BESIDE * bench.domain.batch)), 0
    while True:
        order = permutation(len(rows), derive(bench.seed, "old", epoch))
        for chosen in torch.split(order, size):
            yield rows.taken(chosen)
        epoch += 1


def distilled(bench: Bench, strength: float) -> Any:
    """KL to the base's predictions on the very windows that importance is measured on."""
    model = bench.base.load()
    tune(model, bench.domain, bench.seed, rate=bench.rate, added=_old_answers(bench, model, strength))
    return model


def held_and_distilled(bench: Bench, strength: float) -> Any:
    """The same, and half of the movement held by MAS."""
    model = bench.base.load()
    anchor = Anchor(model, bench.base.omega("mas"), HoldShare(0.5, steps=bench.steps))
    added = _old_answers(bench, model, strength)
    tune(model, bench.domain, bench.seed, rate=bench.rate, anchor=anchor, added=added)
    return model


def _old_answers(bench: Bench, model: Any, strength: float) -> Callable[[int], Tensor]:
    class Windows:
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            return ({"input_ids": rows.ids[:, :-1]} for rows in _old(bench, bench.base.measured))

    def forward(model: Any, batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(**batch, use_cache=False).logits  # type: ignore[no-any-return]

    kept = Distillation(model, Windows(), strength, forward=forward)
    return lambda _: kept.loss()


def replayed(bench: Bench, strength: float) -> Any:
    """The loss on windows of the base's own training text, added."""
    model, old = bench.base.load(), _old(bench, bench.base.replayed)

    def added(_: int) -> Tensor:
        found, wanted = logits(model, next(old))
        return strength * F.cross_entropy(found, wanted)

    tune(model, bench.domain, bench.seed, rate=bench.rate, added=added)
    return model


def wise_ft(bench: Bench, alpha: float) -> Any:
    """A point on the line from the base to the fine-tuned model."""
    return _toward(bench, bench.tuned(), alpha)


def held_and_wise(bench: Bench, alpha: float) -> Any:
    """A point on the line from the base to the model that MAS held a quarter of."""
    return _toward(bench, bench.weights("held", lambda: held("weights")(bench, 0.25)), alpha)


def adapted(bench: Bench, alpha: float) -> Any:
    """LoRA of rank 8 on all linear layers, merged with its change scaled by α."""
    return _toward(bench, bench.weights("lora", lambda: _lora(bench)), alpha)


def _toward(bench: Bench, state: Mapping[str, Tensor], alpha: float) -> Any:
    return bench.at(repaired(weights(bench.base.load()), state, "wise-ft", settings=Settings(alpha=alpha))[0])


def blended(bench: Bench, strength: float) -> Any:
    """The fine-tuned model, blended toward the base by Ω."""
    before, tuned, settings = weights(bench.base.load()), bench.tuned(), Settings(strength=strength)
    return bench.at(repaired(before, tuned, "importance", importance=bench.base.omega("mas"), settings=settings)[0])


def _lora(bench: Bench) -> Any:
    import peft

    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return _through_adapters(bench, config)


def subspace(bench: Bench, share: float) -> Any:
    """OSF: of every linear layer the largest singular directions, that share of them, stand still."""
    import peft

    config = peft.OSFConfig(effective_rank=share, target_modules="all-linear", task_type="CAUSAL_LM")
    return _through_adapters(bench, config)


def _through_adapters(bench: Bench, config: Any) -> Any:
    import peft

    torch.manual_seed(derive(bench.seed, "lora"))
    model = peft.get_peft_model(bench.base.load(), config)
    tune(model.base_model.model, bench.domain, bench.seed, rate=bench.lora)
    return model.merge_and_unload()


def base(bench: Bench, _: float) -> Any:
    """The model as it was."""
    return bench.base.load()


def fine_tuned(bench: Bench, _: float) -> Any:
    """Nothing is protected."""
    return bench.at(bench.tuned())


@dataclass(frozen=True)
class Method:
    """A way of fine-tuning.

    Attributes:
        run: gives a model.
        strengths: of its frontier; of Ω ÷ its mean where there is one.
        uses: what it needs of the old, in words.
        slug: its name in files.
    """

    run: Callable[[Bench, float], Any]
    strengths: tuple[float, ...]
    uses: str
    slug: str


#: Of Ω ÷ its mean, where there is one.
_GRID = (1e-3, 4e-3, 0.016, 0.064, 0.25)
_ALPHAS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
_OMEGA = "unlabeled old text, once"
_LABELED = "old text, once"
#: A share of the elements stands still, for each way to choose them and for variants of the first.
CORES: dict[str, Method] = {
    "core by loss gradient": Method(frozen("modulus"), SHARES, _LABELED, "core-gradient"),
    "core by MAS": Method(frozen("mas"), SHARES, _OMEGA, "core-mas"),
    "core by Fisher": Method(frozen("fisher"), SHARES, _OMEGA, "core-fisher"),
    "core by magnitude": Method(frozen("magnitude"), SHARES, "nothing", "core-magnitude"),
    "core at random": Method(frozen("random"), SHARES, "nothing", "core-random"),
    "core by loss gradient, rows": Method(frozen("modulus", "row"), VARIED, _LABELED, "core-rows"),
    "core by loss gradient, in each tensor": Method(
        frozen("modulus", scope="tensor"), VARIED, _LABELED, "core-tensors"
    ),
    "core by loss gradient, against the domain's": Method(
        frozen("modulus", against=True), VARIED, _LABELED, "core-against"
    ),
}
#: In the order in which they run.
METHODS: dict[str, Method] = {
    "base": Method(base, (0,), "", "base"),
    "fine-tuned": Method(fine_tuned, (0,), "", "fine-tuned"),
    "MAS, a share held": Method(held("weights"), (0.1, 0.25, 0.5, 0.75), _OMEGA, "mas-held"),
    "MAS, share of the movement": Method(held("movement", known=False), (0.5, 0.65, 0.9), _OMEGA, "mas-anytime"),
    "MAS, share of the movement, told the length": Method(held("movement"), (0.5,), _OMEGA, "mas-default"),
    "blend by importance": Method(blended, (0.03, 0.1, 0.2, 0.4, 1, 3), _OMEGA, "blend"),
    "WiSE-FT": Method(wise_ft, _ALPHAS, "nothing", "wise-ft"),
    "KL": Method(distilled, (0.3, 1, 3, 10), "unlabeled old text, all along", "kl"),
    "MAS + KL": Method(held_and_distilled, (0.3, 1, 3, 10), "unlabeled old text, all along", "mas-kl"),
    "L2-SP": Method(pulled("ones"), _GRID, "nothing", "l2sp"),
    "EWC": Method(pulled("fisher"), _GRID, _OMEGA, "ewc"),
    "LoRA": Method(adapted, (*_ALPHAS, 1), "nothing", "lora"),
    "OSF": Method(subspace, (0.25, 0.5, 0.75, 0.9), "nothing", "osf"),
    "replay": Method(replayed, (0.3, 1, 3, 10), "1 % of the base's training text, all along", "replay"),
    "MAS": Method(pulled("mas"), _GRID, _OMEGA, "mas"),
    "MAS in the loss": Method(in_loss, _GRID, _OMEGA, "mas-loss"),
    "MAS + WiSE-FT": Method(held_and_wise, _ALPHAS, _OMEGA, "mas-wise-ft"),
    "MAS, gradient": Method(pulled("mas", "gradient"), _GRID, _OMEGA, "mas-gradient"),
    "E‖J‖²": Method(pulled("curvature"), _GRID, _OMEGA, "curvature"),
    **CORES,
}

"""What freezing the core of a language model keeps, and what it costs: Wikipedia first, then Shakespeare.

    python -m studies.freezing --data DATA   # DATA holds wikitext2/ and tinyshakespeare/; runs what is missing
    python -m studies.freezing               # figure and tables of docs/freezing.md from results/ only

A Llama of two layers reads bytes. It learns general text; then the core is chosen, and it learns a domain with AdamW
while the core stands still. The measure is bits per byte of test text of both kinds. Every setting is in the table and
none was chosen by it: the grids and the learning rate were fixed before; steps and variants were cut for time.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import Anchor, Importance, files
from forgetless.errors import ForgetlessError
from forgetless.measure.estimators.fisher import fisher
from forgetless.measure.estimators.mas import mas
from forgetless.measure.selection import Granularity, Scope
from forgetless.protect.frozen.freeze import freeze
from studies import blocks, figures

OUT = Path("results/freezing/language-model.json")
SEEDS = (0, 1, 2)
SHARES = (0.3, 0.5, 0.7, 0.9, 0.97)
VARIED = 0.7  # the share of the variants
WIDTH, LENGTH, BATCH, FIRST, SECOND, MEASURED, TESTED = 64, 64, 8, 3000, 200, 300, 500
RATE = 3e-3


Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Texts:
    """Bytes of a kind of text: to learn from, and to test on."""

    learned: Tensor
    tested: Tensor


@dataclass(frozen=True)
class Setting:
    """One way to learn the domain.

    Attributes:
        kind: what it is called.
        value: the share that stands still, or the strength; None where there is none.
        stage: settings of a lower one are run first, for all seeds.
        frozen: how the core is chosen, for `freeze`: importance, granularity, scope and whether against the domain's.
        penalty: what the penalty is: "mas", "fisher" (EWC) or "l2sp".
        adapted: whether LoRA of rank `value` is trained, on all linear layers, and nothing else.
        text: "domain", or "general" for the control that learns no domain.
    """

    kind: str
    value: float | None = None
    stage: int = 0
    frozen: tuple[str, Granularity, Scope, bool] | None = None
    penalty: str | None = None
    adapted: bool = False
    text: str = "domain"


#: The curves: a share of elements stands still. The first is the paper's score (its Eq. 4).
CHOICES: dict[str, tuple[str, Granularity, Scope, bool]] = {
    "mean |∂loss|": ("modulus", "element", "global", False),
    "MAS": ("mas", "element", "global", False),
    "Fisher": ("fisher", "element", "global", False),
    "magnitude": ("magnitude", "element", "global", False),
    "random": ("random", "element", "global", False),
}
VARIANTS: dict[str, tuple[str, Granularity, Scope, bool]] = {
    "mean |∂loss|, a share of each tensor": ("modulus", "element", "tensor", False),
    "mean |∂loss|, rows": ("modulus", "row", "global", False),
    "mean |∂loss|, against the domain's": ("modulus", "element", "global", True),
}
PENALTIES: dict[str, tuple[str, tuple[float, ...]]] = {
    "MAS penalty": ("mas", (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)),
    "L2-SP penalty": ("l2sp", (1e-4, 1e-3, 1e-2, 1e-1, 1.0)),
    "EWC penalty": ("fisher", (1e-3, 1e-2, 1e-1, 1.0, 10.0)),  # those of MAS × 1,000: its Ω is 1,300 times as large
}
ADAPTED, RANKS = "LoRA", (1, 2, 4, 8, 16)


def settings() -> list[Setting]:
    """All of them, in the order of the table."""
    return [
        Setting("before"),
        Setting("full fine-tuning"),
        Setting("general text only", text="general"),
        *(Setting(kind, share, 1, frozen=how) for kind, how in CHOICES.items() for share in SHARES),
        *(Setting(k, value, 2, penalty=which) for k, (which, grid) in PENALTIES.items() for value in grid),
        *(Setting(ADAPTED, rank, 2, adapted=True) for rank in RANKS),
        *(Setting(kind, VARIED, 3, frozen=how) for kind, how in VARIANTS.items()),
    ]


def texts(data: Path) -> dict[str, Texts]:
    """General text and the domain's; what is not ASCII becomes one byte."""
    plays = (data / "tinyshakespeare" / "input.txt").read_bytes()
    cut = len(plays) * 9 // 10
    wiki = [(data / "wikitext2" / f"{name}.txt").read_bytes() for name in ("valid", "test")]
    return {"general": Texts(*map(_bytes, wiki)), "domain": Texts(_bytes(plays[:cut]), _bytes(plays[cut:]))}


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long().clamp(max=127)


def windows(text: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Pieces of a text, `[count, LENGTH]`."""
    starts = torch.randint(len(text) - LENGTH, (count,), generator=generator)
    return text[starts[:, None] + torch.arange(LENGTH)]


def network(seed: int) -> nn.Module:
    """The language model, new."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
    )
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model


def learn(model: nn.Module, text: Tensor, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    """Train on a text; the rate falls to 0."""
    generator = torch.Generator().manual_seed(seed)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for _ in range(steps):
        batch = windows(text, BATCH, generator)
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def bits_per_byte(model: nn.Module, text: Tensor) -> float:
    """Mean of −log₂ p of the next byte, over pieces of a test text that are the same for all models."""
    pieces = windows(text, TESTED, torch.Generator().manual_seed(0))
    losses = [float(model(input_ids=each, labels=each).loss) * len(each) for each in torch.split(pieces, 100)]
    return sum(losses) / len(pieces) / math.log(2)


class Base:
    """A model that has learned the general text, and every importance of it; kept in files of a folder."""

    def __init__(self, read: Mapping[str, Texts], seed: int, folder: Path) -> None:
        self.seed, self._read, self._folder = seed, read, folder
        self.model = network(seed)
        path = folder / "base.safetensors"
        if path.exists():
            self.model.load_state_dict(files.read_tensors(path, "base")[0])
        else:
            learn(self.model, read["general"].learned, torch.optim.AdamW(self.model.parameters(), RATE), FIRST, seed)
            files.write_tensors(path, self.model.state_dict(), "base", {})
        self.model.eval()

    def importance(self, which: str, text: str = "general") -> Importance:
        """One of the kinds, of one of the texts."""
        path = self._folder / f"{which}-{text}.safetensors"
        if not path.exists():
            self._measured(which, text).save(path)
        return Importance.load(path)

    def _measured(self, which: str, text: str) -> Importance:
        if which in ("magnitude", "random"):
            draw = torch.Generator().manual_seed(self.seed + 7)
            made: Callable[[Tensor], Tensor] = torch.abs
            if which == "random":
                made = lambda each: torch.rand(each.shape, generator=draw)  # noqa: E731
            return Importance({n: made(p.detach()) for n, p in self.model.named_parameters()}, 1, which)
        ids = windows(self._read[text].learned, MEASURED, torch.Generator().manual_seed(self.seed))
        if which == "mas":
            return mas(self.model, {"input_ids": ids}, progress=False)
        labels = torch.cat([ids[:, 1:], torch.full((len(ids), 1), -100)], 1)
        if which == "modulus":
            batch = {"input_ids": ids, "labels": labels}
            return fisher(self.model, batch, labels="empirical", form="modulus", progress=False)
        return fisher(self.model, {"input_ids": ids}, progress=False)


def adapted(model: nn.Module, rank: int, seed: int) -> nn.Module:
    """The model with new LoRA adapters, α = 2 · rank, on all linear layers but the last; nothing else is trained."""
    import peft

    torch.manual_seed(seed + 2000)
    made: Any = peft.get_peft_model
    found: nn.Module = made(model, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    return found


def run(base: Base, read: Mapping[str, Texts], setting: Setting) -> dict[str, Any]:
    """The bits per byte of one setting, and what stood still."""
    model = copy.deepcopy(base.model)
    fraction = 0.0
    if setting.adapted and setting.value is not None:
        model = adapted(model, int(setting.value), base.seed)
    if setting.kind != "before":
        optimizer = torch.optim.AdamW(model.parameters(), RATE)
        if setting.frozen is not None and setting.value is not None:
            which, granularity, scope, against = setting.frozen
            other = base.importance(which, "domain") if against else None
            core = freeze(model, base.importance(which), setting.value, granularity, scope=scope, against=other)
            fraction = core.attach(optimizer).status().fraction
        if setting.penalty in ("mas", "fisher") and setting.value is not None:
            Anchor(model, base.importance(setting.penalty), setting.value).attach(optimizer)
        if setting.penalty == "l2sp" and setting.value is not None:
            Anchor(model, base.importance("mas"), 0.0, l2sp=setting.value).attach(optimizer)
        learn(model, read[setting.text].learned, optimizer, SECOND, base.seed + 1000)
    found = {name: bits_per_byte(model, text.tested) for name, text in read.items()}
    return {"kind": setting.kind, "value": setting.value, "seed": base.seed, "fraction": fraction, **found}


def study(read: Mapping[str, Texts], folder: Path, known: Rows = ()) -> Iterator[Mapping[str, Any]]:
    """All rows; those that are known, or in the folder already, are not run again."""
    every = settings()
    had = {(row["kind"], row["value"], row["seed"]): row for row in known}
    made: dict[int, Base] = {}
    rows: dict[tuple[int, int], Mapping[str, Any]] = {}
    for stage in range(max(each.stage for each in every) + 1):
        for seed in SEEDS:
            place = folder / f"seed-{seed}"
            place.mkdir(parents=True, exist_ok=True)
            for number, setting in enumerate(every):
                if setting.stage != stage:
                    continue
                if (key := (setting.kind, setting.value, seed)) in had:
                    rows[number, seed] = had[key]
                    continue
                path = place / f"{number}.json"
                if not path.exists():
                    base = made.setdefault(seed, made[seed] if seed in made else Base(read, seed, place))
                    row = run(base, read, setting)
                    files.write_sealed(path, row)
                    print(row, flush=True)
                rows[number, seed] = files.read_sealed(path)
    for number, _ in enumerate(every):
        for seed in SEEDS:
            yield rows[number, seed]


# -- the page


def grouped(rows: Rows) -> dict[tuple[str, float | None], list[Mapping[str, Any]]]:
    """(kind, value) → the rows of its seeds."""
    groups: dict[tuple[str, float | None], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["value"]), []).append(row)
    return groups


def table(rows: Rows, kinds: Sequence[str], column: str) -> str:
    """Means over seeds with their standard deviations, as a Markdown table."""
    lines = [f"| {column} | | general | domain |", "|---|---|---|---|"]
    for (kind, value), found in grouped(rows).items():
        if kind in kinds:
            cells = [_cell([row[name] for row in found]) for name in ("general", "domain")]
            named = kind.replace("|", "\\|")
            lines.append(f"| {named} | {'' if value is None else f'{value:g}'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def drawn(rows: Rows, path: Path) -> None:
    """The frontier: bits per byte of general text against those of the domain; means over seeds."""
    pyplot = figures.pyplot_module()
    figure, axis = pyplot.subplots(figsize=(7.5, 5))
    groups = grouped(rows)
    marks = dict(zip([*CHOICES, *PENALTIES, ADAPTED], "os^Dv<>hX", strict=False))
    for number, (kind, mark) in enumerate(marks.items()):
        own = [found for (name, _), found in groups.items() if name == kind]
        for_axis = {name: [[row[name] for row in found] for found in own] for name in ("domain", "general")}
        mean, spread = (
            {name: [each(values) for values in lists] for name, lists in for_axis.items()}
            for each in (statistics.fmean, partial(_spread))
        )
        axis.errorbar(
            mean["domain"], mean["general"], spread["general"], spread["domain"], f"{mark}-", lw=1, ms=4,
            elinewidth=0.6, color=f"C{number}", label=kind + (" (frozen)" if kind in CHOICES else ""),
        )  # fmt: skip
    for kind, mark in (("before", "*"), ("full fine-tuning", "P")):
        found = groups[kind, None]
        place = [statistics.fmean(row[name] for row in found) for name in ("domain", "general")]
        axis.plot(*place, mark, ms=10, color="black", label=kind)
    axis.set(xlabel="bits per byte, domain (Shakespeare)", ylabel="bits per byte, general text (Wikipedia)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figures.save(figure, path)


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def written(rows: Rows, page: Path) -> None:
    """The figure and the tables of a page."""
    drawn(rows, page.parent / "figures" / "freezing.svg")
    alone = ("before", "full fine-tuning", "general text only")
    blocks.inserted(page, "frozen shares", table(rows, [*alone, *CHOICES], "bits per byte"))
    blocks.inserted(page, "penalties", table(rows, [*PENALTIES, ADAPTED], "bits per byte"))
    blocks.inserted(page, "variants", table(rows, list(VARIANTS), "bits per byte"))


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.freezing", description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder of texts; without it nothing is run")
    parser.add_argument("--runs", type=Path, default=Path("runs/freezing"), help="the folder of single runs")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--page", type=Path, default=Path("docs/freezing.md"), help="the page that takes the tables")
    options = parser.parse_args(words)
    if options.data is not None:
        warnings.simplefilter("ignore")
        known = files.read_sealed(options.out)["rows"] if options.out.exists() else ()
        rows = list(study(texts(options.data), options.runs, known))
        files.write_sealed(options.out, {"rows": rows})
    if not options.out.exists():
        raise ForgetlessError(f"{options.out} does not exist; run the study with --data.")
    written(files.read_sealed(options.out)["rows"], options.page)


if __name__ == "__main__":
    main()

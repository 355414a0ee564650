"""The blocks of docs/facts.md and docs/adaptation.md that come from committed runs.

python -m studies.facts_page
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.published.elhoseiny_2018 import STRENGTH, TOP_FIVE
from forgetless.lab.report.adaptation import adaptation
from forgetless.lab.results.paired import by_method, paired
from forgetless.learn import metrics
from studies import blocks, omega_sets, streams

OMEGAS = ("everything", "subset", "rest")
KINDS = ("pictures", "facts")
SPLITS = ("random", "semantic")


def published() -> str:
    """The authors' table, as Markdown."""
    lines = [
        "| 6DS, the authors' code, K5 in % | task 1 | task 2 | task 3 | task 4 | mean |",
        "|---|---|---|---|---|---|",
    ]
    for (split, method), figures in TOP_FIVE.items():
        title = "FineTune" if method == "finetune" else f"MAS, λ = {STRENGTH:g}"
        lines.append(f"| {split}, {title} | {' | '.join(f'{each:.2f}' for each in figures)} |")
    return "\n".join(lines)


def differences(root: Path) -> str:
    """MAS minus fine-tuning over equal seeds, as Markdown; with a λ by stability decay as well, where that was run."""
    lines = [
        "| MAS − FineTune, points, 95 % interval | λ | average mAP now | forgetting | mAP of all facts | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for split in SPLITS:
        given = results.read(root / "facts" / f"{split}.json")
        plain = [run for run in given["runs"] if run["method"] == "finetune"]
        for name in (split, f"{split}-tuned"):
            if not (path := root / "facts" / f"{name}.json").exists():
                continue
            runs = [run for run in results.read(path)["runs"] if run["method"] == "mas"]
            both: dict[str, Any] = {**given, "runs": [*plain, *runs]}
            looked = {
                method: {run["seed"]: 100 * run["figures"]["all facts"][-1] for run in some}
                for method, some in (("mas", runs), ("finetune", plain))
            }
            pairs = [*(by_method(both, each) for each in (metrics.average_accuracy, metrics.forgetting_mas)), looked]
            compared = [paired(each["mas"], each["finetune"]) for each in pairs]
            cells = [f"{each.mean:+.1f} [{each.low:+.1f}, {each.high:+.1f}]" for each in compared]
            strengths = ", ".join(f"{each:g}" for each in sorted({run["strength"] for run in runs}))
            lines.append(f"| {split} | {strengths} | {' | '.join(cells)} | {compared[0].count} |")
    return "\n".join(lines)


def write(root: Path, docs: Path) -> list[Path]:
    """Write the blocks anew; gives the pages.

    Args:
        root: the folder of all results.
        docs: the folder of pages.

    Raises:
        ForgetlessError: results are missing or damaged, or a page lacks a block.
    """
    page = docs / "facts.md"
    blocks.reported(page, root.parent)
    blocks.inserted(page, "differences", differences(root))
    blocks.inserted(page, "published facts", published())
    other = docs / "adaptation.md"
    for kind in KINDS:
        found = {name: results.read(root / "adaptation" / f"{kind}-{name}.json") for name in OMEGAS}
        blocks.inserted(other, f"adaptation {kind}", adaptation(found).rstrip("\n"))
    omega_sets.write(files.read_sealed(root / "adaptation" / "omega.json"), other, docs / "figures" / "omega-sets.svg")
    third = docs / "streams.md"
    blocks.inserted(third, "streams", streams.table(root / "streams"))
    return [page, other, third]


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.facts_page", description=__doc__)
    parser.parse_args(words)
    try:
        for path in write(Path("results"), Path("docs")):
            print(path)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()

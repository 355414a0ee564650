"""The study of freezing: which runs its page takes, and what it says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forgetless import files
from studies import freezing
from studies.evidence.language_methods import CORES, METHODS
from studies.evidence.language_reading import complete


def row(method: str, setting: float, seed: int, known: float, new: float) -> dict[str, Any]:
    return {"method": method, "setting": setting, "seed": seed, "general": known, "new": new}


def found(seed: int, leave_out: str = "") -> list[dict[str, Any]]:
    """Rows of one fine-tuning; a core keeps as much as its share, and gives up a tenth of that."""
    ends = [row("base", 0, seed, 1.0, 5.0), row("fine-tuned", 0, seed, 3.0, 3.0)]
    named = [name for name in (*freezing.STYLES, *freezing.VARIANTS) if name != leave_out]
    rows = [row(n, s, seed, 3 - 2 * min(s, 1), 3 + 0.2 * min(s, 1)) for n in named for s in METHODS[n].strengths]
    return ends + rows


@pytest.fixture
def out(tmp_path: Path) -> Path:
    rows = [*found(0), *found(1), *found(2, "core at random"), *found(3, "core by loss gradient, rows")]
    files.write_sealed(tmp_path / "language-shakespeare.json", {"domain": "shakespeare", "rows": rows})
    return tmp_path


def test_a_fine_tuning_counts_where_every_setting_was_run(out: Path) -> None:
    assert [each.name[-1] for each in complete(out, freezing.STYLES, freezing.KNOWN)] == ["0", "1", "3"]
    assert [each.name[-1] for each in complete(out, freezing.VARIANTS, freezing.KNOWN)] == ["0", "1", "2"]


def test_variants_are_left_out_until_they_have_been_run(tmp_path: Path) -> None:
    rows = [row for row in found(0) if row["method"] not in freezing.VARIANTS]
    files.write_sealed(tmp_path / "language-shakespeare.json", {"domain": "shakespeare", "rows": rows})
    assert not list(freezing.variants(tmp_path))


def test_the_page_has_every_core_and_every_rival(out: Path) -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    page = out / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in ("cores", "variants")))
    freezing.main(["--results", str(out), "--page", str(page)])
    text = page.read_text()
    for name in CORES:
        for share in METHODS[name].strengths:
            line = f"| {name}, {share:g} | {100 - 10 * share:.0f} "
            assert line in text
            assert text.split(line)[1].split("|")[1].startswith(f" {100 * share:.0f} ")
    assert all(f"| {name} | " in text for name in freezing.RIVALS)
    assert (page.parent / "figures" / freezing.FIGURE).exists()
